"""`shadow-local`: the deployment on this machine, in the foreground or as a demonstration."""

from __future__ import annotations

import errno
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from rich.console import Console

from embedded_postgres import PostgresFailed
from shadow_local import Explained
from shadow_local.database import masked
from shadow_local.report import compare, noise, outdated, psql, running
from shadow_local.stack import Options, Stack, in_foreground
from shadow_local.state import STATE, claimed, copies_url_of, data_folder, other_models
from shadow_local.supervisor import StopRequested
from shadow_local.translate import cluster
from shadow_local.translate.arguments import check_arguments
from shadow_local.translate.document import Manifest, render, repository, topology
from shadow_local.translate.forms import in_place, label
from shadow_local.translate.patches import misplaced
from shadow_local.translate.schemas import known
from shadow_local.translate.written import outranked

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
POSTGRES_FULL = ("No space left on device", "Check free disk space")
# What MODEL may be: a kustomization of ours, or the topology's own.
MODELS = {"number": None, "llm": "examples/generative"}
CHOICE = "manifests/mirroring/kustomization.yaml"
MAKE_ROOM = "make room there, or remove what earlier runs left: `make clean`."

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
screen = Console(highlight=False, markup=False)
errors = Console(stderr=True, highlight=False, markup=False)


def _number(variable: str, highest: int, example: int) -> Callable[[str | int], int]:
    """A reader of whole numbers from 1 to the highest; it raises Explained for all others."""

    def read(text: str | int) -> int:
        if str(text).isdecimal() and 1 <= int(text) <= highest:
            return int(text)
        raise Explained(
            f"{variable} is '{text}'; set it to a whole number from 1 to {highest:,}, such as "
            f"{example}."
        )

    return read


GatewayPort = Annotated[
    int,
    typer.Option(
        envvar="GATEWAY_PORT", parser=_number("GATEWAY_PORT", 65_535, 8080), metavar="PORT"
    ),
]
Requests = Annotated[
    int,
    typer.Option(envvar="REQUESTS", parser=_number("REQUESTS", 10_000_000, 200), metavar="NUMBER"),
]
Times = Annotated[
    int,
    typer.Option(
        envvar="TIMES",
        parser=_number("TIMES", 10_000_000, 100),
        metavar="NUMBER",
        help="how often the file is sent",
    ),
]
PredictUrl = Annotated[
    str | None,
    typer.Option(envvar="PREDICT_URL", help="where to, in place of a running `up`"),
]
Replicas = Annotated[
    int,
    typer.Option(
        envvar="REPLICAS",
        parser=_number("REPLICAS", 100, 2),
        metavar="NUMBER",
        help="pods of each model and of each transformer",
    ),
]
Edge = Annotated[
    bool,
    typer.Option(
        "--edge",
        envvar="ISTIO_EDGE",
        help="the gateway has the small buffers of Istio's profile EDGE",
    ),
]
Topology = Annotated[
    str | None,
    typer.Option(
        "--topology",
        envvar="TOPOLOGY",
        help="a folder of manifests/mirroring; as the kustomization.yaml there has it",
    ),
]
Kustomization = Annotated[
    Path | None,
    typer.Option(envvar="KUSTOMIZATION", help="another kustomization, such as manifests/stages/…"),
]
Without = Annotated[
    str | None,
    typer.Option(envvar="WITHOUT", help="processes to start by hand: primary-transformer,…"),
]
ApiKey = Annotated[str | None, typer.Option(envvar="X_API_KEY", help="demanded in x-api-key")]
PostgresUri = Annotated[
    str | None, typer.Option(envvar="POSTGRES_URI", help="in place of the embedded Postgres")
]
Folder = Annotated[Path | None, typer.Option(help="all that it writes; local/.run by default")]
Model = Annotated[str, typer.Option(help="number, or llm: the deployment of examples/generative")]
Html = Annotated[
    Path | None,
    typer.Option(envvar="HTML", help="a folder for both rounds' reports as pages"),
]
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
    topology_name: Topology = None,
    kustomization: Kustomization = None,
    model: Model = "number",
    without: Without = None,
    x_api_key: ApiKey = None,
    postgres_uri: PostgresUri = None,
    mirror_host_suffix: Suffix = False,
    replicas: Replicas = 1,
    edge: Edge = False,
    folder: Folder = None,
) -> None:
    """Run the deployment until Ctrl-C or SIGTERM."""
    base = _run_folder(folder)
    if (of_model := _of_model(model)) and kustomization:
        raise Explained(f"MODEL is '{model}', and KUSTOMIZATION '{kustomization}'; leave one out.")
    kustomization = kustomization or of_model
    options = Options(
        folder=base / data_folder(kustomization),
        kustomization=_chosen(topology_name, kustomization),
        gateway_port=gateway_port,
        api_key=x_api_key or None,
        postgres_uri=postgres_uri or None,
        mirror_host_suffix=mirror_host_suffix,
        without=tuple(name.strip() for name in (without or "").split(",") if name.strip()),
        replicas=replicas,
        edge=edge,
        live_verdict=True,
    )
    stack = Stack(options)  # a wrong option is reported before another run in the folder
    which = _as_typed(TOPOLOGY=topology_name, KUSTOMIZATION=kustomization, WITHOUT=without)
    second = (
        f"`{which}GATEWAY_PORT=9000 local/.venv/bin/shadow-local up --folder {base}/second`, "
        "and the same with `report` in place of `up`."
    )
    with claimed(base, second):
        _watch(stack, base)


