"""What lies in a spool folder, and how much of it still waits for Postgres."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minimal_transformer.spool.format import (
    FRAME_BYTES,
    HEADER_BYTES,
    SUFFIX,
    UNFINISHED_SUFFIX,
    Header,
    Kind,
    read_frame_start,
    read_header,
)

DEAD_LETTER_FOLDER = "dead-letter"
DELIVERY_LOCK = "delivery.lock"


class Waiting(NamedTuple):
    """What is on the spool and not yet in Postgres."""

    spool_bytes: int
    oldest_us: int | None  # since the epoch


def taken_bytes(folder: Path) -> int:
    """What the folder takes of its cap: whole segments as reserved, everything else as it is.

    A file that another user owns counts with its size, and a folder of such files with nothing.
    """
    total = 0
    for entry in _files(folder):
        try:
            size = entry.stat().st_size
            if entry.name.endswith((SUFFIX, UNFINISHED_SUFFIX)):
                header = _header(Path(entry.path))
                size = max(size, header.capacity if header else 0)
            total += size
        except FileNotFoundError:  # delivered meanwhile
            continue
        except PermissionError:  # the reader says so, once
            total += size
    return total


def waiting(folder: Path) -> Waiting:
    """Bytes that are not in Postgres yet, and when the oldest record among them was made."""
    spool_bytes = 0
    times: list[int] = []
    try:
        for path in _segments(folder):
            left, time_us = _left(path)
            spool_bytes += left
            times += [] if time_us is None else [time_us]
    except OSError:  # no folder, no record
        pass
    return Waiting(spool_bytes, min(times, default=None))


def waiting_calls(folder: Path) -> int:
    """How many calls have a row that is not in Postgres yet; it reads each frame's beginning."""
    kinds: list[int] = []
    try:
        for path in _segments(folder):
            with contextlib.suppress(PermissionError):
                kinds += _waiting_kinds(path)
    except OSError:  # no folder, no record
        pass
    return max(kinds.count(Kind.REQUEST), kinds.count(Kind.RESPONSE))


def _waiting_kinds(path: Path) -> Iterator[int]:
    header = _header(path)
    size = path.stat().st_size
    if header is None or size <= header.delivered:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
        at = header.delivered
        while frame := read_frame_start(view[at : at + FRAME_BYTES]):
            yield frame.kind
            at += frame.frame_bytes


def _segments(folder: Path) -> Iterator[Path]:
    return (Path(entry.path) for entry in _files(folder) if entry.name.endswith(SUFFIX))


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry
            elif entry.name == DEAD_LETTER_FOLDER:
                with contextlib.suppress(PermissionError):  # the writer says so when it needs it
                    yield from _files(Path(entry.path))


def _header(path: Path) -> Header | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_header(descriptor)
    finally:
        os.close(descriptor)


def _left(path: Path) -> tuple[int, int | None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0, None
    try:
        size = os.fstat(descriptor).st_size
        header = read_header(descriptor)
        delivered = header.delivered if header else HEADER_BYTES
        if size <= delivered:
            return 0, None
        frame = read_frame_start(os.pread(descriptor, FRAME_BYTES, delivered))
        return size - delivered, None if frame is None else frame.time_us
    finally:
        os.close(descriptor)
