"""What a deployment has recorded: shadow-report's verdict, and the tables themselves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from embedded_postgres import as_role, binaries
from shadow_local.rendering import repository
from shadow_local.state import read_state

# shadow-report's exit codes without a verdict on the shadow: errors, and evidence that is unsound.
FAILURES = (1, 2, 12)


class ReportFailed(Exception):
    """There is nothing to report on, or nothing to report with."""


def compare(postgres_uri: str | None, state_file: Path, more: Sequence[str]) -> int:
    """Run `shadow-report compare` on a database, else on the running stack's; its exit code."""
    return verdict(postgres_uri or as_role(_running_uri(state_file), "report"), more)


def psql(postgres_uri: str | None, state_file: Path, more: Sequence[str]) -> int:
    """Run psql on a database, else on the running stack's; its exit code."""
    uri = postgres_uri or _running_uri(state_file)
    return subprocess.run([binaries() / "psql", uri, *more], check=False).returncode


def _running_uri(state_file: Path) -> str:
    state = read_state(state_file)
    if state is None:
        raise ReportFailed("Nothing runs here; start `make up`, or set POSTGRES_URI.")
    return str(state["postgres_uri"])


def verdict(postgres_uri: str, more: Sequence[str] = ()) -> int:
    """Print the comparison of the rows in a database; shadow-report's exit code."""
    program = repository() / "shadow-report" / ".venv" / "bin" / "shadow-report"
    if not program.exists():
        raise ReportFailed(f"{program} is missing; run `uv sync --project shadow-report`.")
    env = os.environ | {"POSTGRES_URI": postgres_uri}
    return subprocess.run([program, "compare", *more], env=env, check=False).returncode
