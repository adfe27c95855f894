"""The format of a spool file: a header, then records, each with its length and checksum.

    file   = header (64 bytes), frame, frame, ...
    header = magic, capacity, recorder_id, created_us   written by the owner
             delivered                                  written by the delivery process
    frame  = magic, crc32 of the rest, version, kind, length, body_at, time_us (24 bytes),
             row (`length` bytes)
    name   = <recorder_id>-<number>.seg, numbers ascending

Frames of version 1 are read as well; their response rows have three columns less (rows.completed).
A reader of that version takes frames of version 2 for damage and keeps their file.

Only the owner appends, and holds an flock on the file for as long as it may: a file that can be
locked belongs to nobody any more. `capacity` is the room that the file takes of the spool's cap;
the owner or, after its death, the delivery process lowers it to the file's size. Everything before
`delivered` is in Postgres: after a crash it may be too low, never too high.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from isal.isal_zlib import crc32

SUFFIX = ".seg"
UNFINISHED_SUFFIX = ".new"
CORRUPT_SUFFIX = ".corrupt"

_HEADER = struct.Struct("<8sQ16sQ")
_DELIVERED = struct.Struct("<Q")
_DELIVERED_AT = _HEADER.size
_CAPACITY_AT = 8
_MAGIC = b"spool\x01\r\n"
HEADER_BYTES = 64

_FRAME_START = struct.Struct("<2sI")
_FRAME_REST = struct.Struct("<BBIIq")
_FRAME = struct.Struct("<2sIBBIIq")
_FRAME_MAGIC = b"\xf5R"
_VERSION = 2
_READ_VERSIONS = (1, 2)
FRAME_BYTES = _FRAME.size
# Longer than any record: its body is at most 64 MiB, its JSON form some times that.
MAX_ROW_BYTES = 1 << 30
_LONG_BYTES = 16 * 1024
_SALVAGE_PASSES = 8
_ID_WITHIN_BYTES = 128

# What is to be written, for the kernel to gather, and how many bytes that is.
Pieces = tuple[list[bytes], int]


class Kind(IntEnum):
    REQUEST = 1
    RESPONSE = 2


@dataclass(frozen=True, slots=True)
class Header:
    capacity: int
    recorder_id: bytes
    created_us: int
    delivered: int


class FrameStart(NamedTuple):
    kind: int
    frame_bytes: int
    time_us: int  # when the record was made, since the epoch


class Frame(NamedTuple):
    """One whole row of a segment, and where it was."""

    kind: int
    row: memoryview
    body_at: int  # where its body begins in the row
    end: int  # where it ends in its file
    origin: Any  # whatever its reader knows the file by


def encode_header(capacity: int, recorder_id: bytes, created_us: int) -> bytes:
    start = _HEADER.pack(_MAGIC, capacity, recorder_id, created_us)
    return (start + _DELIVERED.pack(HEADER_BYTES)).ljust(HEADER_BYTES, b"\0")


def read_header(descriptor: int) -> Header | None:
    """The header of an open file; None when the file is not a segment."""
    text = os.pread(descriptor, HEADER_BYTES, 0)
    if len(text) < HEADER_BYTES or not text.startswith(_MAGIC):
        return None
    _, capacity, recorder_id, created_us = _HEADER.unpack_from(text)
    (delivered,) = _DELIVERED.unpack_from(text, _DELIVERED_AT)
    return Header(capacity, recorder_id, created_us, max(HEADER_BYTES, delivered))


def file_name(recorder_id: bytes, number: int) -> str:
    """Name of a recorder's segment without its suffix."""
    return f"{recorder_id.hex()}-{number:08d}"


def recorder_of(name: str) -> bytes | None:
    """The recorder whose segment has this name; None when it is not a segment's name."""
    recorder, _, number = name.removesuffix(SUFFIX).partition("-")
    try:
        return bytes.fromhex(recorder) if number.isdecimal() else None
    except ValueError:
        return None


def write_capacity(descriptor: int, capacity: int) -> None:
    os.pwrite(descriptor, _DELIVERED.pack(capacity), _CAPACITY_AT)


def write_delivered(descriptor: int, offset: int) -> None:
    os.pwrite(descriptor, _DELIVERED.pack(offset), _DELIVERED_AT)


def seed_of(recorder_id: bytes) -> int:
    """What the checksums of a recorder's frames start from.

    A caller cannot know it, so that a body which contains a frame is never taken for one, even when
    the record around it is torn.
    """
    return crc32(recorder_id)


def encode_frame(kind: int, time_us: int, row: Sequence[bytes], seed: int) -> Pieces:
    """The frame of a row that is given in pieces; the body begins after the first.

    A short one comes in one piece, which is faster, a long one without copying the body.
    """
    length = sum(map(len, row))
    rest = _FRAME_REST.pack(_VERSION, kind, length, len(row[0]), time_us)
    if length < _LONG_BYTES:
        whole = b"".join((rest, *row))
        start = _FRAME_START.pack(_FRAME_MAGIC, crc32(whole, seed))
        return [start + whole], FRAME_BYTES + length
    checksum = crc32(rest, seed)
    for piece in row:
        checksum = crc32(piece, checksum)
    start = _FRAME_START.pack(_FRAME_MAGIC, checksum)
    return [start + rest, *row], FRAME_BYTES + length


def read_frame_start(start: bytes) -> FrameStart | None:
    """What a frame that starts so says of itself, unchecked; None when no frame does."""
    if len(start) < FRAME_BYTES:
        return None
    magic, _, version, kind, length, _, time_us = _FRAME.unpack_from(start)
    if magic != _FRAME_MAGIC or version not in _READ_VERSIONS:
        return None
    if kind not in (1, 2) or length > MAX_ROW_BYTES:
        return None
    return FrameStart(kind, FRAME_BYTES + length, time_us)


def frames(
    data: bytes | memoryview, base: int, seed: int, origin: object = None
) -> Iterator[Frame]:
    """The whole and sound records that `data`, read at offset `base` of `origin`, begins with."""
    view = memoryview(data)
    position = 0
    size = len(view)
    unpack = _FRAME.unpack_from
    while position + FRAME_BYTES <= size:
        magic, expected, version, kind, length, body_at, _ = unpack(view, position)
        start = position + FRAME_BYTES
        end = start + length
        if magic != _FRAME_MAGIC or version not in _READ_VERSIONS or end > size:
            return
        if crc32(view[position + _FRAME_START.size : end], seed) != expected:
            return
        position = end
        yield Frame(kind, view[start:end], body_at, base + end, origin)


def find_frame(data: bytes, seed: int, recorder_id: bytes) -> int | None:
    """Where the first whole and sound record after the first byte begins; None without one.

    Bodies may hold what looks like frames, and each would cost a checksum of all that it claims to
    hold. So what is checksummed has a limit of a few times the data; past it only frames are tried
    that begin with their recorder's id, as requests do and no caller can.
    """
    view = memoryview(data)
    budget = _SALVAGE_PASSES * len(data)
    start = 0
    while (start := data.find(_FRAME_MAGIC, start + 1)) >= 0:
        frame = read_frame_start(data[start : start + FRAME_BYTES])
        if frame is None or start + frame.frame_bytes > len(data):
            continue
        if frame.frame_bytes <= budget:
            budget -= frame.frame_bytes
        elif recorder_id not in data[start : start + _ID_WITHIN_BYTES]:
            continue
        if next(frames(view[start : start + frame.frame_bytes], 0, seed), None) is not None:
            return start
    return None


def lock(descriptor: int) -> bool:
    """Take the file's lock and with it its owner's place; False while its owner lives."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000
