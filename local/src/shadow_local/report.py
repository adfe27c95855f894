"""What a deployment has recorded: shadow-report's verdict, and the tables themselves."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import psycopg

from embedded_postgres import as_role, binaries
from shadow_local import Explained
from shadow_local.database import CONNECT_SECONDS, with_port
from shadow_local.state import digest, read_state
from shadow_local.translate.arguments import rules_of
from shadow_local.translate.document import Manifest, render, repository
from shadow_local.translate.forms import check_settings
from shadow_local.translate.routes import mirror_percentage
from shadow_local.translate.services import candidates

# shadow-report's exit codes without a verdict on the shadow: errors, and evidence that is unsound.
FAILURES = (1, 2, 12)


def compare(
    postgres_uri: str | None, kustomization: Path, folder: Path, more: Sequence[str]
) -> NoReturn:
    """Become `shadow-report compare` on a database, else on that of the stack in a folder.

    How much is mirrored, to whom, and what counts as the same answer is what the running stack's
    live verdict goes by, or for a database what the kustomization says; an option that `more` has
    itself wins.
    """
    if "--help" in more:
        words, env = comparison("", None, more)
    elif postgres_uri:
        check_settings(kustomization)
        manifests = render(kustomization)
        names = candidates(manifests)
        more = _with_own(_rules(manifests, folder), more)
        words, env = comparison(postgres_uri, mirror_percentage(manifests), more, names)
    else:
        state = running(folder)
        uri = _reading(state)
        names = tuple(map(str, _listed(state, "candidates")))
        options = map(str, _listed(state, "judging"))
        more = _with_own(options, more)
        for line in _unrecorded(state, uri):
            print(line, file=sys.stderr, flush=True)
        words, env = comparison(uri, state.get("mirror_percentage"), more, names)
    os.execve(words[0], words, env)  # noqa: S606 - Ctrl-C and the exit code are then its own


def outdated(folder: Path) -> str | None:
    """What to do where the stack that runs in a folder is not what its manifests say now."""
    state = read_state(folder) or {}
    kustomization, rendered = state.get("kustomization"), state.get("rendered")
    if not kustomization or not rendered:
        return None
    try:
        now = digest(render(Path(str(kustomization))))
    except Explained:
        now = ""  # something is being edited there, and what runs can be judged all the same
    if now == rendered:
        return None
    return (
        f"The manifests of {kustomization} have changed since `make up` started, rules and options "
        "of the report included; this goes by what runs: end `make up` and start it again."
    )


def noise(folder: Path, more: Sequence[str]) -> NoReturn:
    """Become `shadow-report replay --itself`, on the primary of the stack in a folder: how often it
    differs from itself, where it is sent its own calls once more.
    """
    state = running(folder, "")
    match state.get("primary"):
        case {"transformer_url": str(url), "transformer_grpc_url": str(grpc_url)}:
            given = (f"--to={url}", f"--to-grpc={grpc_url}", f"--state={folder / 'noise.json'}")
            words = [_program(), "replay", "--itself", *_left(given, more), *more]
            env = os.environ | {"POSTGRES_URI": _reading(state)}
            os.execve(words[0], words, env)  # noqa: S606 - Ctrl-C and the exit code are its own
    raise Explained("The running `make up` has no primary to ask.")


def psql(postgres_uri: str | None, folder: Path, more: Sequence[str]) -> NoReturn:
    """Become psql on a database, else on that of the stack in a folder."""
    uri = with_port(postgres_uri) if postgres_uri else str(running(folder)["postgres_uri"])
    program = str(binaries() / "psql")
    env = {"PGCONNECT_TIMEOUT": str(CONNECT_SECONDS)} | os.environ
    os.execve(program, [program, uri, *more], env)  # noqa: S606


def comparison(
    postgres_uri: str, percentage: object, more: Sequence[str], shadows: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of `shadow-report compare` on the rows in a database.

    Several shadows are named; a single one it finds, whatever it was called in earlier runs.
    """
    env = os.environ | {"POSTGRES_URI": postgres_uri}
    # Its own name may be on no PATH.
    env["SHADOW_REPORT_HELP"] = "make report ARGS=--help"
    if percentage is not None:
        env.setdefault("MIRROR_PERCENTAGE", f"{percentage:g}")
    if len(shadows) > 1:
        env.setdefault("SHADOW_CANDIDATES", ",".join(shadows))
    return [_program(), "compare", *more], env


def _program() -> str:
    program = repository() / "shadow-report" / ".venv" / "bin" / "shadow-report"
    if not program.exists():
        raise Explained(f"{program} is missing; run `make install PROJECT=shadow-report`.")
    return str(program)


def _reading(state: Mapping[str, object]) -> str:
    """The database of a stack that runs, as one who only reads it; Explained while it does not
    answer.
    """
    try:
        return as_role(str(state["postgres_uri"]), "report")
    except psycopg.OperationalError as error:
        what = " ".join(str(error).split())
        log = state.get("postgres_log")
        remedy = (
            f"look into {log}, or end `make up` and start it again"
            if log
            else "it is the one of its POSTGRES_URI: check that it runs"
        )
        raise Explained(
            f"The Postgres of the running `make up` does not answer: {what}; {remedy}."
        ) from None


# The rows delivered last are found by the index on created_at.
_NEWEST_VERSION = """
SELECT coalesce(model_version, 'unnamed') FROM inference_requests
WHERE inference_service = %s AND NOT starts_with(pair_id, 'itself:')
ORDER BY created_at DESC
LIMIT 1
"""


def _unrecorded(state: Mapping[str, object], uri: str) -> Iterator[str]:
    """Which models run without a record yet: a report judges those before them."""
    with psycopg.connect(uri) as connection:
        for side in (state.get("primary"), state.get("shadow"), *_listed(state, "more_shadows")):
            match side:
                case {"service": service, "version": str(version), "transformer_log": log}:
                    newest = connection.execute(_NEWEST_VERSION, [service]).fetchone()
                    if newest is not None and newest[0] != version:
                        yield (
                            f"{service} runs as version {version}, and the last call that it has "
                            f"recorded is of version {newest[0]}, which is judged. If others were "
                            f"sent since, {log} says why none is recorded."
                        )


def _listed(state: Mapping[str, object], name: str) -> list[object]:
    found = state.get(name)
    return found if isinstance(found, list) else []


def _rules(manifests: list[Manifest], folder: Path) -> Iterator[str]:
    """The option for each file of rules of the manifests, which is written below the folder."""
    for number, (_, text) in enumerate(rules_of(manifests), start=1):
        file = folder / "report" / f"rules-{number}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        yield f"--rules={file}"


def _with_own(options: Iterable[str], more: Sequence[str]) -> list[str]:
    """What a report is asked for by, with the options of the manifests, which are told."""
    if own := _left(options, more):
        print(f"options of the manifests' report: {shlex.join(own)}", file=sys.stderr, flush=True)
    return [*own, *more]


def _left(options: Iterable[str], more: Iterable[str]) -> list[str]:
    """Those of the options, a word each, of which `more` has none of the same name."""
    given = {word.partition("=")[0] for word in more}
    return [word for word in options if word.partition("=")[0] not in given]


def running(folder: Path, variable: str = "POSTGRES_URI") -> dict[str, object]:
    """The state of the stack that runs in a folder; Explained when none does, with the variable, if
    any, that names what may be used in its place.
    """
    state = read_state(folder)
    if state is None:
        other = f", or set {variable}" if variable else ""
        raise Explained(f"Nothing is ready here; start `make up` and wait for `ready:`{other}.")
    return state
