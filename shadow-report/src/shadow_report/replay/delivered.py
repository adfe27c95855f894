"""The primary's calls in the order of their delivery, and what a candidate has recorded of them.

Every question is a short statement of its own, by a connection that is made anew as often as it
takes: whoever asks holds no lock and no snapshot, and outlives the database's restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import AsyncRowFactory, class_row, kwargs_row, scalar_row

from shadow_report.evidence.database import failure, place
from shadow_report.replay.calls import Recorded, StoredCall, shadow_calls, sql, stored_call

Row = TypeVar("Row")

PAGE = 1000
FIRST_RETRY_SECONDS, RETRY_SECONDS = 0.1, 5.0
# A question takes milliseconds. A server that hangs keeps its connections open, so that no timeout
# of theirs ends the wait for an answer.
SILENT_SECONDS = 15.0
# Outages of a connection and of a server, as opposed to statements that never succeed.
OUTAGES = (psycopg.OperationalError, psycopg.InterfaceError)
# What somebody took from a reader that had it, and gives back.
TAKEN_AWAY = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)
CONNECTION: dict[str, Any] = {
    "connect_timeout": 10,
    "application_name": "shadow-report follow",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
CLOCK = b"SELECT clock_timestamp()"  # no table and no right needed
FIRST_RECORD = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Key:
    """A delivered call without its body."""

    created_at: datetime
    record_id: UUID
    request_time: datetime
    pair_id: str
    request_size: int
    inference_service: str


class Place(NamedTuple):
    """A place in the order of delivery."""

    created_at: datetime
    record_id: UUID = FIRST_RECORD


@dataclass(frozen=True, slots=True)
class Window:
    """Whose calls, by the time at which they came; `primary` None is any."""

    primary: str | None
    since: datetime
    until: datetime | None


class DeliveredCalls:
    """Questions to the tables at `uri`, one at a time; each waits for a database that is away.

    `changed` is called with None at each answer, and with what is wrong at each failure, and while
    an answer is overdue by `SILENT_SECONDS`. A question that will never be answered is a
    OneLineError: a wrong URI, and no such table or no right, but for one that was there before.
    """

    def __init__(
        self,
        uri: str,
        changed: Callable[[str | None], None],
        was_read: asyncio.Event | None = None,
    ) -> None:
        self._uri = uri
        self._changed = changed
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        # Of all that share it: what one of them has read was there.
        self._was_read = was_read or asyncio.Event()

    async def now(self) -> datetime:
        """The server's clock."""
        return (await self._ask(CLOCK, {}, scalar_row))[0]  # type: ignore[no-any-return]

    async def page(self, after: Place, before: datetime | None, window: Window) -> list[Key]:
        """The next calls in the order of delivery, at most PAGE."""
        asked = {
            "after_time": after.created_at,
            "after_record": after.record_id,
            "before": before or "infinity",
            "primary": window.primary,
            "since": window.since,
            "until": window.until or "infinity",
            "limit": PAGE,
        }
        return await self._ask(sql("delivered"), asked, class_row(Key))

    async def calls(self, keys: Sequence[Key]) -> list[StoredCall]:
        """These calls whole, in their order; those that retention has dropped are left out."""
        asked = {
            "records": [key.record_id for key in keys],
            "times": [key.request_time for key in keys],
            "pair_ids": [key.pair_id for key in keys],
        }
        return await self._ask(sql("calls"), asked, kwargs_row(stored_call))

    async def shadowed(
        self, keys: Sequence[Key], shadow: str | None, sent_since: datetime
    ) -> list[Recorded]:
        """What the service `shadow`, or None for any, has recorded of these pairs of one primary.

        OneLineError where one that was sent since then was recorded as a primary's.
        """
        asked = {
            "pair_ids": [key.pair_id for key in keys],
            "oldest": min(key.request_time for key in keys),
            "shadow": shadow,
            "primary": keys[0].inference_service,
            "sent_since": sent_since,
        }
        return shadow_calls(await self._ask(sql("shadowed"), asked, class_row(Recorded)))

    async def answering(self, since: datetime) -> str | None:
        """Who answers callers, as the newest call that was delivered since then says."""
        found = await self._ask(sql("answering"), {"since": since}, scalar_row)
        return found[0] if found else None

    async def began(self, shadow: str | None, since: datetime) -> datetime | None:
        """When the primary took the first call that the shadow has answered since then."""
        found = await self._ask(sql("began"), {"shadow": shadow, "since": since}, scalar_row)
        return found[0] if found else None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()

    async def _ask(
        self, query: bytes, asked: dict[str, object], row: AsyncRowFactory[Row]
    ) -> list[Row]:
        delay = FIRST_RETRY_SECONDS
        async with self._lock:
            while True:
                try:
                    connection = await self._connected()
                    with self._overdue():
                        async with connection.cursor(row_factory=row) as cursor:
                            await cursor.execute(query, asked)
                            rows = await cursor.fetchall()
                    self._changed(None)
                    if query != CLOCK:
                        self._was_read.set()
                    return rows
                except (*OUTAGES, *TAKEN_AWAY) as error:
                    if isinstance(error, TAKEN_AWAY) and not self._was_read.is_set():
                        raise failure(error, self._uri, "report") from error
                    await self.close()
                    self._changed(str(failure(error, self._uri, "report")))
                    await asyncio.sleep(delay)
                    delay = min(RETRY_SECONDS, 2 * delay)
                except psycopg.Error as error:
                    raise failure(error, self._uri, "report") from error

    @contextmanager
    def _overdue(self) -> Iterator[None]:
        """Call `changed` while the block waits for longer than an answer takes."""
        silence = (
            f"Postgres at {place(self._uri)} has not answered for {SILENT_SECONDS:g} s, though its "
            "connection is open; see whether it hangs."
        )
        alarm = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._changed, silence)
        try:
            yield
        finally:
            alarm.cancel()

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                # Prepared statements would belong to somebody else behind a transaction pooler.
                self._uri,
                autocommit=True,
                prepare_threshold=None,
                **CONNECTION,
            )
        return self._connection
