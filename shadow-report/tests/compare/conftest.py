"""Tables that are empty when a test begins, read as the role that the report has on a cluster."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from traffic import Call, Command, Compare, record

from embedded_postgres import as_role
from embedded_postgres.fixtures import database
from shadow_report.__main__ import main
from shadow_report.compare import compare
from shadow_report.report import Report
from shadow_report.settings import Comparison

# Once for each database: it changes a role of the whole server.
log_in = functools.cache(as_role)


@pytest.fixture(scope="session")
def shared_tables(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """The database that these tests use one after the other."""
    with database(postgres_server, postgres_template) as uri:
        yield uri


@pytest.fixture(scope="session")
def emptying(shared_tables: str) -> Iterator[psycopg.Connection]:
    """What empties its tables."""
    with psycopg.connect(shared_tables, autocommit=True) as connection:
        yield connection


# The days that have rows: to empty a partition costs as much as the tests' own question of a pair.
FILLED = """
    SELECT string_agg(DISTINCT day::regclass::text, ', ') FROM (
        SELECT tableoid FROM inference_requests UNION SELECT tableoid FROM inference_responses
        UNION SELECT tableoid FROM inference_retention
    ) AS filled (day)
"""


@pytest.fixture
def tables(shared_tables: str, emptying: psycopg.Connection) -> Iterator[str]:
    """URI of a superuser whose tables are empty; only rows may be added.

    To empty them takes a tenth of what a database of a test's own does: `postgres_uri`, for tests
    that change more.
    """
    yield shared_tables
    [(filled,)] = emptying.execute(FILLED)
    if filled:
        emptying.execute(f"TRUNCATE {filled}".encode())


@pytest.fixture
def report_uri(tables: str) -> str:
    """The tables as the role `report`."""
    return log_in(tables, "report")


@pytest.fixture
def compared(tables: str, report_uri: str) -> Compare:
    """Records calls and compares all that is in the tables, by settings given as keywords."""

    def run(calls: Iterable[Call] = (), **settings: object) -> Report:
        record(tables, calls)
        return compare(report_uri, Comparison(**settings))  # type: ignore[arg-type]

    return run


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, report_uri: str, tmp_path: Path, tables: str
) -> Command:
    """Records calls, runs `shadow-report compare` on all that is in the tables, reads its JSON.

    Its exit code is `exit_code` in there; the page is `r.html` in the test's folder.
    """
    monkeypatch.setenv("POSTGRES_URI", report_uri)

    def run(calls: Iterable[Call] = (), *options: str) -> dict[str, Any]:
        record(tables, calls)
        file = tmp_path / "report.json"
        arguments = ["compare", *options, "--json", str(file), "--html", str(tmp_path / "r.html")]
        monkeypatch.setattr(sys, "argv", ["shadow-report", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        report: dict[str, Any] = json.loads(file.read_text())
        return report | {"exit_code": stopped.value.code}

    return run
