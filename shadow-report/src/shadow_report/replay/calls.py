"""The primary's stored calls in their original order, read in small portions.

The order is made once, by a cursor over the keys alone that outlives its transaction (WITH HOLD):
a replay may take hours, and must not keep a transaction open, hold locks against `maintain`, or
sort bodies. The bodies follow by key, a portion at a time.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row, scalar_row

from shadow_report import OneLineError, SettingWrong
from shadow_report.evidence.database import failure

Key = TypeVar("Key")

# What a transformer with RECORD_REDACT writes in place of a value.
REDACTED = b'"[redacted]"'

PORTION_CALLS = 500
PORTION_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A primary's call as it was recorded; `body` is None when it cannot be sent again, and
    `withheld` says why.
    """

    record_id: UUID
    request_time: datetime
    pair_id: str
    protocol: str
    model_name: str
    predict_url: str
    headers: dict[str, str]
    body: bytes | None
    withheld: str | None = None


# The next call waits so long, at most, for the first one's record, which says whether the candidate
# is a shadow.
TRIAL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """A pair of which a candidate has recorded a call: as `role`, and whether one of them ended."""

    pair_id: str
    role: str
    inference_service: str
    ended: bool


def shadow_calls(rows: Sequence[Recorded]) -> list[Recorded]:
    """Those that were recorded as a shadow's; OneLineError where any was as a primary's."""
    for row in rows:
        if row.role == "primary":
            raise OneLineError(
                f"{row.inference_service} has recorded call {row.pair_id}, which was sent to it as "
                "to a shadow, as primary; nothing more is sent. It was promoted, or its "
                "transformer lacks SHADOW_ROLE=shadow: send to it again once it is the shadow."
            )
    return list(rows)


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
        async with self._connection.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute("SELECT clock_timestamp()")
            return cast(datetime, await cursor.fetchone())

    async def primaries(self, since: datetime | None, until: datetime | None) -> list[str]:
        """The primaries that have calls in the window."""
        asked = {"since": since or "-infinity", "until": until or "infinity"}
        rows = await (await self._connection.execute(sql("services"), asked)).fetchall()
        return [row[0] for row in rows]

    async def portions(self, selection: Selection) -> AsyncGenerator[tuple[int, list[StoredCall]]]:
        """(calls of the whole selection, some calls in order), until all were given."""
        async with self._connection.cursor(name="replay", withhold=True) as keys:
            await keys.execute(sql("keys"), selection.parameters)
            await self._connection.commit()
            while rows := await keys.fetchmany(PORTION_CALLS):
                for portion in by_size(rows, lambda row: int(row[3])):
                    yield int(portion[0][4]), await self._calls(portion)

    async def _calls(self, keys: list[tuple[Any, ...]]) -> list[StoredCall]:
        records, times, pair_ids, *_ = zip(*keys, strict=True)
        asked = {"records": list(records), "times": list(times), "pair_ids": list(pair_ids)}
        async with self._connection.cursor(row_factory=kwargs_row(stored_call)) as cursor:
            await cursor.execute(sql("calls"), asked)
            calls = await cursor.fetchall()
        await self._connection.commit()
        return calls

    async def answered(
        self, calls: list[StoredCall], since: datetime, prefix: str = ""
    ) -> dict[str, int]:
        """The status of those of these calls that a shadow has answered since then, by pair id;
        with the prefix ITSELF the primary.
        """
        pair_ids = [prefix + call.pair_id for call in calls]
        asked = {"pair_ids": pair_ids, "since": since, "role": "primary" if prefix else "shadow"}
        rows = await (await self._connection.execute(sql("answered"), asked)).fetchall()
        await self._connection.commit()
        return {pair_id.removeprefix(prefix): status for pair_id, status in rows}

    async def recorded(
        self, pair_ids: list[str], since: datetime, prefix: str = ""
    ) -> dict[str, int]:
        """How many of these pairs each shadow has recorded since then, by its service; with the
        prefix ITSELF the primary.
        """
        pair_ids = [prefix + pair_id for pair_id in pair_ids]
        asked = {"pair_ids": pair_ids, "since": since, "role": "primary" if prefix else "shadow"}
        rows = await (await self._connection.execute(sql("recorded"), asked)).fetchall()
        await self._connection.commit()
        return {str(service): int(calls) for service, calls in rows}

    async def shadowed(self, pair_ids: list[str], primary: str, since: datetime) -> int:
        """How many of these pairs, sent since then, a shadow has recorded; OneLineError where one
        was recorded as a primary's.
        """
        asked = {
            "pair_ids": pair_ids,
            "oldest": since,
            "shadow": None,
            "primary": primary,
            "sent_since": since,
        }
        async with self._connection.cursor(row_factory=class_row(Recorded)) as cursor:
            await cursor.execute(sql("shadowed"), asked)
            rows = await cursor.fetchall()
        await self._connection.commit()
        return len(shadow_calls(rows))


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


