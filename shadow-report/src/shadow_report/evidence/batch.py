"""A batch of pairs as Postgres sends it in binary COPY: scalars as one array, bodies on demand."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 8192
# Bodies may be a megabyte each; a batch must not hold thousands of those.
MAX_BYTES = 16 << 20

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER_BYTES = 19
TRAILER = b"\xff\xff"

NO_CALL = -1
NO_ANSWER = 0
NO_TIME = np.iinfo(np.int64).min

SAME_REQUEST, PRIMARY_CUT, SHADOW_CUT = 1, 2, 4

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Some pairs; entry i of every array is row i. Times are microseconds since 2000-01-01 UTC."""

    rows: list[bytes]
    scalars: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.rows)

    def integers(self, name: str) -> NDArray[np.int64]:
        """One whole-number column of all rows."""
        return np.asarray(self.scalars[name], dtype=np.int64)

    def floats(self, name: str) -> NDArray[np.float64]:
        """One column of durations of all rows; NaN where there is none."""
        return np.asarray(self.scalars[name], dtype=np.float64)

    def bodies(self, row: int) -> tuple[bytes | None, bytes | None]:
        """The primary's and the shadow's response body."""
        data = self.rows[row]
        at = _ROW.itemsize
        (length,) = _LENGTH(data, at)
        at += 4
        primary = None
        if length >= 0:
            primary = data[at : at + length]
            at += length
        (length,) = _LENGTH(data, at)
        return primary, None if length < 0 else data[at + 4 : at + 4 + length]

    def pair_id(self, row: int) -> str:
        return (self._texts(row)[2] or b"").decode()

    def request_hash(self, row: int) -> bytes | None:
        """SHA-256 of the primary's request body."""
        return self._texts(row)[3]

    def request(self, row: int) -> tuple[bytes | None, bytes | None]:
        """The primary's request body and headers as JSON text; None unless they were asked for."""
        texts = self._texts(row)
        return texts[4], texts[5]

    def _texts(self, row: int) -> list[bytes | None]:
        data, at = self.rows[row], _ROW.itemsize
        values: list[bytes | None] = []
        for _ in range(6):
            (length,) = _LENGTH(data, at)
            at += 4
            values.append(None if length < 0 else data[at : at + length])
            at += max(0, length)
        return values


def batches(messages: Iterable[bytes | bytearray | memoryview]) -> Iterator[Batch]:
    """Group the messages of a binary COPY, one row each, into batches bounded in rows and bytes."""
    rows: list[bytes] = []
    size = 0
    for message in messages:
        row = bytes(message)
        if row.startswith(SIGNATURE):
            row = row[HEADER_BYTES:]
        if row == TRAILER or not row:
            continue
        rows.append(row)
        size += len(row)
        if len(rows) == MAX_ROWS or size > MAX_BYTES:
            yield _batch(rows)
            rows, size = [], 0
    if rows:
        yield _batch(rows)


def _batch(rows: list[bytes]) -> Batch:
    width = _ROW.itemsize
    scalars = np.frombuffer(b"".join([row[:width] for row in rows]), dtype=_ROW)
    return Batch(rows, scalars)
