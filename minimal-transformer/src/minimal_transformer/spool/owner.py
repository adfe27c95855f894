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
from pathlib import Path

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
        self._unsynced: list[int] = []
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

    def close(self) -> None:
        """Leave the files to the delivery process; a later append opens a new one."""
        if self.segment is not None:
            with contextlib.suppress(OSError):
                self._replace_if_deleted(self.segment)
            current, self.segment = self.segment, None
            self._leave(current)

    def take_unsynced(self) -> list[int]:
        """Descriptors that a sync must cover, the caller's to sync and to close."""
        taken, self._unsynced = self._unsynced, []
        if self.segment is not None:
            taken.append(os.dup(self.segment.descriptor))
        return taken

    def _replace_if_deleted(self, current: Segment) -> None:
        """Where somebody deleted our file, put what was not delivered of it in a new one."""
        self._look_at = time.monotonic() + LOOK_SECONDS
        if current.is_gone():
            left = current.undelivered()
            self._roll(len(left)).append(([left], len(left)))

    def _leave(self, current: Segment) -> None:
        # Closing frees the lock: from then on delivery may seal and delete the file. What is still
        # to be synced of it keeps a descriptor of its own.
        if self._keeps_unsynced:
            self._unsynced.append(os.dup(current.descriptor))
        try:
            current.close()
        except OSError as error:  # delivery seals it when this process ends
            logger.warning("%s could not be closed cleanly: %s", current.path, error)

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
        try:
            fresh = self._create(self._what_disk_allows(capacity, needed))
        except OSError:
            self._refused_capacity = capacity
            self._retry_at = now + RETRY_SECONDS
            raise
        previous, self.segment = self.segment, fresh
        if previous is not None:
            self._leave(previous)
        if self._keeps_unsynced:  # the new file's name must survive as well
            self._unsynced.append(os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC))
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

    def close(self) -> None:
        """Give back the room that is left and leave the file to the delivery process.

        That also frees the blocks past the file's end, which takes a file system milliseconds.
        """
        try:
            write_capacity(self.descriptor, self.end)
        finally:
            os.close(self.descriptor)


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

    def __init__(self, take_unsynced: Callable[[], list[int]]) -> None:
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
        sync = covered.get_loop().run_in_executor(self._thread, _sync, self._take_unsynced())
        sync.add_done_callback(self._finished)

    def _finished(self, sync: asyncio.Future[str | None]) -> None:
        if (error := sync.result()) is not None:
            self._failing.hit(f"SPOOL_FSYNC: the disk refuses to sync: {error}; look at the disk.")
        else:
            self._failing.passed()
        covered, self._running, self._next = self._running, self._next, None
        if covered is not None and not covered.done():
            covered.set_result(None)
        if self._running is not None:
            self._start(self._running)


def _sync(descriptors: list[int]) -> str | None:
    """Sync and close; what was wrong, if anything: an answer outranks its record."""
    error = None
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        except OSError as fault:
            error = str(fault)
        finally:
            os.close(descriptor)
    return error