def sql(name: str) -> bytes:
    """A query of this folder."""
    return files("shadow_report.replay").joinpath(f"sql/{name}.sql").read_bytes()


def by_size(keys: Sequence[Key], size_of: Callable[[Key], int]) -> list[list[Key]]:
    """The keys in runs whose bodies together stay within PORTION_BYTES, or of one call."""
    runs: list[list[Key]] = []
    size = 0
    for key in keys:
        if not runs or size + size_of(key) > PORTION_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(key)
        size += size_of(key)
    return runs


def stored_call(
    *,
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
    # Of a gRPC message *_data is only its JSON form.
    body = raw if protocol == "grpc" or data is None else data
    if body is None and size == 0:
        body = b""
    withheld = why_withheld(body, raw, size, truncated)
    named = headers.items() if isinstance(headers, dict) else ()
    kept = {str(name): str(value) for name, value in named}
    return StoredCall(
        record_id,
        request_time,
        pair_id,
        protocol,
        model_name,
        predict_url,
        kept,
        None if withheld else body,
        withheld,
    )


def why_withheld(body: bytes | None, raw: bytes | None, size: int, truncated: bool) -> str | None:
    """Why a stored body is not what the caller sent; None when it is.

    A redacted body is JSON with REDACTED in place of values: it seldom has the caller's length, and
    what only looks like one is left out rather than guessed.
    """
    if truncated:
        return "body cut" if raw is not None else "body redacted"
    if body is None or len(body) != size or REDACTED in body:
        return "body redacted"
    return None


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
        raise OneLineError(
            f"Several primaries have calls; choose one of {', '.join(names)} with --primary."
        )
    return names[0]


MODEL_PATH = re.compile(r"^(?P<base>.*?)/v[12]/models/(?P<model>[^/:]+)(?::\w+|/.*)?$")
EXPLAIN = re.compile(r":explain(?:$|\?)")

GZIP = b"\x1f\x8b"
# The candidate's transformer stores this header, so that its rows say where a call came from.
SOURCE = "x-shadow-source"

# Headers that belong to the connection or to the call's first way through the mesh.
NOT_SENT = {
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
    "x-shadow-pair-id",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A candidate: its address before `/v1` or `/v2`; `model` overrides the stored name."""

    base: str
    model: str | None

    def url(self, call: StoredCall) -> str:
        """Where this call goes: the path of its protocol, with the candidate's model name; of
        OpenAI's API the transformer's own path of it, and of others the path as it was.
        """
        if call.protocol not in ("v1", "v2"):
            parts = urlsplit(call.predict_url)
            path = parts.path
            if call.protocol == "openai":
                # What stands before /v1 is the primary's predictor's, whose server may be another.
                path = "/openai/v1/" + path.rpartition("/v1/")[2]
            return self.base + path + (f"?{parts.query}" if parts.query else "")
        model = quote(self.model or call.model_name, safe="")
        if call.protocol == "v1":
            verb = "explain" if EXPLAIN.search(call.predict_url) else "predict"
            return f"{self.base}/v1/models/{model}:{verb}"
        return f"{self.base}/v2/models/{model}/infer"

    def message(self, call: StoredCall) -> bytes:
        """A gRPC call's ModelInferRequest, with the candidate's model name.

        The name is field 1, and of a field that is there twice the last one counts.
        """
        body = call.body or b""
        if self.model is None or self.model == call.model_name:
            return body
        name = self.model.encode()
        size, digits = len(name), bytearray()
        while size > 127:
            digits.append(size & 127 | 128)
            size >>= 7
        return body + b"\x0a" + bytes((*digits, size)) + name


def parse_target(text: str) -> Target:
    """The address before `/v1`, or a whole predict URL, whose model name then counts."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingWrong(
            f"--to is {text!r}; give the candidate's address, like http://candidate:8080."
        )
    address = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    if match := MODEL_PATH.match(address):
        return Target(match["base"], unquote(match["model"]))
    return Target(address, None)


# Begins the pair id of a call that the primary is sent once more, to be compared with itself: every
# other question of the tables leaves such rows out.
ITSELF = "itself:"


def headers_of(call: StoredCall, source: str, prefix: str = "") -> dict[str, str]:
    """The stored headers and the original pair id, behind `prefix`; JSON is the type unless one was
    stored.

    `source` tells the candidate's row from that of a mirrored copy.
    """
    kept = {
        name.lower(): value for name, value in call.headers.items() if name.lower() not in NOT_SENT
    }
    sent = {"content-type": "application/json"}
    # By default the transformer stores the encoding; where it was told not to, gzip shows itself.
    if call.body is not None and call.body.startswith(GZIP):
        sent["content-encoding"] = "gzip"
    return {**sent, **kept, "x-shadow-pair-id": prefix + call.pair_id, SOURCE: source}
