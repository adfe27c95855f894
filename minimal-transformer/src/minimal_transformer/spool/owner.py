"""One process' side of the spool: append-only files of its own in a folder that others share.

A record is in the kernel's page cache before `append_*` returns, so that no death of the process
loses it. Room is taken of the folder's cap a segment at a time, so that appending needs no look at
the other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from minimal_transformer.logs import Episode
from minimal_transformer.spool.folder import taken_bytes
from minimal_transformer.spool.format import (
    HEADER_BYTES,
    SUFFIX,
    UNFINISHED_SUFFIX,
    Pieces,
    encode_header,
    file_name,
    lock,
    now_us,
    read_header,
    write_capacity,
)

logger = logging.getLogger("minimal_transformer.recording")

MAX_SEGMENT_BYTES = 16 * 1024 * 1024
# A response row without its body fits in this and its pair id, so that an admitted call always gets
# one.
RESPONSE_RESERVE = 800
# Of the smallest segment, which a disk with little room gets.
SMALLEST_SPARE_BYTES = 64 * 1024
# A full folder is looked at again this often, not for each call that it cannot take.
RETRY_SECONDS = 0.05
# How often the file is looked for; what was appended since it was deleted goes to the next one.
LOOK_SECONDS = 0.1


class Spool:
    """The segments of one recorder, oldest first; not safe for threads."""

    def __init__(
        self, folder: Path, max_bytes: int, recorder_id: bytes, keeps_unsynced: bool = False
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(MAX_SEGMENT_BYTES, max_bytes // 16)
        self._recorder_id = recorder_id
        self._number = 0
        self._retry_at = 0.0
        self._look_at = 0.0
        self._refused_capacity = 0
        self._keeps_unsynced = keeps_unsynced
        self._left: list[int] = []
        self._has_new_name = False
        self._reserve = DescriptorReserve()
        self.segment: Segment | None = None
        self.reserved_bytes = 0  # for the response rows that are still to come

    def append_request(self, frame: Pieces, response_bytes: int) -> None:
        """Put a request row on the spool and keep room for its response; OSError if dropped."""
        if self.segment is not None and time.monotonic() >= self._look_at:
            self._replace_if_deleted(self.segment)
        needed = frame[1] + self.reserved_bytes + response_bytes
        self._with_room(needed).append(frame)
        self.reserved_bytes += response_bytes

    def append_response(
        self, frame: Pieces, response_bytes: int, without_body: Callable[[], Pieces]
    ) -> None:
        """Put a response row on the spool, without its body where that has no room.

        `response_bytes` as its request gave them. OSError only when the folder itself fails.
        """
        self.reserved_bytes -= response_bytes
        try:
            chosen = self._with_room(frame[1] + self.reserved_bytes)
        except OSError:
            if self.segment is None:
                raise
            chosen, frame = self.segment, without_body()
        chosen.append(frame)

    def release_response(self, response_bytes: int) -> None:
        """Keep no room any more for a response row that cannot be made."""
        self.reserved_bytes -= response_bytes

    def close(self) -> None:
        """Leave the files to the delivery process; a later append opens a new one."""
        if self.segment is not None:
            with contextlib.suppress(OSError):
                self._replace_if_deleted(self.segment)
            current, self.segment = self.segment, None
            self._leave(current)
        self._reserve.release()

    def take_unsynced(self) -> Unsynced:
        """What a sync must cover now; the next sync covers what comes later.

        The descriptors of segments that were left pass to the caller. The current segment's stays
        ours: its file is closed by the sync after the one that runs when it is left, at the
        earliest, so that a sync needs no descriptor of its own and none can be missing.
        """
        left, self._left = self._left, []
        folder, self._has_new_name = (self._folder if self._has_new_name else None), False
        current = None if self.segment is None else self.segment.descriptor
        return Unsynced(left, current, folder)

    def _replace_if_deleted(self, current: Segment) -> None:
        """Where somebody deleted our file, put what was not delivered of it in a new one."""
        self._look_at = time.monotonic() + LOOK_SECONDS
        if current.is_gone():
            left = current.undelivered()
            self._roll(len(left)).append(([left], len(left)))

    def _leave(self, current: Segment) -> None:
        try:
            current.give_back_room()
        except OSError as error:  # delivery does it when this process ends
            logger.warning("%s could not be closed cleanly: %s", current.path, error)
        # Closing frees the lock: from then on delivery may seal and delete the file. Where a sync
        # is still to cover it, the sync closes it.
        if self._keeps_unsynced:
            self._left.append(current.descriptor)
        else:
            os.close(current.descriptor)

    def _with_room(self, needed: int) -> Segment:
        current = self.segment
        if current is not None and current.end + needed <= current.capacity:
            return current
        return self._roll(needed)

    def _roll(self, needed: int) -> Segment:
        now = time.monotonic()
        # With room to spare, so that many unanswered calls do not make a segment of each request.
        spare = HEADER_BYTES + self._segment_bytes // 2
        capacity = max(self._segment_bytes, needed + spare)
        if now < self._retry_at and capacity * 2 > self._refused_capacity:
            raise SpoolFull(f"{self._folder} had no room a moment ago")
        self._reserve.refill()
        try:
            allowed = self._what_disk_allows(capacity, needed)
            try:
                fresh = self._create(allowed)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._reserve.release()
                fresh = self._create(allowed)
        except OSError:
            self._refused_capacity = capacity
            self._retry_at = now + RETRY_SECONDS
            raise
        previous, self.segment = self.segment, fresh
        if previous is not None:
            self._leave(previous)
        self._has_new_name = True  # it must survive as well
        return fresh

    def _what_disk_allows(self, capacity: int, needed: int) -> int:
        """That capacity, or less on a small disk.

        At most half of what is left: an owner leaves a full segment only for a fresh one, so one
        segment with all of the disk would never be left, and its room never be free again.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(self._folder)
        if disk.f_blocks == 0:  # a file system without a size
            return capacity
        smallest = needed + HEADER_BYTES + SMALLEST_SPARE_BYTES
        return min(capacity, max(smallest, disk.f_bavail * disk.f_frsize // 2))

    def _create(self, capacity: int) -> Segment:
        """A new segment of that capacity; SpoolFull when it would break the cap."""
        name = file_name(self._recorder_id, self._number + 1)
        unfinished = self._folder / (name + UNFINISHED_SUFFIX)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, 0o640)
        try:
            if not lock(descriptor):
                raise SpoolFull(f"another process holds {unfinished}")
            os.write(descriptor, encode_header(capacity, self._recorder_id, now_us()))
            # Ours is counted before we count: of two processes that both reach for the last room,
            # at least one sees the other, so that the cap holds without a lock.
            if (taken := taken_bytes(self._folder)) > self._max_bytes:
                raise SpoolFull(
                    f"{taken - capacity} of SPOOL_MAX_BYTES={self._max_bytes} are taken"
                )
            reserve(descriptor, capacity)
            path = unfinished.with_suffix(SUFFIX)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._number += 1
        return Segment(path, descriptor, capacity)


class Unsynced(NamedTuple):
    """What SPOOL_FSYNC=1 has to bring to the disk."""

    left: list[int]  # segments that were left; whoever takes this closes them
    current: int | None
    folder: Path | None  # where a new file's name is not on the disk yet


class DescriptorReserve:
    """Descriptors for the next segment, for when callers' connections have taken all others."""

    # The segment's own, and the folders and the header that are read while it is made.
    COUNT = 4

    def __init__(self) -> None:
        self._held: list[int] = []
        self.refill()

    def refill(self) -> None:
        """Hold them, or as many as there are."""
        with contextlib.suppress(OSError):
            while len(self._held) < self.COUNT:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def release(self) -> None:
        """Let go of them: the next files that this thread opens get their places."""
        while self._held:
            os.close(self._held.pop())


class SpoolFull(OSError):
    """The spool's cap leaves no room for another segment."""


class Segment:
    """An open segment of this process; only it appends to the file."""

    def __init__(self, path: Path, descriptor: int, capacity: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.capacity = capacity
        self.end = HEADER_BYTES

    def append(self, frame: Pieces) -> None:
        """Put a frame at the end, whole or not at all; OSError when the folder does not take it."""
        pieces, size = frame
        written = -1
        try:
            written = os.pwritev(self.descriptor, pieces, self.end)
            if written == size:
                self.end += written
                return
        finally:
            if written != size:
                os.ftruncate(self.descriptor, self.end)
        raise SpoolFull(f"only {written} of {size} bytes could be written to {self.path}")

    def is_gone(self) -> bool:
        """Whether somebody deleted the file, so that delivery does not find what is in it."""
        return os.fstat(self.descriptor).st_nlink == 0

    def undelivered(self) -> bytes:
        """The frames that are not known to be in Postgres."""
        header = read_header(self.descriptor)
        start = header.delivered if header else HEADER_BYTES
        return os.pread(self.descriptor, self.end - start, start)

    def give_back_room(self) -> None:
        """Take no more room of the spool's cap than the file's size."""
        write_capacity(self.descriptor, self.end)


def reserve(descriptor: int, capacity: int) -> None:
    """Have the file system set blocks aside, so that a disk that others fill costs no response row.

    The file's size stays as it is. Where this is not Linux or the file system cannot, nothing is
    set aside. OSError (ENOSPC) when there are not so many blocks.
    """
    if not sys.platform.startswith("linux"):
        return
    keep_size = 1  # FALLOC_FL_KEEP_SIZE
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(descriptor, keep_size, 0, capacity) != 0:
        number = ctypes.get_errno()
        if number not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            raise OSError(number, os.strerror(number))


class GroupCommit:
    """SPOOL_FSYNC=1: an answer waits until its records are on the disk; many answers share a sync.

    It runs in one thread, never on the event loop. One per process and event loop.
    """

    def __init__(self, take_unsynced: Callable[[], Unsynced]) -> None:
        self._take_unsynced = take_unsynced
        self._thread = ThreadPoolExecutor(1, "spool-fsync")
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._failing = Episode(logger, "the disk syncs the spool again; %d syncs had failed")

    async def wait(self) -> None:
        """Returns when all that was appended before the call is on the disk, or cannot be."""
        if self._running is None:
            covering = self._running = asyncio.get_running_loop().create_future()
            self._start(covering)
        else:  # it may have begun before our records were appended
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            covering = self._next
        await asyncio.shield(covering)

    def _start(self, covered: asyncio.Future[None]) -> None:
        try:
            work = partial(_sync, self._take_unsynced())
            sync = covered.get_loop().run_in_executor(self._thread, work)
        except Exception as fault:  # whoever waits is answered, whatever is wrong
            sync = covered.get_loop().create_future()
            sync.set_result(f"{type(fault).__name__}: {fault}")
        sync.add_done_callback(self._finished)

    def _finished(self, sync: asyncio.Future[str | None]) -> None:
        fault = None if sync.cancelled() else sync.exception()
        error = str(fault) if sync.cancelled() or fault else sync.result()
        if error is not None:
            self._failing.hit(f"SPOOL_FSYNC: the disk refuses to sync: {error}; look at the disk.")
        else:
            self._failing.passed()
        covered, self._running, self._next = self._running, self._next, None
        if covered is not None and not covered.done():
            covered.set_result(None)
        if self._running is not None:
            self._start(self._running)


def _sync(what: Unsynced) -> str | None:
    """Sync it all; what was wrong, if anything: an answer outranks its record."""
    errors = [_fault(os.fsync, descriptor) for descriptor in what.left]
    if what.current is not None:
        errors.append(_fault(os.fsync, what.current))
    if what.folder is not None:
        errors.append(_fault(_sync_folder, what.folder))
    errors += [_fault(os.close, descriptor) for descriptor in what.left]
    return next((error for error in errors if error), None)


def _fault(work: Callable[[Any], object], on: object) -> str | None:
    try:
        work(on)
    except OSError as fault:
        return str(fault)
    return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
