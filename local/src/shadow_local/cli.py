"""`shadow-local`: the deployment on this machine, in the foreground or as a demonstration."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from rich.console import Console
from rich.status import Status

from embedded_postgres import PostgresFailed
from shadow_local.demo import demonstrate
from shadow_local.document import Untranslated
from shadow_local.platforms import unsupported
from shadow_local.ports import PortBusy
from shadow_local.probes import NotReady
from shadow_local.rendering import RenderingFailed, repository, topology
from shadow_local.report import ReportFailed, compare, psql
from shadow_local.stack import Options, Progress, Stack
from shadow_local.stopping import stopped_at_the_end
from shadow_local.supervisor import ChildDied, StopRequested

# What goes wrong outside this program; its message is enough, a trace would hide it.
EXPECTED = (
    ChildDied,
    NotReady,
    PortBusy,
    PostgresFailed,
    RenderingFailed,
    ReportFailed,
    Untranslated,
    psycopg.Error,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
screen = Console(highlight=False, markup=False)
errors = Console(stderr=True, highlight=False, markup=False)

Topology = Annotated[str, typer.Option("--topology", envvar="TOPOLOGY", help="standard or knative")]
Kustomization = Annotated[
    Path | None,
    typer.Option(envvar="KUSTOMIZATION", help="another kustomization, such as manifests/stages/…"),
]
ApiKey = Annotated[str | None, typer.Option(envvar="X_API_KEY", help="demanded in x-api-key")]
PostgresUri = Annotated[
    str | None, typer.Option(envvar="POSTGRES_URI", help="in place of the embedded Postgres")
]
Folder = Annotated[Path | None, typer.Option(help="all that it writes; local/.run by default")]
Suffix = Annotated[
    bool,
    typer.Option(
        "--mirror-host-suffix",
        envvar="MIRROR_HOST_SUFFIX",
        help="append -shadow to the Host of mirrored copies, as Istio before 1.28",
    ),
]


@app.command()
def up(  # noqa: PLR0917 - typer calls it with keywords
    gateway_port: Annotated[int, typer.Option(envvar="GATEWAY_PORT", min=1, max=65535)] = 8080,
    topology_name: Topology = "standard",
    kustomization: Kustomization = None,
    without: Annotated[
        str | None,
        typer.Option(envvar="WITHOUT", help="a process to start by hand: primary-transformer, …"),
    ] = None,
    x_api_key: ApiKey = None,
    postgres_uri: PostgresUri = None,
    mirror_host_suffix: Suffix = False,
    folder: Folder = None,
) -> None:
    """Run the deployment until Ctrl-C or SIGTERM."""
    with _reported():
        options = Options(
            folder=_folder(folder),
            kustomization=kustomization or topology(topology_name),
            gateway_port=gateway_port,
            api_key=x_api_key or None,
            postgres_uri=postgres_uri or None,
            mirror_host_suffix=mirror_host_suffix,
            without=without or None,
        )
        with _only_one(options.folder):
            _run(Stack(options))


@app.command()
def demo(
    requests: Annotated[int, typer.Option(envvar="REQUESTS", min=1)] = 200,
    topology_name: Topology = "standard",
    postgres_uri: PostgresUri = None,
    folder: Folder = None,
) -> None:
    """Run the deployment, send sample traffic, show the comparison, stop everything."""
    with _reported():
        options = Options(
            folder=_folder(folder) / "demo",
            kustomization=topology(topology_name),
            postgres_uri=postgres_uri or None,
        )
        with _only_one(options.folder):
            demonstrate(options, requests, screen)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def report(context: typer.Context, postgres_uri: PostgresUri = None, folder: Folder = None) -> None:
    """Compare what a running `up`, or POSTGRES_URI, has recorded; more options go to compare."""
    with _reported():
        raise typer.Exit(
            compare(postgres_uri or None, _folder(folder) / "state.json", context.args)
        )


@app.command("psql", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_psql(context: typer.Context, postgres_uri: PostgresUri = None) -> None:
    """Open psql on the database of a running `up`; more options go to psql."""
    with _reported():
        raise typer.Exit(psql(postgres_uri or None, _folder(None) / "state.json", context.args))


def _run(stack: Stack) -> None:
    """Start a stack, say where it is, and watch it until someone ends it."""
    state_file = stack.options.folder / "state.json"
    with stopped_at_the_end(stack):
        try:
            with _progress() as progress:
                state = stack.start(progress)
            state.write(state_file)
            about = [*stack.differences, f"psql {state.postgres_uri}"]
            for line in [*about, f"logs in {stack.supervisor.log_folder}; Ctrl-C stops all of it"]:
                screen.print(line, style="dim", soft_wrap=True)
            screen.print(f"ready: {state.predict_url}", style="bold green", soft_wrap=True)
            while True:
                stack.check()
                time.sleep(0.2)
        except StopRequested:
            screen.print("stopping")
        finally:
            state_file.unlink(missing_ok=True)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A line that changes on a terminal; elsewhere only what asks for a person's hand is said."""
    with Status("starting", console=errors) as status:

        def tell(text: str) -> None:
            if "\n" in text:
                screen.print(text, soft_wrap=True)
            else:
                status.update(text)

        yield tell


@contextmanager
def _reported() -> Iterator[None]:
    """Say what went wrong in the error's own words and exit with 1; 0 when asked to end."""
    if reason := unsupported():
        errors.print(reason, style="red", soft_wrap=True)
        raise typer.Exit(1)
    try:
        yield
    except StopRequested:
        raise typer.Exit from None
    except EXPECTED as error:
        errors.print(f"shadow-local: {error}", style="red", soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep a second run out of a folder that one is using."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            errors.print(f"shadow-local: process {lock.read()} already runs in {folder}.")
            raise typer.Exit(1) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _folder(given: Path | None) -> Path:
    return (given or repository() / "local" / ".run").absolute()
