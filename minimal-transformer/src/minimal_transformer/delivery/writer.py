"""Moves records from the spool to Postgres, past outages and past bad rows."""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg

from minimal_transformer import counters as slots
from minimal_transformer.counters import Counters
from minimal_transformer.delivery import dead_letters, failures
from minimal_transformer.delivery.database import Database
from minimal_transformer.delivery.outage import Outage
from minimal_transformer.delivery.reader import Reader
from minimal_transformer.rows import json_body, with_raw_body
from minimal_transformer.segment import Frame, Kind

logger = logging.getLogger("minimal_transformer.delivery")

MAX_ROWS = 5000
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
        """Deliver a batch. Seconds to wait for the next; None when nothing is left for now."""
        was_kept = bool(self._pending)
        if was_kept:
            self._reader.look()
        else:
            self._pending = self._reader.next_batch(self._max_rows, MAX_BYTES)
        if not self._pending:
            self._outage.over()
            return None
        there_is_more = was_kept or self._is_full(self._pending)
        try:
            while self._pending:
                self._trusting = True
                self._deliver(self._pending[: self._max_rows])
        except psycopg.Error as error:
            self._counters.add(slots.WRITE_ERRORS)
            if isinstance(error, psycopg.errors.QueryCanceled):
                self._max_rows = max(1, self._max_rows // 2)
            # A new connection may reach another server, and sees what an administrator has changed.
            self._database.close()
            return self._outage.hit(
                failures.state_of(error), failures.advice(error, self._database.role)
            )
        except OSError as error:
            self._counters.add(slots.WRITE_ERRORS)
            reason = f"a row is refused and cannot be set aside: {error}."
            return self._outage.hit("dead-letter", reason)
        if there_is_more:
            return 0.0
        self._outage.over()
        return None

    def _is_full(self, batch: list[Frame]) -> bool:
        """Whether the batch ended at its limits, and not because the spool was empty."""
        return len(batch) >= self._max_rows or sum(len(r.row) for r in batch) >= MAX_BYTES // 2

    def close(self) -> None:
        self._reader.close()
        self._database.close()

    def _deliver(self, records: list[Frame]) -> None:
        """Have the records in Postgres, or set aside those that it refuses for what is in them."""
        try:
            self._store(records)
        except psycopg.Error as error:
            if not failures.is_about_data(error):
                raise
            if len(records) == 1:
                self._deliver_refused(records[0], error)
                return
        else:
            self._done(records, sum(record.kind == Kind.REQUEST for record in records))
            return
        half = len(records) // 2
        self._deliver(records[:half])
        self._deliver(records[half:])

    def _store(self, records: list[Frame]) -> None:
        """Straight into the tables, which is fast; else through the stage."""
        if self._trusting:
            try:
                self._database.store(records, trusting=True)
            except psycopg.Error as error:
                if not failures.is_about_data(error):
                    raise
                self._trusting = False  # for the rest of the batch
            else:
                return
        self._database.store(records, trusting=False)

    def _deliver_refused(self, record: Frame, error: psycopg.Error) -> None:
        """Store the row with its body as raw bytes; when that is refused as well, set it aside."""
        if json_body(record.row, record.body_at) is not None:
            raw = record._replace(row=memoryview(with_raw_body(record.row)))
            try:
                self._database.store([raw], trusting=False)
            except psycopg.Error as second:
                if not failures.is_about_data(second):
                    raise
                error = second
            else:
                self._done([record], int(record.kind == Kind.REQUEST))
                return
        path = dead_letters.set_aside(self._folder, record, error)
        logger.error("Postgres refuses a row: %s It is kept in %s.", failures.advice(error), path)
        self._counters.add(slots.DEAD_LETTER)
        self._counters.add(slots.WRITE_ERRORS)
        self._done([record], 0)

    def _done(self, records: list[Frame], written: int) -> None:
        self._reader.delivered(records)
        self._counters.add(slots.WRITTEN, written)
        del self._pending[: len(records)]
        self._max_rows = min(MAX_ROWS, self._max_rows + self._max_rows // 8 + 1)
        self._outage.passed(written)
