"""The rows of a record in Postgres' binary COPY format, as the stage tables take them.

A row is encoded once, when it is made; spool and delivery hand its bytes on as they are. Columns
and order are those of the COPY statements in delivery/sql/.
"""

from __future__ import annotations

import math
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from minimal_transformer.exchange import header_text
from minimal_transformer.spool.format import Frame, Kind

if TYPE_CHECKING:
    from minimal_transformer.recording.redaction import Redaction


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a column's name and type."""
    return tuple((name, of) for name, _, of in (part.partition(":") for part in text.split()))


COLUMNS: Final = {
    Kind.REQUEST: _columns(
        "record_id:uuid request_time:timestamptz recorder_id:uuid sequence:bigint"
        " pair_id:text pair_source:text role:text inference_service:text model_version:text"
        " model_name:text protocol:text predict_url:text request_headers:text request_size:integer"
        " request_sha256:bytea request_truncated:boolean request_data:text request_raw:bytea"
    ),
    Kind.RESPONSE: _columns(
        "record_id:uuid request_time:timestamptz response_time:timestamptz status_code:integer"
        " duration_ms:float8 response_truncated:boolean pair_id:text ttft_ms:float8"
        " generation:text error:text response_size:integer response_data:text response_raw:bytea"
    ),
}

TABLES: Final = {Kind.REQUEST: "inference_requests", Kind.RESPONSE: "inference_responses"}

# The columns before the body, its length, the body, and what follows: a large body stays the
# caller's own bytes until the kernel copies them.
Row = tuple[bytes, bytes, bytes, bytes]

# Microseconds from 1970 to 2000, where Postgres starts counting.
_POSTGRES_EPOCH_US = 946_684_800_000_000
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NULL = struct.pack(">i", -1)
NOT_GENERATED = 2 * _NULL  # ttft_ms and generation
_LENGTH = struct.Struct(">i")
_REQUEST_START = struct.Struct(">hi16siqi16siq")
_REQUEST_SIZES = struct.Struct(">iii32siB")
_RESPONSE_START = struct.Struct(">hi16siqiqiiidiB")
_REQUEST_FIELDS = len(COLUMNS[Kind.REQUEST])
_RESPONSE_FIELDS = len(COLUMNS[Kind.RESPONSE])
# A response row without pair_id, ttft_ms and generation begins with its number of columns, and has
# these where they are missing.
_FORMER_START = struct.pack(">h", _RESPONSE_FIELDS - 3)
_FORMER_COLUMNS = struct.pack(">i", 0) + NOT_GENERATED
# Postgres' integer; only a cut body can be larger.
MAX_SIZE = 2**31 - 1
# No server of ours lets longer ones through; a gRPC client can send megabytes.
MAX_HEADER_CHARACTERS = 8192


class StoredBody(NamedTuple):
    """A body as its row will have it.

    `data` is text that may be JSON: Postgres decides, and puts it in *_raw where it does not cast.
    `raw` is what goes to *_raw in any case.
    """

    data: bytes | None
    raw: bytes | None
    size: int | None
    truncated: bool
    hashed: bytes | None  # what request_sha256 is taken of; None when the hash must not be stored

    @property
    def sha256(self) -> bytes:
        return sha256(self.hashed if self.hashed is not None else b"").digest()

    def without_content(self) -> StoredBody:
        """The same body with its size alone."""
        return self if self.size is None else StoredBody(None, None, self.size, True, None)


NO_BODY = StoredBody(None, None, None, truncated=False, hashed=None)


def size_alone(size: int) -> StoredBody:
    """A body of which nothing but the size may or can be stored."""
    return StoredBody(None, None, min(size, MAX_SIZE), truncated=True, hashed=None)


def stored_body(
    body: bytes,
    json_form: bytes | None,
    max_bytes: int,
    redaction: Redaction | None,
    deadline: float = math.inf,
) -> StoredBody:
    """How to store `body`, with its JSON form where it is not JSON itself (gRPC).

    A body over `max_bytes` is cut, without its JSON form, and keeps its true size and hash. With
    values to redact, a body that is over it, or not JSON, or not searched by the `deadline`, is
    not stored, and neither is its hash: of a short secret it tells as much as the secret.
    """
    size = min(len(body), MAX_SIZE)
    if redaction:
        text = body if json_form is None else json_form
        clean = None if len(text) > max_bytes else redaction.clean(text, deadline)
        if clean is None or len(clean) > max_bytes:
            return size_alone(size)
        # Of a message only the JSON form is stored, not the bytes.
        return StoredBody(clean, None, size, json_form is not None, clean)
    if len(body) > max_bytes:
        return StoredBody(None, body[:max_bytes], size, truncated=True, hashed=body)
    if json_form is not None:
        return StoredBody(json_form if _is_text(json_form) else None, body, size, False, body)
    data, raw = (body, None) if _is_text(body) else (None, body)
    return StoredBody(data, raw, size, False, body)


def _is_text(body: bytes) -> bool:
    """Whether Postgres takes the bytes as text, which casting them to jsonb needs."""
    if not body or 0 in body:
        return False
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def listed_headers(headers: Mapping[str, str], names: Iterable[str]) -> bytes:
    """The listed headers that are present, as JSON text that any Postgres stores.

    A value over 8,192 characters is cut.
    """
    found = {}
    for name in names:
        value = headers.get(name)
        if value is not None:
            text = header_text(value) if isinstance(value, str) else value
            found[name] = storable(text, MAX_HEADER_CHARACTERS)
    return orjson.dumps(found)


