"""A database with the schema, read as the role that the report has on a cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from traffic import Call, Command, Compare, record

from embedded_postgres import as_role
from shadow_report.__main__ import main
from shadow_report.compare import compare
from shadow_report.report import Report
from shadow_report.settings import Comparison


@pytest.fixture
def report_uri(postgres_uri: str) -> str:
    """The test's database as the role `report`."""
    return as_role(postgres_uri, "report")


@pytest.fixture
def compared(postgres_uri: str, report_uri: str) -> Compare:
    """Records calls and compares all that is in the tables, by settings given as keywords."""

    def run(calls: Iterable[Call] = (), **settings: object) -> Report:
        record(postgres_uri, calls)
        return compare(report_uri, Comparison(**settings))  # type: ignore[arg-type]

    return run


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, report_uri: str, tmp_path: Path, postgres_uri: str
) -> Command:
    """Records calls, runs `shadow-report compare` on all that is in the tables, reads its JSON.

    Its exit code is `exit_code` in there; the page is `r.html` in the test's folder.
    """
    monkeypatch.setenv("POSTGRES_URI", report_uri)

    def run(calls: Iterable[Call] = (), *options: str) -> dict[str, Any]:
        record(postgres_uri, calls)
        file = tmp_path / "report.json"
        arguments = ["compare", *options, "--json", str(file), "--html", str(tmp_path / "r.html")]
        monkeypatch.setattr(sys, "argv", ["shadow-report", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        report: dict[str, Any] = json.loads(file.read_text())
        return report | {"exit_code": stopped.value.code}

    return run
