"""What the tables and the transformer say after a fault, counted exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from load import Load
from serving import Process, until

_CALLS = """
    SELECT q.pair_id, q.record_id, a.status_code
    FROM inference_requests q
    LEFT JOIN inference_responses a USING (record_id, request_time, pair_id)
"""
_COUNTS = """
    SELECT (SELECT count(*) FROM inference_requests), (SELECT count(*) FROM inference_responses),
           (SELECT count(DISTINCT record_id) FROM inference_requests),
           (SELECT count(DISTINCT record_id) FROM inference_responses)
"""


@dataclass(frozen=True)
class Stored:
    """The two tables of one test's database."""

    statuses: dict[str, int | None]  # by pair id; None has no response row
    requests: int
    responses: int
    distinct_requests: int
    distinct_responses: int


def query(uri: str, text: str) -> list[tuple[Any, ...]]:
    """What a superuser gets for a query."""
    with psycopg.connect(uri, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def stored(uri: str) -> Stored:
    """Both tables, read at one moment."""
    with psycopg.connect(uri) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        calls = connection.execute(_CALLS.encode()).fetchall()
        counts = connection.execute(_COUNTS.encode()).fetchone()
    assert counts is not None
    return Stored({pair: status for pair, _, status in calls}, *counts)


def gaps(uri: str) -> int:
    """How many calls inference_gaps misses."""
    return int(
        query(uri, "SELECT coalesce(sum(last_missing - first_missing + 1), 0) FROM inference_gaps")[
            0
        ][0]
    )


def check_every_answer_is_stored_once(uri: str, *loads: Load, others: Collection[str] = ()) -> None:
    """Answered calls = request rows = response rows, each once and no hole; waits until delivered.

    A call that nobody answered (its server was killed) may have rows or not. `others` are the pair
    ids of answered calls that no load made.
    """
    answered = set(others).union(*(load.answered for load in loads))
    unanswered = set().union(*(load.sent for load in loads)) - answered

    def delivered() -> Stored | None:
        rows = stored(uri)
        return rows if all(rows.statuses.get(pair) is not None for pair in answered) else None

    found: Stored = until(delivered, f"the rows of {len(answered)} answered calls")
    unexpected = found.statuses.keys() - answered - unanswered
    assert not unexpected
    assert Counter(found.statuses[pair] for pair in answered) == {200: len(answered)}
    assert found.requests == found.distinct_requests == len(found.statuses)
    assert found.responses == found.distinct_responses
    assert found.responses == sum(status is not None for status in found.statuses.values())
    if not unanswered:
        assert found.requests == found.responses == len(answered)
    assert gaps(uri) == 0
    tell(answered=len(answered), requests=found.requests, responses=found.responses, gaps=0)


def metric(server: Process, name: str) -> float:
    """One of the transformer's recording metrics; `name` with its labels."""
    text = server.get("/metrics").body.decode()
    found = re.search(rf"^prediction_db_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def records(server: Process, outcome: str) -> int:
    """prediction_db_records_total of an outcome."""
    return int(metric(server, f'records_total{{outcome="{outcome}"}}'))


def tell(**figures: object) -> None:
    """Measured figures for docs/ (pytest -rP shows them)."""
    print("figures:", ", ".join(f"{name}={value}" for name, value in figures.items()))


WRITERS = "FROM pg_stat_activity WHERE application_name = 'minimal-transformer'"


def told(server: Process, what: str) -> None:
    """Returns once the server's log says so."""
    until(lambda: what in server.log, f"the log to say {what!r}")


def read_only(uri: str) -> None:
    """Every new session of the database is read-only, and the writer gets a new one."""
    query(uri, "ALTER DATABASE postgres SET default_transaction_read_only = on")
    query(uri, f"SELECT pg_terminate_backend(pid) {WRITERS}")


def writable(uri: str) -> None:
    """Undo it."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