def storable(value: object, limit: int) -> str:
    """`value` as at most `limit` characters, without what Postgres refuses.

    NUL becomes U+FFFD and a lone surrogate "?"; bytes (gRPC's -bin metadata) are read as Latin-1.
    """
    if type(value) is not str:
        value = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if len(value) > limit:
        value = value[:limit]
    if value.isascii():
        return value.replace("\0", "\ufffd") if "\0" in value else value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def text_fields(*values: str | None) -> bytes:
    """Text columns that stand side by side, encoded; None is NULL."""
    return b"".join([_field(None if value is None else value.encode()) for value in values])


def generation_fields(ttft_ms: float | None, figures: Mapping[str, object]) -> bytes:
    """The columns ttft_ms and generation, encoded; NULL without a time and without figures."""
    time = None if ttft_ms is None else struct.pack(">d", ttft_ms)
    return _field(time) + _field(orjson.dumps(figures) if figures else None)


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
) -> Row:
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
    pair_id: bytes,
    response_time_us: int,
    status_code: int,
    duration_ms: float,
    error: str | None,
    body: StoredBody,
    generation: bytes = NOT_GENERATED,
) -> Row:
    """A response row; `pair_id` is its request's, in UTF-8, `generation` generation_fields()."""
    request_time = request_time_us - _POSTGRES_EPOCH_US
    response_time = response_time_us - _POSTGRES_EPOCH_US
    start = _RESPONSE_START.pack(
        _RESPONSE_FIELDS,
        *(16, record_id, 8, request_time, 8, response_time),
        *(4, status_code, 8, duration_ms, 1, body.truncated),
    )
    error_field = _field(None if error is None else error.encode())
    size = _NULL if body.size is None else _LENGTH.pack(4) + _LENGTH.pack(body.size)
    return _with_body((start, _field(pair_id), generation, error_field, size), body)


def _with_body(start: tuple[bytes, ...], body: StoredBody) -> Row:
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
    """A row's encoded columns; None is NULL. struct.error or ValueError when it is not a row."""
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


def with_raw_body(row: bytes | memoryview) -> bytes:
    """The same row with what was for *_data in *_raw, unless that is taken."""
    *fields, data, raw = split_fields(row)
    fields += [None, data if raw is None else raw]
    return struct.pack(">h", len(fields)) + b"".join(map(_field, fields))


def completed(record: Frame) -> Frame:
    """The record in today's columns.

    A response that the former version put on the spool has no pair_id; here it gets an empty one,
    which the schema's trigger replaces by its request's.
    """
    if record.kind != Kind.RESPONSE or record.row[:2] != _FORMER_START:
        return record
    fixed, rest = record.row[2 : _RESPONSE_START.size], record.row[_RESPONSE_START.size :]
    row = b"".join((_RESPONSE_FIELDS.to_bytes(2), fixed, _FORMER_COLUMNS, rest))
    body_at = record.body_at + len(_FORMER_COLUMNS)
    return record._replace(row=memoryview(row), body_at=body_at)


def decode_row(kind: Kind, row: bytes | memoryview) -> dict[str, object]:
    """The row as Python values by column name, for people and dead letters; bytes stay bytes."""
    return {
        name: None if field is None else _DECODE[type_name](field)
        for (name, type_name), field in zip(COLUMNS[kind], split_fields(row), strict=True)
    }


def encode_row(kind: Kind, values: Mapping[str, Any]) -> tuple[bytes, int]:
    """The row that decode_row() made these values of, and where its body begins.

    A column that is missing is NULL. ValueError when they are not values of these columns.
    """
    columns = COLUMNS[kind]
    if unknown := values.keys() - dict(columns):
        raise ValueError(f"{TABLES[kind]} has no column {', '.join(sorted(unknown))} here")
    fields = []
    for name, type_name in columns:
        value = values.get(name)
        try:
            fields.append(_field(None if value is None else _ENCODE[type_name](value)))
        except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
            raise ValueError(f"its {name} is not a value of {type_name}") from error
    head = struct.pack(">h", len(fields)) + b"".join(fields[:-2])
    return head + b"".join(fields[-2:]), len(head)


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
    "float8": lambda field: struct.unpack(">d", field)[0],
    "boolean": lambda field: field != b"\0",
    "text": bytes.decode,
    "bytea": bytes,
}

_MICROSECOND = timedelta(microseconds=1)
_ENCODE: Final[dict[str, Callable[[Any], bytes]]] = {
    "uuid": lambda value: uuid.UUID(str(value)).bytes,
    "timestamptz": lambda value: struct.pack(
        ">q", (datetime.fromisoformat(value) - _POSTGRES_EPOCH) // _MICROSECOND
    ),
    "bigint": lambda value: struct.pack(">q", value),
    "integer": lambda value: struct.pack(">i", value),
    "float8": lambda value: struct.pack(">d", value),
    "boolean": lambda value: {False: b"\0", True: b"\1"}[value],
    "text": str.encode,
    "bytea": bytes,
}