@app.command()
def check(
    topology_name: Topology = None,
    kustomization: Kustomization = None,
    edge: Edge = False,
    strict: Annotated[bool, typer.Option("--strict", help="a warning fails too")] = False,
) -> None:
    """Say in one line what a cluster would refuse of the manifests, or misunderstand."""
    folder = _chosen(topology_name, kustomization)
    manifests = cluster.checked(folder, edge)
    # Not in `up`, which has what it starts say it itself, and does not start the Jobs.
    check_arguments(folder, manifests)
    text = f"{folder}: found nothing that a cluster would refuse in {len(manifests)} objects"
    if unknown := [label(item) for item in manifests if not known(item)]:
        text += f"; of {len(unknown)} the fields were not checked: {', '.join(unknown)}"
    screen.print(text, soft_wrap=True)
    warnings = _warnings(folder, manifests)
    if topology_name and (staged := cluster.topology_of(render(repository()))) != topology_name:
        warnings.append(
            f"The stages apply {staged}; write `- {topology_name}` into "
            f"{CHOICE} before the first of them."
        )
    _warn(warnings)
    if strict and warnings:
        errors.print("--strict: with a warning it fails.", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def demo(  # noqa: PLR0917 - typer calls it with keywords
    requests: Requests = 200,
    topology_name: Topology = None,
    model: Model = "number",
    html: Html = None,
    postgres_uri: PostgresUri = None,
    folder: Folder = None,
) -> None:
    """Run the deployment, send sample traffic, show the comparison, stop everything."""
    # It sends calls with aiohttp, which is a quarter of the other commands' start to import.
    from shadow_local.demo import demonstrate  # noqa: PLC0415

    kustomization = _of_model(model)
    base = _run_folder(folder)
    own = base / "demo"
    which = _as_typed(TOPOLOGY=topology_name, MODEL=model if model != "number" else None)
    second = f"`{which}local/.venv/bin/shadow-local demo --folder {base}/second`."
    with claimed(own, second):
        manifests = _chosen(topology_name, kustomization)
        options = Options(own, manifests, postgres_uri=postgres_uri or None)
        demonstrate(options, requests, screen, model, html)


@app.command()
def traffic(
    file: Path,
    times: Times = 1,
    predict_url: PredictUrl = None,
    x_api_key: ApiKey = None,
    folder: Folder = None,
) -> None:
    """Send a file's requests through the gateway of a running `up`, or to PREDICT_URL."""
    from shadow_local.traffic import send_file  # noqa: PLC0415 - as in `demo`

    base = _run_folder(folder)
    url = predict_url or str(running(base, "PREDICT_URL")["predict_url"])
    copies_url = copies_url_of(base, url)
    try:
        sound = send_file(file, url, times, x_api_key or None, screen, copies_url)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not sound:
        raise typer.Exit(1)


@app.command(context_settings=PASSED_ON | {"help_option_names": []})
def report(
    context: typer.Context,
    topology_name: Topology = None,
    kustomization: Kustomization = None,
    postgres_uri: PostgresUri = None,
    folder: Folder = None,
) -> None:
    """Compare what a running `up`, or POSTGRES_URI, has recorded; more options go to compare."""
    manifests, base = _chosen(topology_name, kustomization), _run_folder(folder)
    if not postgres_uri and (line := outdated(base)):
        _warn([line])
    compare(postgres_uri or None, manifests, base, context.args)


@app.command("noise", context_settings=PASSED_ON)
def run_noise(context: typer.Context, folder: Folder = None) -> None:
    """Tell how often a running `up`'s primary differs from itself; more options go to replay."""
    noise(_run_folder(folder), context.args)


@app.command("psql", context_settings=PASSED_ON)
def run_psql(context: typer.Context, postgres_uri: PostgresUri = None) -> None:
    """Open psql on the database of a running `up`, or POSTGRES_URI; more options go to psql."""
    psql(postgres_uri or None, _run_folder(None), context.args)


def _warnings(kustomization: Path, manifests: list[Manifest]) -> list[str]:
    """What a cluster takes as it is told, and nobody may have meant."""
    found = (
        *misplaced(kustomization),
        *outranked(kustomization, manifests),
        *cluster.warnings(manifests),
    )
    return [in_place(kustomization, warning) for warning in found]


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        errors.print(warning, style="yellow", soft_wrap=True)


def _watch(stack: Stack, folder: Path) -> None:
    """Start a stack, show where it is, and watch it until someone ends it."""
    _warn(_warnings(stack.options.kustomization, stack.manifests))
    try:
        with in_foreground(stack, screen) as state:
            state.write(folder)
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            whose = (
                "X_API_KEY's value" if stack.options.api_key else "the key of the option api-key"
            )
            asked = [f"callers need {whose} in x-api-key"] if stack.api_key else []
            for line in (
                *stack.differences,
                *asked,
                f"psql {masked(state.postgres_uri)}",
                f'without the calls of earlier runs: make report ARGS="--since {now}"',
                f"logs in {stack.supervisor.log_folder}; Ctrl-C stops all of it",
            ):
                screen.print(line, style="dim", soft_wrap=True)
            _warn(
                in_place(
                    stack.options.kustomization,
                    f"{name}: its predictor is another one than in an earlier run under that "
                    f"version ({', '.join(parts[:3])}{' and others' * bool(parts[3:])}), and a "
                    "report takes both for one model. Give it a new version, in "
                    "manifests/settings/settings.yaml or where a patch on top says MODEL_VERSION, "
                    "or judge later calls alone by the --since above.",
                )
                for name, parts in other_models(stack.options.folder, stack.versions).items()
            )
            screen.print(f"models: {stack.models}", soft_wrap=True)
            screen.print(f"verdict: {state.verdict_url}", style="bold", soft_wrap=True)
            screen.print(f"ready: {state.predict_url}", style="bold green", soft_wrap=True)
            while True:
                stack.check()
                time.sleep(0.2)
    except StopRequested:
        return
    finally:
        (folder / STATE).unlink(missing_ok=True)


def run() -> int:
    """Run the command line; the exit code. What can be explained is one line and no trace."""
    if reason := _unsupported():
        errors.print(reason, style="red", soft_wrap=True)
        return 1
    try:
        return int(app(standalone_mode=False) or 0)
    except Exception as error:
        line = _explanation(error)
        if line is None:
            raise
        errors.print(f"shadow-local: {line}", style="red", soft_wrap=True)
        return 1


def _chosen(name: str | None, kustomization: Path | None = None) -> Path:
    """The folder to render: a topology, a kustomization, or the root; Explained for both."""
    if name and kustomization:
        raise Explained(
            f"TOPOLOGY is {name!r}, and {kustomization} has the topology of "
            f"{in_place(kustomization, CHOICE)}; write `- {name}` there and leave TOPOLOGY out."
        )
    return topology(name) if name else kustomization or repository()


def _of_model(model: str) -> Path | None:
    """The kustomization of a MODEL; None for the topology's own."""
    if model not in MODELS:
        raise Explained(f"MODEL is '{model}'; set it to {' or '.join(MODELS)}.")
    folder = MODELS[model]
    return repository() / folder if folder else None


def _as_typed(**variables: object) -> str:
    """What a command needs before it to run the same models again."""
    return "".join(
        f"{name}={shlex.quote(str(value))} " for name, value in variables.items() if value
    )


def _run_folder(given: Path | None) -> Path:
    return (given or repository() / "local" / ".run").absolute()


def _unsupported() -> str | None:
    """Why this machine cannot run the deployment; None when it can. Envoy and Postgres come as
    wheels, which exist for few platforms."""
    machine, name = platform.machine(), sys.platform
    if name == "linux" and machine in ("x86_64", "aarch64") and platform.libc_ver()[0] == "glibc":
        return None
    macos = int(platform.mac_ver()[0].split(".")[0] or 0)
    if name == "darwin" and machine == "arm64" and macos >= 15:
        return None
    return (
        f"shadow-local: {name} on {machine} is not supported; it runs on Linux with glibc on "
        "x86_64 or aarch64 and on macOS 15 or newer on arm64."
    )


def _explanation(error: Exception) -> str | None:
    """What went wrong, where, and what to do; None for a bug of this program."""
    if isinstance(error, typer.TyperException):
        message = error.format_message().rstrip(".")
        return f"{message}; `shadow-local --help` has the commands and options."
    if isinstance(error, PostgresFailed) and any(words in str(error) for words in POSTGRES_FULL):
        return f"No room is left on the disk; {MAKE_ROOM}\n{error}"
    if isinstance(error, (Explained, PostgresFailed, psycopg.Error)):
        # Their own messages are enough; a trace would hide them.
        return str(error).strip()
    if isinstance(error, OSError) and error.errno in NO_ROOM + NO_RIGHT:
        remedy = "run it as a user who may write there, or name another `--folder`."
        remedy = MAKE_ROOM if error.errno in NO_ROOM else remedy
        return f"{error.filename or 'the data folder'}: {error.strerror}; {remedy}"
    return None
