"""Moves records from the spool to Postgres for as long as it takes, past outages and past bad rows."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import psycopg

from minimal_transformer import counters as slots
from minimal_transformer.counters import Counters
from minimal_transformer.delivery import dead_letters, failures
from minimal_transformer.delivery.database import Database
from minimal_transformer.delivery.outage import Outage
from minimal_transformer.delivery.reader import Reader
from minimal_transformer.rows import with_raw_body
from minimal_transformer.segment import Frame, Kind

logger = logging.getLogger("minimal_transformer.delivery")

MAX_ROWS = 2000
MAX_BYTES = 8 * 1024 * 1024


class Writer:
    """One pass after another over what waits on the spool."""

    def __init__(self, folder: Path, database: Database, counters: Counters) -> None:
        self._folder = folder
        self._reader = Reader(folder)
        self._database = database
        self._counters = counters
        self._outage = Outage()
        self._max_rows = MAX_ROWS
        self._pending: list[Frame] = []
        self._trusting = True

    def advance(self) -> float | None:
        """Deliver the next batch. Seconds to wait after a failure, 0 after a full batch, None when idle."""
        if not self._pending:
            self._pending = self._reader.next_batch(self._max_rows, MAX_BYTES)
        if not self._pending:
            return None
        there_is_more = (
            self._outage.is_on
            or len(self._pending) >= self._max_rows
            or sum(len(record.row) for record in self._pending) >= MAX_BYTES // 2
        )
        try:
            while self._pending:
                self._trusting = True
                self._deliver(self._pending[: self._max_rows])
        except psycopg.Error as error:
            self._counters.add(slots.WRITE_ERRORS)
            if failures.is_transient(error):
                return 0.0
            if isinstance(error, psycopg.errors.QueryCanceled):
                self._max_rows = max(1, self._max_rows // 2)
            return self._outage.hit(failures.state_of(error), failures.advice(error))
        except OSError as error:
            self._counters.add(slots.WRITE_ERRORS)
            return self._outage.hit(
                "dead-letter", f"A row is refused and cannot be set aside: {error}."
            )
        return 0.0 if there_is_more else None

    def close(self) -> None:
        self._reader.close()
        self._database.close()

    def _deliver(self, records: Sequence[Frame]) -> None:
        """Have the records in Postgres, or set aside those that it refuses for what is in them."""
        try:
            self._store(records)
        except psycopg.Error as error:
            if not failures.is_about_data(error):
                raise
            if len(records) > 1:
                half = len(records) // 2
                self._deliver(records[:half])
                self._deliver(records[half:])
                return
            self._deliver_refused(records[0], error)
            return
        self._done(records, sum(record.kind == Kind.REQUEST for record in records))

    def _store(self, records: Sequence[Frame]) -> None:
        """Straight into the tables, which is fast; through the stage when a row does not go that way."""
        if self._trusting:
            try:
                self._database.store(records, trusting=True)
            except psycopg.Error as error:
                if not failures.is_about_data(error):
                    raise
                self._trusting = False  # until the batch is done: its rows are looked at one by one
            else:
                return
        self._database.store(records, trusting=False)

    def _deliver_refused(self, record: Frame, error: psycopg.Error) -> None:
        """Store the row with its body as raw bytes; when that is refused as well, set it aside."""
        raw = with_raw_body(record.row)
        if raw is not None:
            try:
                self._database.store(
                    [Record(record.kind, memoryview(raw), record.source, record.end)]
                )
            except psycopg.Error as second:
                if not failures.is_about_data(second):
                    raise
                error = second
            else:
                self._done([record], int(record.kind == Kind.REQUEST))
                return
        path = dead_letters.set_aside(self._folder, record, error)
        logger.error("Postgres refuses a row: %s; it is kept in %s.", failures.advice(error), path)
        self._counters.add(slots.DEAD_LETTER)
        self._done([record], 0)

    def _done(self, records: Sequence[Frame], written: int) -> None:
        self._reader.delivered(records)
        self._counters.add(slots.WRITTEN, written)
        self._pending = self._pending[len(records) :]
        self._max_rows = min(MAX_ROWS, self._max_rows * 2)
        self._outage.passed(written, self._is_caught_up())

    def _is_caught_up(self) -> bool:
        return not self._pending
