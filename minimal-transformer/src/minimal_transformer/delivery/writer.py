"""Moves records from the spool to Postgres, past outages and past bad rows."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

import psycopg

from minimal_transformer import metrics
from minimal_transformer.delivery.database import (
    Database,
    advice,
    is_about_data,
    may_pass_staged,
    state_of,
)
from minimal_transformer.delivery.dead_letters import COMMAND, set_aside
from minimal_transformer.logs import Pace
from minimal_transformer.metrics import Counters
from minimal_transformer.recording.rows import TABLES, completed
from minimal_transformer.spool.folder import DEAD_LETTER_FOLDER
from minimal_transformer.spool.format import Frame, Kind
from minimal_transformer.spool.reader import Reader

logger = logging.getLogger("minimal_transformer.delivery")

MAX_ROWS = 5000
MAX_BYTES = 8 * 1024 * 1024
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 5.0
# Of a batch that is refused; when none of them passes, it is not the rows' fault.
SAMPLES = 8
MAX_SAMPLE_BYTES = 64 * 1024

# A row that Postgres refuses, and why.
Refusal = tuple[Frame, psycopg.Error]


class Writer:
    """One pass after another over what waits on the spool."""

    def __init__(self, folder: Path, database: Database, counters: Counters) -> None:
        self._folder = folder
        self._reader = Reader(folder)
        self._database = database
        self._counters = counters
        self._outage = Outage()
        self._refused = Pace()
        self._max_rows = MAX_ROWS
        self._pending: list[Frame] = []
        self._copies_directly = True
        self._accepted: dict[int, Frame] = {}  # by kind, a record that its table took

    def advance(self) -> float | None:
        """Deliver a batch. Seconds to wait for the next; None when nothing is left for now."""
        was_kept = bool(self._pending)
        self._fill()
        if not self._pending:
            self._outage.over()
            return None
        there_is_more = was_kept or self._is_full(self._pending)
        began = time.monotonic()
        try:
            while self._pending:
                self._copies_directly = True
                self._deliver(self._pending[: self._max_rows])
        except psycopg.Error as error:
            self._counters.add(metrics.WRITE_ERRORS)
            if isinstance(error, psycopg.errors.QueryCanceled):
                self._max_rows = max(1, self._max_rows // 2)
            # A new connection may reach another server, and sees what an administrator has changed.
            self._database.close()
            told = self._database.without_secrets(advice(error, self._database.role))
            return self._outage.hit(state_of(error), told, began)
        except EveryRowRefused as refusal:
            self._counters.add(metrics.WRITE_ERRORS)
            return self._outage.hit(refusal.state, str(refusal), began)
        except OSError as error:
            self._counters.add(metrics.WRITE_ERRORS)
            reason = f"a row is refused and cannot be set aside: {error}."
            return self._outage.hit("dead-letter", reason, began)
        if there_is_more:
            return 0.0
        self._outage.over()
        return None

    def _fill(self) -> None:
        """Read on up to a whole batch, also past rows that wait: later ones may show why."""
        room = MAX_BYTES - sum(len(record.row) for record in self._pending)
        found = self._reader.next_batch(self._max_rows - len(self._pending), room)
        self._pending += map(completed, found)

    def _is_full(self, batch: list[Frame]) -> bool:
        """Whether the batch ended at its limits, and not because the spool was empty."""
        return len(batch) >= self._max_rows or sum(len(r.row) for r in batch) >= MAX_BYTES // 2

    def close(self) -> None:
        self._reader.close()
        self._database.close()

    def _deliver(self, records: list[Frame]) -> None:
        """Have the records in Postgres, or set aside those that it refuses for what is in them.

        EveryRowRefused when the fault is not a row's; nothing is set aside then.
        """
        refused: list[Refusal] = []
        try:
            self._store(records)
        except psycopg.Error as error:
            if not is_about_data(error):
                raise
            for kind in Kind:
                refused += self._store_what_passes([r for r in records if r.kind == kind])
        for record, reason in refused:
            set_aside(self._folder, record, reason)
            self._counters.add(metrics.DEAD_LETTER)
            self._counters.add(metrics.WRITE_ERRORS)
        if refused:
            self._log_refused(refused)
        bad = {id(record) for record, _ in refused}
        self._done(records, [record for record in records if id(record) not in bad])

    def _log_refused(self, refused: list[Refusal]) -> None:
        """A line at the first, then at most one a minute with how many."""
        if not (rows := self._refused.hit(len(refused))):
            return
        logger.error(
            "Postgres refuses %s: %s Kept in %s; mend that rule, and `%s` here puts back what is"
            " kept.",
            "a row" if rows == 1 else f"{rows} rows, the last one",
            advice(refused[-1][1]),
            self._folder / DEAD_LETTER_FOLDER,
            COMMAND,
        )

    def _store(self, records: list[Frame]) -> None:
        """By direct COPY, which is fast; where a row is refused, by staged COPY."""
        if self._copies_directly:
            try:
                self._database.store(records, direct=True)
            except psycopg.Error as error:
                if not may_pass_staged(error):
                    raise
                self._copies_directly = False  # for the rest of the batch
            else:
                return
        self._database.store(records, direct=False)

    def _store_what_passes(self, records: list[Frame]) -> list[Refusal]:
        """Store the records of one table but those that it refuses, which are returned."""
        if not records:
            return []
        try:
            self._store(records)
        except psycopg.Error as error:
            if not is_about_data(error):
                raise
            # Where no row passes, a rule of the table refuses them all: a state of the server.
            if not any(map(self._database.accepts, self._samples(records))):
                raise EveryRowRefused(records[0].kind, error) from error
            return self._bisect(records)
        return []

    def _samples(self, records: list[Frame]) -> list[Frame]:
        """A few records of one table from all over the batch.

        Of so few that they may be bad ones by chance, also one that the table took before.
        """
        accepted = self._accepted.get(records[0].kind)
        if len(records) <= SAMPLES and accepted is not None:
            return [*records, accepted]
        return [*records[:: max(1, len(records) // SAMPLES)], records[-1]]

    def _bisect(self, records: list[Frame]) -> list[Refusal]:
        """Store each record that Postgres takes, its body as raw bytes at least."""
        if len(records) == 1:
            reason = self._database.refusal(records[0])
            return [] if reason is None else [(records[0], reason)]
        try:
            self._store(records)
        except psycopg.Error as error:
            if not is_about_data(error):
                raise
        else:
            return []
        half = len(records) // 2
        return self._bisect(records[:half]) + self._bisect(records[half:])

    def _done(self, records: list[Frame], stored: list[Frame]) -> None:
        self._reader.delivered(records)
        written = sum(record.kind == Kind.REQUEST for record in stored)
        self._counters.add(metrics.WRITTEN, written)
        for record in stored[-2:]:  # most often one of each table
            if len(record.row) <= MAX_SAMPLE_BYTES:
                self._accepted[record.kind] = record._replace(row=memoryview(bytes(record.row)))
        del self._pending[: len(records)]
        self._max_rows = min(MAX_ROWS, self._max_rows + self._max_rows // 8 + 1)
        self._outage.passed(written)


class EveryRowRefused(Exception):
    """No row passes the rules of a table, whatever is in it: somebody changed the table."""

    def __init__(self, kind: int, error: psycopg.Error) -> None:
        table = TABLES[Kind(kind)]
        super().__init__(f"{table} refuses every row: {advice(error)} Change that rule.")
        self.state = f"{table} {error.sqlstate}"


class Outage:
    """An outage of Postgres: its backoff, and a log line per state and one when it is over."""

    def __init__(self) -> None:
        self._states: set[str] = set()
        self._began = 0.0
        self._failures = 0
        self._caught_up = 0

    def hit(self, state: str, remedy: str, began: float) -> float:
        """An attempt failed, which may have waited long for that, since `began` on the monotonic
        clock; the backoff in seconds before the retry.
        """
        if not self._states:
            self._began = began
        if state not in self._states:
            self._states.add(state)
            logger.error(
                "Postgres does not take the records: %s They wait on the spool until it"
                " does; calls are answered as ever.",
                remedy,
            )
        self._failures += 1
        longest = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10))
        return random.uniform(longest / 2, longest)  # noqa: S311

    def passed(self, records: int) -> None:
        """So many calls were written."""
        self._failures = 0
        if self._states:
            self._caught_up += records

    def over(self) -> None:
        """Nothing waits any more."""
        if self._states:
            logger.warning(
                "Postgres takes the records again after %.1f s; %d calls caught up.",
                time.monotonic() - self._began,
                self._caught_up,
            )
            self._states.clear()
            self._caught_up = 0
