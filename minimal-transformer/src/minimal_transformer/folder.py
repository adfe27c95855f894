"""What lies in a spool folder, and how much of it still waits for Postgres."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimal_transformer import segment

DEAD_LETTER_FOLDER = "dead-letter"
DELIVERY_LOCK = "delivery.lock"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is on the spool and not yet in Postgres."""

    spool_bytes: int
    oldest_us: int | None  # since the epoch


def taken_bytes(folder: Path) -> int:
    """What the folder takes of its cap: whole segments as reserved, everything else as it is."""
    total = 0
    for entry in _files(folder):
        try:
            size = entry.stat().st_size
            if entry.name.endswith((segment.SUFFIX, segment.UNFINISHED_SUFFIX)):
                header = _header(entry.path)
                size = max(size, header.capacity if header else 0)
            total += size
        except FileNotFoundError:  # delivered meanwhile
            continue
    return total


def waiting(folder: Path) -> Waiting:
    """Bytes that are not in Postgres yet, and when the oldest record among them was made."""
    spool_bytes = 0
    oldest_us: int | None = None
    try:
        for entry in _files(folder):
            if not entry.name.endswith(segment.SUFFIX):
                continue
            left, time_us = _left(entry.path)
            spool_bytes += left
            if time_us is not None:
                oldest_us = time_us if oldest_us is None else min(oldest_us, time_us)
    except OSError:  # no folder, no record
        pass
    return Waiting(spool_bytes, oldest_us)


def waiting_calls(folder: Path) -> int:
    """How many calls have a row that is not in Postgres yet; it reads each frame's beginning."""
    requests = responses = 0
    try:
        for entry in _files(folder):
            if entry.name.endswith(segment.SUFFIX):
                for kind in _waiting_kinds(Path(entry.path)):
                    requests += kind == segment.Kind.REQUEST
                    responses += kind == segment.Kind.RESPONSE
    except OSError:  # no folder, no record
        pass
    return max(requests, responses)


def _waiting_kinds(path: Path) -> Iterator[int]:
    header = _header(str(path))
    size = path.stat().st_size
    if header is None or size <= header.delivered:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
        at = header.delivered
        while kind := segment.frame_kind(start := view[at : at + segment.FRAME_BYTES]):
            yield kind
            at += segment.declared_frame_bytes(start) or 0


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                yield entry
            elif entry.name == DEAD_LETTER_FOLDER:
                yield from _files(Path(entry.path))


def _header(path: str) -> segment.Header | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return segment.read_header(descriptor)
    finally:
        os.close(descriptor)


def _left(path: str) -> tuple[int, int | None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0, None
    try:
        size = os.fstat(descriptor).st_size
        header = segment.read_header(descriptor)
        delivered = header.delivered if header else segment.HEADER_BYTES
        if size <= delivered:
            return 0, None
        start = os.pread(descriptor, segment.FRAME_BYTES, delivered)
        return size - delivered, segment.frame_time_us(start)
    finally:
        os.close(descriptor)
