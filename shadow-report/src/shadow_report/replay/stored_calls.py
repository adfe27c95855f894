"""The primary's stored calls in their original order, read in small portions.

The order is made once, by a cursor over the keys alone that outlives its transaction (WITH HOLD):
a replay may take hours, and must not keep a transaction open, hold locks against `maintain`, or
sort bodies. The bodies follow by key, a portion at a time.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from shadow_report.connection import failure
from shadow_report.errors import OneLineError

PORTION_CALLS = 500
PORTION_BYTES = 8 * 1024 * 1024

# Of calls with one pair id only the first is sent: only the first is compared.
KEYS = """
SELECT r.record_id, r.request_time, r.request_size, count(*) OVER () AS total
FROM inference_requests r
WHERE r.role = 'primary' AND r.inference_service = %(primary)s
  AND r.request_time >= %(since)s::timestamptz AND r.request_time < %(until)s::timestamptz
  AND (r.request_time, r.record_id) > (%(after_time)s::timestamptz, %(after_record)s::uuid)
  AND NOT EXISTS (
      SELECT FROM inference_requests e
      WHERE e.pair_id = r.pair_id AND e.role = 'primary' AND e.inference_service = %(primary)s
        AND (e.request_time, e.record_id) < (r.request_time, r.record_id))
ORDER BY r.request_time, r.record_id
"""

CALLS = """
SELECT r.record_id, r.request_time, r.pair_id, r.protocol, r.model_name, r.predict_url,
       r.request_headers, convert_to(r.request_data::text, 'UTF8'), r.request_raw,
       r.request_size, r.request_truncated
FROM unnest(%(records)s::uuid[], %(times)s::timestamptz[])
     WITH ORDINALITY AS wanted (record_id, request_time, place)
JOIN inference_requests r USING (record_id, request_time)
WHERE r.request_time BETWEEN %(first)s AND %(last)s
ORDER BY wanted.place
"""

SERVICES = """
SELECT DISTINCT inference_service FROM inference_requests
WHERE role = 'primary'
  AND request_time >= %(since)s::timestamptz AND request_time < %(until)s::timestamptz
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A primary's call as it was recorded; `body` is None when it was not stored whole."""

    record_id: UUID
    request_time: datetime
    pair_id: str
    protocol: str
    model_name: str
    predict_url: str
    headers: dict[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls: those of a primary in a window, after the call where an earlier run stopped."""

    primary: str
    since: datetime | None
    until: datetime | None
    after_time: datetime | None = None
    after_record: UUID | None = None

    @property
    def parameters(self) -> dict[str, object]:
        return {
            "primary": self.primary,
            "since": self.since or "-infinity",
            "until": self.until or "infinity",
            "after_time": self.after_time or "-infinity",
            "after_record": self.after_record or UUID(int=0),
        }


class StoredCalls:
    """An open selection: how many calls it has, and the calls."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], uri: str) -> None:
        self._connection = connection
        self._uri = uri

    async def now(self) -> datetime:
        """The server's clock."""
        row = await (await self._connection.execute("SELECT clock_timestamp()")).fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment

    async def primaries(self, since: datetime | None, until: datetime | None) -> list[str]:
        """The primaries that have calls in the window."""
        asked = {"since": since or "-infinity", "until": until or "infinity"}
        rows = await (await self._connection.execute(SERVICES, asked)).fetchall()
        return [row[0] for row in rows]

    async def portions(self, selection: Selection) -> AsyncIterator[tuple[int, list[StoredCall]]]:
        """(calls of the whole selection, some calls in order), until all were given."""
        async with self._connection.cursor(name="replay", withhold=True) as keys:
            await keys.execute(KEYS, selection.parameters)
            await self._connection.commit()
            while rows := await keys.fetchmany(PORTION_CALLS):
                for portion in by_size(rows):
                    yield int(portion[0][3]), await self._calls(portion)

    async def _calls(self, keys: list[tuple[Any, ...]]) -> list[StoredCall]:
        asked = {
            "records": [key[0] for key in keys],
            "times": [key[1] for key in keys],
            "first": keys[0][1],
            "last": keys[-1][1],
        }
        rows = await (await self._connection.execute(CALLS, asked)).fetchall()
        await self._connection.commit()
        return [stored_call(*row) for row in rows]

    async def recorded(self, pair_ids: list[str], since: datetime) -> dict[str, int]:
        """How many of these pairs each shadow has recorded since then, by its service."""
        query = """
            SELECT inference_service, count(DISTINCT pair_id) FROM inference_requests r
            JOIN inference_responses a USING (record_id, request_time)
            WHERE role = 'shadow' AND pair_id = ANY(%s) AND r.request_time >= %s
            GROUP BY inference_service ORDER BY 2 DESC
        """
        rows = await (await self._connection.execute(query, (pair_ids, since))).fetchall()
        await self._connection.commit()
        return {str(service): int(calls) for service, calls in rows}


@asynccontextmanager
async def open_stored_calls(uri: str) -> AsyncIterator[StoredCalls]:
    """The calls in the database at `uri`, read as the role report; OneLineError when that fails."""
    try:
        connection = await psycopg.AsyncConnection.connect(uri, connect_timeout=10)
        async with connection:
            await connection.set_read_only(True)
            yield StoredCalls(connection, uri)
    except psycopg.Error as error:
        raise failure(error, uri, "report") from error


def by_size(keys: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    """The keys in runs whose bodies together stay within PORTION_BYTES, or of one call."""
    runs: list[list[tuple[Any, ...]]] = []
    size = PORTION_BYTES
    for key in keys:
        if size + key[2] > PORTION_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(key)
        size += key[2]
    return runs


def stored_call(
    record_id: UUID,
    request_time: datetime,
    pair_id: str,
    protocol: str,
    model_name: str,
    predict_url: str,
    headers: object,
    data: bytes | None,
    raw: bytes | None,
    size: int,
    truncated: bool,
) -> StoredCall:
    """A row as a call."""
    body = data if data is not None else raw
    if truncated:
        body = None
    elif body is None and size == 0:
        body = b""
    named = headers.items() if isinstance(headers, dict) else ()
    kept = {str(name): str(value) for name, value in named}
    return StoredCall(
        record_id, request_time, pair_id, protocol, model_name, predict_url, kept, body
    )


def only_primary(names: list[str], wanted: str | None) -> str:
    """The primary to replay; OneLineError when it is not clear which."""
    if wanted is not None:
        if wanted not in names:
            raise OneLineError(
                f"--primary is {wanted!r}, which has no calls in this window; "
                f"there are calls of {', '.join(names) or 'nobody'}."
            )
        return wanted
    if not names:
        raise OneLineError(
            "There are no primary calls in this window; widen --since and --until, or send traffic."
        )
    if len(names) > 1:
        raise OneLineError(f"Several primaries have calls; choose one of {', '.join(names)} with --primary.")
    return names[0]
