"""The rows of a record in Postgres' binary COPY format, as the stage tables take them.

A row is encoded once, when it is made; spool and delivery hand its bytes on as they are. Columns
and order are those of the COPY statements in delivery/sql/.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from minimal_transformer.body import StoredBody
from minimal_transformer.segment import Kind

COLUMNS: Final[dict[Kind, tuple[tuple[str, str], ...]]] = {
    Kind.REQUEST: (
        ("record_id", "uuid"),
        ("request_time", "timestamptz"),
        ("recorder_id", "uuid"),
        ("sequence", "bigint"),
        ("pair_id", "text"),
        ("pair_source", "text"),
        ("role", "text"),
        ("inference_service", "text"),
        ("model_version", "text"),
        ("model_name", "text"),
        ("protocol", "text"),
        ("predict_url", "text"),
        ("request_headers", "text"),
        ("request_size", "integer"),
        ("request_sha256", "bytea"),
        ("request_truncated", "boolean"),
        ("request_data", "text"),
        ("request_raw", "bytea"),
    ),
    Kind.RESPONSE: (
        ("record_id", "uuid"),
        ("request_time", "timestamptz"),
        ("response_time", "timestamptz"),
        ("status_code", "integer"),
        ("duration_ms", "double precision"),
        ("response_truncated", "boolean"),
        ("error", "text"),
        ("response_size", "integer"),
        ("response_data", "text"),
        ("response_raw", "bytea"),
    ),
}

# The columns before the body, the body's length, the body, and what follows: a large body stays the
# caller's own bytes until the kernel copies them.
Pieces = tuple[bytes, bytes, bytes, bytes]

# Microseconds from 1970 to 2000, where Postgres starts counting.
_POSTGRES_EPOCH_US = 946_684_800_000_000
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_REQUEST_START = struct.Struct(">hi16siqi16siq")
_REQUEST_SIZES = struct.Struct(">iii32siB")
_RESPONSE_START = struct.Struct(">hi16siqiqiiidiB")
_REQUEST_FIELDS = len(COLUMNS[Kind.REQUEST])
_RESPONSE_FIELDS = len(COLUMNS[Kind.RESPONSE])


def text_fields(*values: str | None) -> bytes:
    """Text columns that stand side by side, encoded; None is NULL."""
    return b"".join([_field(None if value is None else value.encode()) for value in values])


def encode_request(
    *,
    record_id: bytes,
    request_time_us: int,
    recorder_id: bytes,
    sequence: int,
    pair: bytes,
    process: bytes,
    route: bytes,
    headers: bytes,
    body: StoredBody,
) -> Pieces:
    """A request row.

    `pair`, `process` and `route` are text_fields() of pair_id and pair_source; of role,
    inference_service and model_version; of model_name, protocol and predict_url.
    """
    time = request_time_us - _POSTGRES_EPOCH_US
    start = _REQUEST_START.pack(
        _REQUEST_FIELDS, 16, record_id, 8, time, 16, recorder_id, 8, sequence
    )
    sizes = _REQUEST_SIZES.pack(4, body.size or 0, 32, body.sha256, 1, body.truncated)
    return _with_body((start, pair, process, route, _field(headers), sizes), body)


def encode_response(
    *,
    record_id: bytes,
    request_time_us: int,
    response_time_us: int,
    status_code: int,
    duration_ms: float,
    error: str | None,
    body: StoredBody,
) -> Pieces:
    """A response row."""
    request_time = request_time_us - _POSTGRES_EPOCH_US
    response_time = response_time_us - _POSTGRES_EPOCH_US
    start = _RESPONSE_START.pack(
        _RESPONSE_FIELDS,
        *(16, record_id, 8, request_time, 8, response_time),
        *(4, status_code, 8, duration_ms, 1, body.truncated),
    )
    size = _NULL if body.size is None else _LENGTH.pack(4) + _LENGTH.pack(body.size)
    return _with_body((start, _field(None if error is None else error.encode()), size), body)


def _with_body(start: tuple[bytes, ...], body: StoredBody) -> Pieces:
    head = b"".join(start)
    if body.data is not None:
        return head, _LENGTH.pack(len(body.data)), body.data, _field(body.raw)
    if body.raw is not None:
        return head, _NULL + _LENGTH.pack(len(body.raw)), body.raw, b""
    return head, _NULL, b"", _NULL


def json_body(row: memoryview, body_at: int) -> memoryview | None:
    """The bytes of the row's *_data, which begins at `body_at`; None where it is NULL."""
    (length,) = _LENGTH.unpack_from(row, body_at)
    return None if length < 0 else row[body_at + 4 : body_at + 4 + length]


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else _LENGTH.pack(len(value)) + value


def split_fields(row: bytes | memoryview) -> list[bytes | None]:
    """The encoded columns of a row; None is NULL. struct.error or ValueError when it is no row."""
    view = memoryview(row)
    (count,) = struct.unpack_from(">h", view)
    fields: list[bytes | None] = []
    position = 2
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(view, position)
        position += 4
        if length < 0:
            fields.append(None)
            continue
        fields.append(bytes(view[position : position + length]))
        position += length
    if position != len(view):
        raise ValueError(f"a row of {len(view)} bytes has fields of {position} bytes")
    return fields


def join_fields(fields: list[bytes | None]) -> bytes:
    """The row of these encoded columns."""
    return struct.pack(">h", len(fields)) + b"".join(_field(field) for field in fields)


def with_raw_body(row: bytes | memoryview) -> bytes:
    """The same row with what was for *_data in *_raw, unless that is taken."""
    *fields, data, raw = split_fields(row)
    return join_fields([*fields, None, data if raw is None else raw])


def decode_row(kind: Kind, row: bytes | memoryview) -> dict[str, object]:
    """The row as Python values by column name, for people and dead letters; bytes stay bytes."""
    return {
        name: None if field is None else _DECODE[type_name](field)
        for (name, type_name), field in zip(COLUMNS[kind], split_fields(row), strict=True)
    }


def _time(field: bytes) -> str:
    microseconds = int.from_bytes(field, "big", signed=True)
    return (_POSTGRES_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def _integer(field: bytes) -> int:
    return int.from_bytes(field, "big", signed=True)


_DECODE: Final[dict[str, Callable[[bytes], object]]] = {
    "uuid": lambda field: str(uuid.UUID(bytes=field)),
    "timestamptz": _time,
    "bigint": _integer,
    "integer": _integer,
    "double precision": lambda field: struct.unpack(">d", field)[0],
    "boolean": lambda field: field != b"\0",
    "text": bytes.decode,
    "bytea": bytes,
}
