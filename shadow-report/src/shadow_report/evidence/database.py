"""Queries of the tables, as the role `report`: read only, one snapshot, failures in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row

from shadow_report import OneLineError
from shadow_report.evidence.batch import END_BYTES, Batch, WholePair, batches
from shadow_report.report import NewestCall

# The joins of a million pairs stay in memory with this, and spill to disk beyond.
WORK_MEM = "64MB"

EARLIEST_SHADOW_CALLS = 1000
CONNECT_SECONDS = 10


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
class LostCalls:
    """How many calls have a number and no row, and the time of the first call that each recorder
    has recorded after its last one of them; of several recorders the latest.
    """

    count: int = 0
    over: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which calls: the two services, the window of the primary's calls, the shadow's first call in
    it, and for a replay the time from which on the shadow's calls were recorded for it.

    is_followed: the shadow's calls are those of the window's primary calls, whenever they came and
    whatever their node's clock says.
    whole_since: this is a part of a window that began then; a follower's call is of that part in
    which the primary's first is.
    pair_ids: of all these only the pairs with one of these ids. delivered_since: nothing of what
    was asked for came to the tables earlier, which makes it cheap to find.
    """

    primary: str
    shadow: str
    since: datetime | None
    until: datetime | None
    shadow_began: datetime | None = None
    shadow_since: datetime | None = None
    is_followed: bool = False
    whole_since: datetime | None = None
    pair_ids: Sequence[str] | None = None
    delivered_since: datetime | None = None

    @property
    def parameters(self) -> dict[str, object]:
        """The scope as SQL parameters; an open end is an infinite one."""
        since, until = self.since or "-infinity", self.until or "infinity"
        # A late call's clock may lag; a day is more than any clock, and one partition.
        first = self.shadow_since or self.since
        joined = first - timedelta(days=1) if first else since
        return {
            "primary": self.primary,
            "shadow": self.shadow,
            "since": since,
            "until": until,
            "is_bounded": self.since is not None or self.until is not None,
            "shadow_since": joined
            if self.shadow_since or self.is_followed
            else self.shadow_began or since,
            "shadow_until": "infinity" if self.shadow_since or self.is_followed else until,
            "is_followed": self.is_followed,
            "whole_since": self.whole_since or since,
            "shadow_joined_since": joined,
            # A candidate's clock may be off; the database's own says which rows came after that.
            "shadow_recorded_since": self.shadow_since or "-infinity",
            "pair_ids": None if self.pair_ids is None else list(self.pair_ids),
            "delivered_since": self.delivered_since or "-infinity",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Further calls with a pair id that the same side had recorded already.

    resent: attempts of a follower that ended with the candidate's process, of pairs that it has
    answered in another attempt; these are not among `shadow`. joined: whether there are any of the
    shadow's, in the window or so near to it that pairs are looked for there.
    """

    primary: int
    shadow: int
    resent: int
    joined: bool

    @property
    def any(self) -> bool:
        """Whether calls have to be numbered, to find the one of each pair that counts."""
        return bool(self.primary or self.joined)

    def __add__(self, other: Duplicates) -> Duplicates:
        return Duplicates(
            primary=self.primary + other.primary,
            shadow=self.shadow + other.shadow,
            resent=self.resent + other.resent,
            joined=self.joined or other.joined,
        )

    def __sub__(self, other: Duplicates) -> Duplicates:
        return Duplicates(
            primary=self.primary - other.primary,
            shadow=self.shadow - other.shadow,
            resent=self.resent - other.resent,
            joined=self.joined,
        )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call of a part of the window; `is_further`: its side had recorded the pair id before."""

    role: str
    pair_id: str
    request_time: datetime
    is_further: bool


@dataclass(frozen=True, slots=True)
class Delivery:
    """A call as it was delivered."""

    record_id: UUID
    role: str
    inference_service: str
    pair_id: str
    request_time: datetime
    created_at: datetime


class Tables:
    """The tables, read only. Every question sees the same rows, if `has_snapshot`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def now(self) -> datetime:
        """The time up to which the snapshot is complete: on a standby, that of its newest data."""
        return self._one(_sql("now"), {})  # type: ignore[no-any-return]

    def has_snapshot(self) -> bool:
        """Whether every question sees the same rows; else rows arrive between two of them."""
        return bool(self._one(_sql("has_snapshot"), {}))

    def calls(self, scope: Scope) -> list[CallGroup]:
        """All calls in the window, of any service, by who recorded them and how."""
        cursor = self._connection.cursor(row_factory=class_row(CallGroup))
        return cursor.execute(_sql("calls"), scope.parameters).fetchall()

    def first_pair(self, scope: Scope) -> tuple[datetime, datetime] | None:
        """When the window's first mirrored call was recorded: by the primary, and by whoever of
        both sides was first. None without any.
        """
        for earliest in (EARLIEST_SHADOW_CALLS, None):
            asked = scope.parameters | {"earliest": earliest}
            ((primary, shadow),) = self._connection.execute(_sql("first_pair"), asked).fetchall()
            if primary is not None:
                return primary, min(primary, shadow)
        return None

    def followed_until(self, scope: Scope) -> datetime | None:
        """The time of the primary's oldest call that a follower has not sent, or now; None before
        it has sent any.
        """
        found: datetime | None = self._one(_sql("followed"), scope.parameters)
        return found

    def waiting(self, scope: Scope) -> int:
        """How many calls of the primary there are in the window, whatever became of them."""
        return int(self._one(_sql("waiting"), scope.parameters))

    def newest_call(self, role: str) -> NewestCall | None:
        """The newest call of a role, whatever the window; None without any lately."""
        cursor = self._connection.cursor(row_factory=class_row(NewestCall))
        return cursor.execute(_sql("newest_call"), {"role": role}).fetchone()

    def mirrored_before(self, scope: Scope, versions: Sequence[str | None]) -> bool:
        """Whether any call before the window has a call of one of these versions of the shadow."""
        asked = scope.parameters | {"versions": [version or "" for version in versions]}
        return bool(self._one(_sql("mirrored_before"), asked))

    def lost_calls(
        self, role: str, service: str, numbers: Mapping[UUID, tuple[int, int]]
    ) -> LostCalls:
        """The calls that these recorders numbered, each between two `numbers`, and are nowhere."""
        asked = {
            "role": role,
            "service": service,
            "recorders": list(numbers),
            "first": [first for first, _ in numbers.values()],
            "last": [last for _, last in numbers.values()],
        }
        rows = self._connection.execute(_sql("gaps"), asked).fetchall()
        if not rows:
            return LostCalls()
        recorders, lost, after = zip(*rows, strict=True)
        asked = {"recorders": list(recorders), "numbers": list(after)}
        return LostCalls(sum(lost), self._one(_sql("newest_of_numbers"), asked))

    def duplicates(self, scope: Scope) -> Duplicates:
        """Further calls with a pair id that the same side had recorded already."""
        rows = self._connection.execute(_sql("duplicates"), scope.parameters).fetchall()
        primary, shadow, joined = (dict(rows)[calls] for calls in ("primary", "shadow", "joined"))
        resent = int(self._one(_sql("resent"), scope.parameters)) if shadow else 0
        return Duplicates(
            primary=primary,
            shadow=max(0, shadow - resent),
            resent=resent,
            joined=bool(shadow or joined),
        )

    def pairs(
        self, scope: Scope, duplicates: Duplicates, *, with_requests: bool, followed: bool
    ) -> Iterator[Batch]:
        """Every pair id once with both sides' scalars and bodies, in no order, as a stream.

        followed: say of calls without a pair why no follower could send them.
        """
        return self._pairs(
            scope,
            duplicates,
            deduplicate=duplicates.any,
            with_requests=with_requests,
            followed=followed,
            further=False,
        )

    def further_shadow_calls(self, scope: Scope, duplicates: Duplicates) -> Iterator[Batch]:
        """As `pairs`, a row for each shadow call with a pair id that the shadow had recorded
        already, next to the primary's first call.
        """
        return self._pairs(
            scope, duplicates, deduplicate=True, with_requests=False, followed=False, further=True
        )

    def _pairs(self, scope: Scope, duplicates: Duplicates, **asked: bool) -> Iterator[Batch]:
        asked["resent"] = duplicates.resent > 0
        query = b"COPY (" + _sql("pairs") + b") TO STDOUT (FORMAT BINARY)"
        with self._connection.cursor().copy(query, scope.parameters | asked) as copy:
            yield from batches(_messages(copy))

    def arrivals(self, scope: Scope, part: Scope) -> list[Arrival]:
        """Both services' calls of a part of the window, and which of them are further ones."""
        cursor = self._connection.cursor(row_factory=class_row(Arrival))
        asked = scope.parameters | {
            "part_since": part.since,
            "part_until": part.until,
            "delivered_since": part.parameters["delivered_since"],
        }
        return cursor.execute(_sql("arrivals"), asked).fetchall()

    def deliveries(self, shadow: str | None, since: datetime, before: datetime) -> list[Delivery]:
        """What was delivered from `since` on: all calls of this shadow, or of any where it is None,
        and those of a time `before` of any primary.
        """
        cursor = self._connection.cursor(row_factory=class_row(Delivery))
        asked = {"shadow": shadow, "delivered_since": since, "before": before}
        return cursor.execute(_sql("deliveries"), asked).fetchall()

    def first_calls(self, scope: Scope, pair_ids: Sequence[str]) -> dict[str, datetime]:
        """When the primary's first calls in the window with these pair ids came; any primary's
        where the scope names none.
        """
        asked = scope.parameters | {"pair_ids": list(pair_ids)}
        return dict(self._connection.execute(_sql("first_calls"), asked).fetchall())

    def changes(self) -> dict[str, int]:
        """By partition, how many of its rows were changed or deleted since it is there."""
        return dict(self._connection.execute(_sql("changes")).fetchall())

    def with_itself(self, scope: Scope) -> Iterator[Batch]:
        """As `pairs`, the primary's calls with its answers to the same requests once more in the
        shadow's place; at most 100,000.
        """
        if not self._one(_sql("has_itself"), scope.parameters):
            return
        # Of a prefix Postgres expects a few rows, and would look each up in a scan of its own.
        self._connection.execute("SET LOCAL enable_nestloop = off")
        query = b"COPY (" + _sql("itself") + b") TO STDOUT (FORMAT BINARY)"
        with self._connection.cursor().copy(query, scope.parameters) as copy:
            yield from batches(_messages(copy))
        self._connection.execute("SET LOCAL enable_nestloop = on")

    def whole_pairs(self, scope: Scope, pair_ids: Sequence[str]) -> list[WholePair]:
        """These pairs with their bodies."""
        cursor = self._connection.cursor(row_factory=class_row(WholePair))
        asked = scope.parameters | {"pair_ids": list(pair_ids)}
        return cursor.execute(_sql("examples"), asked).fetchall()

    def _one(self, query: bytes | str, asked: dict[str, Any]) -> Any:
        return self._connection.execute(query, asked).fetchall()[0][0]


@contextmanager
def open_tables(uri: str) -> Iterator[Tables]:
    """A snapshot of the database at `uri`; OneLineError says why it cannot be read."""
    try:
        with psycopg.connect(
            uri, connect_timeout=CONNECT_SECONDS, application_name="shadow-report"
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connection.execute(f"SET LOCAL work_mem = '{WORK_MEM}'")
            # Compiling the queries costs more than it saves up to some ten million pairs.
            connection.execute("SET LOCAL jit = off")
            # Times are read as UTC, whatever zone the role, the database or PGTZ says.
            connection.execute("SET LOCAL timezone = 'UTC'")
            connection.execute("SET LOCAL search_path = public, pg_temp")
            # Should this process vanish in the middle of a query, the query ends soon after it.
            connection.execute("SET LOCAL client_connection_check_interval = '2s'")
            try:
                yield Tables(connection)
            except BaseException:
                # A rollback would wait without an end for a COPY of which nobody reads the rest.
                connection.close()
                raise
    except psycopg.Error as error:
        raise failure(error, uri, "report") from error


def _messages(copy: psycopg.Copy) -> Iterator[bytes]:
    """The messages of a COPY, each with one row.

    psycopg's own iterator waits anew for each row, which costs more than all that is done with
    it; here everything that has arrived is taken before the next wait.
    """
    connection = copy.connection.pgconn
    while message := copy.read():
        yield bytes(message)
        # The end is psycopg's to find: only a row may be followed by a look of our own.
        while len(message) > END_BYTES:
            size, arrived = connection.get_copy_data(1)
            if size <= 0:
                if size < 0 and (result := connection.get_result()) is not None:
                    raise psycopg.errors.error_from_result(result)
                break
            message = arrived
            yield bytes(message)


def _sql(name: str) -> bytes:
    return files("shadow_report.evidence").joinpath(f"sql/{name}.sql").read_bytes()


def failure(error: psycopg.Error, uri: str, role: str) -> OneLineError:
    """What a failed statement or connection means and what to do; `role` is the one that may."""
    return OneLineError(_meaning(error, f"Postgres at {place(uri)}", first_line(error), role))


def _meaning(error: psycopg.Error, where: str, what: str, role: str) -> str:
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedFunction():
            text = (
                f"{where} lacks the shadow tables or their functions ({what}); "
                "apply manifests/database/schema.sql to it with `make schema`."
            )
        case psycopg.errors.InsufficientPrivilege():
            text = (
                f"The role of POSTGRES_URI may not do this ({what}); connect as the role {role}, "
                "or, where it is that one, give it its rights back with `make schema`."
            )
        case psycopg.errors.SerializationFailure() if "conflict with recovery" in what:
            text = (
                f"{where} is a standby and gave up this query to follow its primary ({what}); "
                "run it again, and raise max_standby_streaming_delay there above the time it takes."
            )
        case psycopg.errors.DiskFull() | psycopg.errors.ConfigurationLimitExceeded():
            text = (
                f"{where} has no room for this query ({what}); "
                "make room on its disk and in its shared memory, or compare less with --last."
            )
        case psycopg.ProgrammingError() if error.sqlstate is None:
            # libpq's own words repeat the URI, and with it the password.
            text = (
                "POSTGRES_URI is not a connection URI; "
                "write it like postgresql://report:password@host:5432/inference."
            )
        case psycopg.OperationalError() if "the database system is" in what:
            text = f"{where} does not answer: {what}; wait until it is up."
        case psycopg.OperationalError() if remedy := _remedy_of_refusal(error, what):
            text = f"{where} refuses the connection: {what}; {remedy}."
        case psycopg.OperationalError() if error.sqlstate is None:
            text = (
                f"{where} does not answer: {what}; "
                "check the host and the port in POSTGRES_URI, and that it runs."
            )
        case _:
            text = f"{where} failed: {what}."
    return text


def _remedy_of_refusal(error: psycopg.OperationalError, what: str) -> str:
    """How to be let in; empty where the server did not refuse the connection."""
    if "permission denied for database" in what:
        return "grant the user of POSTGRES_URI CONNECT on it"
    if "is not permitted to log in" in what:
        return "give it a login by ALTER ROLE ... LOGIN PASSWORD '...'"
    # A server that asks for a password is not heard again when libpq has none.
    if error.sqlstate is None and ("FATAL:" in str(error) or "no password supplied" in what):
        return "check the user, the password and the database in POSTGRES_URI"
    return ""


def place(uri: str) -> str:
    """Host, port and database of a URI, without its password."""
    try:
        parts = conninfo_to_dict(uri)
    except psycopg.Error:
        return "the given URI"
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def first_line(error: psycopg.Error) -> str:
    """The line of a driver's message that says what happened."""
    if error.diag.message_primary:
        return error.diag.message_primary
    # libpq adds its guesses as further lines, which begin with a blank, and the server's own ones.
    further = (" ", "\t", "DETAIL:", "HINT:")
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(further)]
    said = lines[-1].rpartition("failed: ")[-1] if lines else type(error).__name__
    return said.removeprefix("FATAL:").strip().rstrip(".")
