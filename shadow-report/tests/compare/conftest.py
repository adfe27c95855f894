"""A database with the schema, read as the role that the report has on a cluster."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from traffic import Call, Compare, record

from embedded_postgres import as_role
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
