"""Questions to the tables, as the role `report`: read only, one snapshot, errors in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row

from shadow_report.evidence.batch import Batch, batches

# The joins of a million pairs stay in memory with this, and spill to disk beyond.
WORK_MEM = "64MB"

EARLIEST_SHADOW_CALLS = 1000


class EvidenceUnavailable(RuntimeError):
    """The tables cannot be read; the message says where, why and what to do."""


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Calls that one recording process took in one way; see calls.sql."""

    role: str
    inference_service: str
    model_name: str
    model_version: str | None
    protocol: str
    pair_source: str
    recorder_id: UUID
    calls: int
    cut_requests: int
    first_call: datetime
    last_call: datetime
    first_sequence: int
    last_sequence: int
    delivery_lag_seconds: float


@dataclass(frozen=True, slots=True)
class Scope:
    """Which calls: the two services and the window of the primary's calls."""

    primary: str
    shadow: str
    since: datetime | None
    until: datetime | None

    @property
    def parameters(self) -> dict[str, object]:
        return {"primary": self.primary, "shadow": self.shadow} | window(self.since, self.until)


@dataclass(frozen=True, slots=True)
class WholePair:
    """One pair with its bodies, as stored."""

    pair_id: str
    request_time: datetime
    primary_status: int | None
    shadow_status: int | None
    primary_duration_ms: float | None
    shadow_duration_ms: float | None
    request: bytes | None
    primary_response: bytes | None
    shadow_response: bytes | None


def window(since: datetime | None, until: datetime | None) -> dict[str, object]:
    """The bounds as SQL parameters; an open end is an infinite one."""
    return {"since": since or "-infinity", "until": until or "infinity"}


class Tables:
    """One read-only snapshot of the tables; every question sees the same rows."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def now(self) -> datetime:
        """The server's clock when the snapshot was taken."""
        return self._one("SELECT now()", {})  # type: ignore[no-any-return]

    def calls(self, since: datetime | None, until: datetime | None) -> list[CallGroup]:
        """All calls in the window by who recorded them and how."""
        cursor = self._connection.cursor(row_factory=class_row(CallGroup))
        return cursor.execute(_sql("calls"), window(since, until)).fetchall()

    def began(self, scope: Scope) -> datetime | None:
        """The time of the first primary call in the window that was mirrored; None without any."""
        for earliest in (EARLIEST_SHADOW_CALLS, None):
            found = self._one(_sql("began"), scope.parameters | {"earliest": earliest})
            if found is not None:
                return found  # type: ignore[no-any-return]
        return None

    def lost_calls(self, role: str, service: str, recorders: Sequence[UUID]) -> int:
        """How many calls these recorders numbered that are not in the tables."""
        asked = {"role": role, "service": service, "recorders": list(recorders)}
        return int(self._one(_sql("gaps"), asked))

    def duplicates(self, scope: Scope) -> dict[str, int]:
        """Further calls with a pair id that the same side had recorded already, by role."""
        rows = self._connection.execute(_sql("duplicates"), scope.parameters).fetchall()
        return {str(role): int(count) for role, count in rows}

    def pairs(self, scope: Scope, *, deduplicate: bool, with_requests: bool) -> Iterator[Batch]:
        """Every pair id once with both sides' scalars and bodies, in no order, as a stream."""
        asked = scope.parameters | {"deduplicate": deduplicate, "with_requests": with_requests}
        query = b"COPY (" + _sql("pairs") + b") TO STDOUT (FORMAT BINARY)"
        with self._connection.cursor().copy(query, asked) as messages:
            yield from batches(messages)

    def repeats(
        self, scope: Scope, *, hash_below: int, bodies: int, answers: int
    ) -> list[tuple[bytes, int, bytes | None]]:
        """(request hash, status, response body) of repeated requests, those of one hash together."""
        asked = {"hash_below": hash_below, "bodies": bodies, "answers": answers}
        return self._connection.execute(_sql("repeats"), scope.parameters | asked).fetchall()

    def whole_pairs(self, scope: Scope, pair_ids: Sequence[str]) -> list[WholePair]:
        """These pairs with their bodies."""
        cursor = self._connection.cursor(row_factory=class_row(WholePair))
        asked = scope.parameters | {"pair_ids": list(pair_ids)}
        return cursor.execute(_sql("examples"), asked).fetchall()

    def _one(self, query: bytes | str, asked: dict[str, Any]) -> Any:
        row = self._connection.execute(query, asked).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0]


@contextmanager
def open_tables(uri: str) -> Iterator[Tables]:
    """A snapshot of the database at `uri`; EvidenceUnavailable says what to mend."""
    try:
        connection = psycopg.connect(uri, connect_timeout=10, application_name="shadow-report")
    except psycopg.Error as error:
        raise EvidenceUnavailable(
            f"Postgres at {_place(uri)} does not answer: {_first_line(error)}; check POSTGRES_URI."
        ) from error
    with connection:
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connection.execute(f"SET LOCAL work_mem = '{WORK_MEM}'")
            # Compiling the queries costs more than it saves up to some ten million pairs.
            connection.execute("SET LOCAL jit = off")
            connection.execute("SET LOCAL search_path = public, pg_temp")
            yield Tables(connection)
        except psycopg.errors.UndefinedTable as error:
            raise EvidenceUnavailable(
                f"The database at {_place(uri)} has no shadow tables ({_first_line(error)}); "
                "apply manifests/database/schema.sql to it with `make schema`."
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise EvidenceUnavailable(
                f"The role of POSTGRES_URI may not read the tables ({_first_line(error)}); "
                "connect as the role report."
            ) from error
        except psycopg.Error as error:
            raise EvidenceUnavailable(
                f"Postgres at {_place(uri)} failed: {_first_line(error)}."
            ) from error


def _sql(name: str) -> bytes:
    return files("shadow_report.evidence").joinpath(f"{name}.sql").read_bytes()


def _place(uri: str) -> str:
    """Host, port and database of a URI, without its password."""
    try:
        parts = conninfo_to_dict(uri)
    except psycopg.Error:
        return "the given URI"
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
