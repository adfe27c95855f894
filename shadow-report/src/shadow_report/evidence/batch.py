"""A batch of pairs as Postgres sends it in binary COPY: scalars as one array, bodies on demand."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 8192
# Bodies may be a megabyte each; a batch must not hold thousands of those.
MAX_BYTES = 8 << 20

HEADER_BYTES = 19
TRAILER_BYTES = 2
# The last message is the trailer, after the header when there are no rows; any row is longer.
END_BYTES = HEADER_BYTES + TRAILER_BYTES

NO_CALL = -1
NO_ANSWER = 0

SAME_REQUEST, PRIMARY_CUT, SHADOW_CUT, PRIMARY_IS_JSON, SHADOW_IS_JSON = 1, 2, 4, 8, 16
# The pair id came in x-shadow-pair-id; the gateway's rules leave the call out.
PRIMARY_MIRRORED, SHADOW_MIRRORED, UNMIRRORED = 32, 64, 128
# Of a call without its pair: its stored request is not what the caller sent; nobody sends it again.
CUT_REQUEST, REDACTED_REQUEST = 256, 512
# The answer was a stream that broke off; one that its caller left.
PRIMARY_BROKEN, PRIMARY_LEFT, SHADOW_BROKEN, SHADOW_LEFT = 1024, 2048, 4096, 8192
# Either answer was generated.
GENERATED = 16384 | 32768

# The leading columns of pairs.sql in its order: each value follows its 4-byte length.
_SCALARS = [
    ("primary_time", ">i8"),
    ("shadow_time", ">i8"),
    ("primary_status", ">i4"),
    ("shadow_status", ">i4"),
    ("primary_duration_ms", ">f8"),
    ("shadow_duration_ms", ">f8"),
    ("request_size", ">i4"),
    ("flags", ">i4"),
    ("pair_hash", ">i8"),
    ("request_bucket", ">i4"),
]
_ROW = np.dtype(
    [("columns", ">i2")]
    + [field for name, kind in _SCALARS for field in ((f"{name}_bytes", ">i4"), (name, kind))]
)
_LENGTH = struct.Struct(">i").unpack_from

# The column `generation`: milliseconds to the first token (NaN: unknown) and tokens (-1: unknown).
_GENERATION = np.dtype(
    [
        ("primary_ttft_ms", ">f8"),
        ("shadow_ttft_ms", ">f8"),
        ("primary_prompt_tokens", ">i4"),
        ("shadow_prompt_tokens", ">i4"),
        ("primary_completion_tokens", ">i4"),
        ("shadow_completion_tokens", ">i4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some pairs; entry i of every array is row i. Times are microseconds since 2000-01-01 UTC."""

    data: bytes
    starts: NDArray[np.int64]
    """Where each row begins in `data`."""
    scalars: NDArray[np.void]

    def __len__(self) -> int:
        return self.starts.size

    def only(self, rows: NDArray[np.bool_]) -> Batch:
        """The chosen rows; their bytes are not copied."""
        return Batch(self.data, self.starts[rows], self.scalars[rows])

    def integers(self, name: str) -> NDArray[np.int64]:
        """One whole-number column of all rows."""
        return np.asarray(self.scalars[name], dtype=np.int64)

    def floats(self, name: str) -> NDArray[np.float64]:
        """One column of durations of all rows; NaN where there is none."""
        return np.asarray(self.scalars[name], dtype=np.float64)

    def bodies(self) -> tuple[list[bytes | None], list[bytes | None]]:
        """The primary's and the shadow's response bodies of all rows."""
        primary, after = self._values(self.starts + _ROW.itemsize)
        return primary, self._values(after)[0]

    def request_keys(self) -> NDArray[np.int64]:
        """The first eight bytes of the SHA-256 of each primary request; 0 where there is none."""
        at = self.starts + _ROW.itemsize
        for _ in range(3):
            at = at + 4 + np.maximum(self._lengths(at), 0)
        keys = np.zeros(len(self), dtype=np.int64)
        hashed = self._lengths(at) >= 8
        octets = np.frombuffer(self.data, dtype=np.uint8)[at[hashed, None] + 4 + np.arange(8)]
        keys[hashed] = octets.view(">i8").ravel()
        return keys

    def _lengths(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The lengths that stand at these places; -1 is NULL."""
        octets = np.frombuffer(self.data, dtype=np.uint8)[at[:, None] + np.arange(4)]
        return np.asarray(octets.view(">i4").ravel(), dtype=np.int64)

    def _values(self, at: NDArray[np.int64]) -> tuple[list[bytes | None], NDArray[np.int64]]:
        """The values whose lengths stand at these places, and the places after them."""
        lengths = self._lengths(at)
        begins, ends = at + 4, at + 4 + np.maximum(lengths, 0)
        data, missing = self.data, set(np.flatnonzero(lengths < 0).tolist())
        bounds = zip(begins.tolist(), ends.tolist(), strict=True)
        values: list[bytes | None] = [data[begin:end] for begin, end in bounds]
        for row in missing:
            values[row] = None
        return values, ends

    def generated(self) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """The rows whose answers were generated, and their figures by name, as `_GENERATION` has
        them.
        """
        rows = np.flatnonzero(self.integers("flags") & GENERATED)
        at = self.starts[rows] + _ROW.itemsize
        for _ in range(6):
            at = at + 4 + np.maximum(self._lengths(at), 0)
        octets = np.frombuffer(self.data, dtype=np.uint8)
        found = octets[at[:, None] + 4 + np.arange(_GENERATION.itemsize)]
        return rows, np.ascontiguousarray(found).view(_GENERATION).ravel()

    def pair_id(self, row: int) -> str:
        return (self._texts(row)[2] or b"").decode()

    def primary_request_and_body(self, row: int) -> tuple[bytes | None, bytes | None]:
        """SHA-256 of the primary's request body, and its answer's body."""
        texts = self._texts(row)
        return texts[3], texts[0]

    def request(self, row: int) -> tuple[bytes | None, bytes | None]:
        """The primary's request body and headers as JSON text; None unless they were asked for."""
        texts = self._texts(row)
        return texts[4], texts[5]

    def _texts(self, row: int) -> list[bytes | None]:
        """All values of variable length, in the order of pairs.sql."""
        at = int(self.starts[row]) + _ROW.itemsize
        values: list[bytes | None] = []
        for _ in range(6):
            (length,) = _LENGTH(self.data, at)
            at += 4
            values.append(None if length < 0 else self.data[at : at + length])
            at += max(0, length)
        return values


@dataclass(frozen=True, slots=True)
class WholePair:
    """One pair with its bodies, as stored."""

    pair_id: str
    request_time: datetime
    primary_status: int | None
    shadow_status: int | None
    primary_duration_ms: float | None
    shadow_duration_ms: float | None
    predict_url: str | None
    """What the primary's transformer asked."""
    request: bytes | None
    primary_response: bytes | None
    shadow_response: bytes | None
    primary_error: str | None
    shadow_error: str | None
    primary_broken: bool
    """Its stream broke off, or the engine reported an error in it."""
    shadow_broken: bool


def batches(messages: Iterable[bytes]) -> Iterator[Batch]:
    """Group the messages of a binary COPY, one row each, into batches bounded in rows and bytes."""
    rows: list[bytes] = []
    size, skip = 0, HEADER_BYTES
    for message in messages:
        row = message[skip:] if skip else message
        skip = 0
        length = len(row)
        if length == TRAILER_BYTES:
            continue
        rows.append(row)
        size += length
        if len(rows) == MAX_ROWS or size > MAX_BYTES:
            yield _batch(rows)
            rows, size = [], 0
    if rows:
        yield _batch(rows)


def _batch(rows: list[bytes]) -> Batch:
    width = _ROW.itemsize
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    scalars = np.frombuffer(b"".join([row[:width] for row in rows]), dtype=_ROW)
    return Batch(b"".join(rows), np.cumsum(lengths) - lengths, scalars)
