"""`shadow-local`: the deployment on this machine, in the foreground or as a demonstration."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shadow_local.demo import demonstrate
from shadow_local.failures import line_of
from shadow_local.occupation import occupied
from shadow_local.platforms import unsupported
from shadow_local.rendering import data_folder, repository, topology
from shadow_local.report import compare, psql
from shadow_local.settings import whole
from shadow_local.stack import Options, Stack
from shadow_local.steps import steps
from shadow_local.stopping import stopped_at_the_end
from shadow_local.supervisor import StopRequested
from shadow_local.uris import masked

STATE = "state.json"
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
screen = Console(highlight=False, markup=False)
errors = Console(stderr=True, highlight=False, markup=False)

GatewayPort = Annotated[
    int,
    typer.Option(envvar="GATEWAY_PORT", parser=whole("GATEWAY_PORT", 65_535, 8080), metavar="PORT"),
]
Requests = Annotated[
    int,
    typer.Option(envvar="REQUESTS", parser=whole("REQUESTS", 10_000_000, 200), metavar="NUMBER"),
]
Topology = Annotated[str, typer.Option("--topology", envvar="TOPOLOGY", help="standard or knative")]
Kustomization = Annotated[
    Path | None,
    typer.Option(envvar="KUSTOMIZATION", help="another kustomization, such as manifests/stages/…"),
]
Without = Annotated[
    str | None,
    typer.Option(envvar="WITHOUT", help="a process to start by hand: primary-transformer, …"),
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
    gateway_port: GatewayPort = 8080,
    topology_name: Topology = "standard",
    kustomization: Kustomization = None,
    without: Without = None,
    x_api_key: ApiKey = None,
    postgres_uri: PostgresUri = None,
    mirror_host_suffix: Suffix = False,
    folder: Folder = None,
) -> None:
    """Run the deployment until Ctrl-C or SIGTERM."""
    base = _folder(folder)
    options = Options(
        folder=base / data_folder(kustomization),
        kustomization=kustomization or topology(topology_name),
        gateway_port=gateway_port,
        api_key=x_api_key or None,
        postgres_uri=postgres_uri or None,
        mirror_host_suffix=mirror_host_suffix,
        without=without or None,
    )
    stack = Stack(options)  # what is wrong with them is told first
    with occupied(base):
        _watch(stack, base / STATE)


@app.command()
def demo(
    requests: Requests = 200,
    topology_name: Topology = "standard",
    postgres_uri: PostgresUri = None,
    folder: Folder = None,
) -> None:
    """Run the deployment, send sample traffic, show the comparison, stop everything."""
    own = _folder(folder) / "demo"
    with occupied(own):
        options = Options(own, topology(topology_name), postgres_uri=postgres_uri or None)
        demonstrate(options, requests, screen)


@app.command(context_settings=PASSED_ON | {"help_option_names": []})
def report(
    context: typer.Context,
    topology_name: Topology = "standard",
    kustomization: Kustomization = None,
    postgres_uri: PostgresUri = None,
    folder: Folder = None,
) -> None:
    """Compare what a running `up`, or POSTGRES_URI, has recorded; more options go to compare."""
    manifests = kustomization or topology(topology_name)
    compare(postgres_uri or None, manifests, _folder(folder) / STATE, context.args)


@app.command("psql", context_settings=PASSED_ON)
def run_psql(context: typer.Context, postgres_uri: PostgresUri = None) -> None:
    """Open psql on the database of a running `up`, or POSTGRES_URI; more options go to psql."""
    psql(postgres_uri or None, _folder(None) / STATE, context.args)


def _watch(stack: Stack, state_file: Path) -> None:
    """Start a stack, say where it is, and watch it until someone ends it."""
    try:
        with stopped_at_the_end(stack, screen.print):
            with steps(screen) as step:
                state = stack.start(step)
            state.write(state_file)
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            for line in (
                *stack.differences,
                f"psql {masked(state.postgres_uri)}",
                f'without the calls of earlier runs: make report ARGS="--since {now}"',
                f"logs in {stack.supervisor.log_folder}; Ctrl-C stops all of it",
            ):
                screen.print(line, style="dim", soft_wrap=True)
            screen.print(f"ready: {state.predict_url}", style="bold green", soft_wrap=True)
            while True:
                stack.check()
                time.sleep(0.2)
    except StopRequested:
        return
    finally:
        state_file.unlink(missing_ok=True)


def run() -> int:
    """Run the command line; the exit code. What goes wrong is said in one line."""
    if reason := unsupported():
        errors.print(reason, style="red", soft_wrap=True)
        return 1
    try:
        return int(app(standalone_mode=False) or 0)
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        errors.print(f"shadow-local: {line}", style="red", soft_wrap=True)
        return 1


def _folder(given: Path | None) -> Path:
    return (given or repository() / "local" / ".run").absolute()
