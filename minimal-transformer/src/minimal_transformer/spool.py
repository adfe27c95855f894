"""One process' side of the spool: append-only files of its own in a folder that others share.

A record is in the kernel's page cache before `append_*` returns, so that no death of the process
loses it. Room is taken of the folder's cap a segment at a time, so that appending needs no look at
the other processes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from minimal_transformer import folder as spool_folder
from minimal_transformer import segment
from minimal_transformer.record import now_us

MAX_SEGMENT_BYTES = 16 * 1024 * 1024
# A response row without its body fits in this, so that an admitted call always gets one.
RESPONSE_RESERVE = 640
# A full folder is looked at again this often, not for each call that it cannot take.
RETRY_SECONDS = 0.05


# A frame in pieces, as the kernel gathers them.
Frame = list[bytes]


class SpoolFull(OSError):
    """The spool's cap leaves no room for another segment."""


class Segment:
    """An open segment of this process; only it appends to the file."""

    def __init__(self, path: Path, descriptor: int, capacity: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.capacity = capacity
        self.end = segment.HEADER_BYTES

    def append(self, frame: Frame, size: int) -> None:
        """Put a frame at the end, whole or not at all; OSError when the folder does not take it."""
        written = -1
        try:
            written = os.pwritev(self.descriptor, frame, self.end)
            if written == size:
                self.end += written
                return
        finally:
            if written != size:
                os.ftruncate(self.descriptor, self.end)
        raise SpoolFull(f"only {written} of {size} bytes could be written to {self.path}")

    def is_gone(self) -> bool:
        """Whether somebody deleted the file: what is appended to it would be lost."""
        return os.fstat(self.descriptor).st_nlink == 0

    def close(self) -> None:
        """Give back the room that is left and leave the file to the delivery process."""
        try:
            segment.write_capacity(self.descriptor, self.end)
            os.ftruncate(self.descriptor, self.end)  # frees blocks that were reserved past the end
        finally:
            os.close(self.descriptor)


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
        self._keeps_unsynced = keeps_unsynced
        self._unsynced: list[int] = []
        self.segment: Segment | None = None
        self.unanswered = 0  # calls whose response row is still to come

    def append_request(self, frame: Frame) -> None:
        """Put a request row on the spool and keep room for its response; OSError when it is dropped."""
        size = sum(map(len, frame))
        needed = size + (self.unanswered + 1) * RESPONSE_RESERVE
        self._with_room(needed).append(frame, size)
        self.unanswered += 1

    def append_response(self, frame: Frame, without_body: Callable[[], Frame]) -> None:
        """Put a response row on the spool, without its body where that has no room.

        OSError only when the folder itself fails.
        """
        self.unanswered -= 1
        size = sum(map(len, frame))
        try:
            chosen = self._with_room(size + self.unanswered * RESPONSE_RESERVE)
        except OSError:
            if self.segment is None:
                raise
            chosen, frame = self.segment, without_body()
            size = sum(map(len, frame))
        chosen.append(frame, size)

    def close(self) -> None:
        """Leave the files to the delivery process; a later append opens a new one."""
        if self.segment is not None:
            current, self.segment = self.segment, None
            self._leave(current)

    def take_unsynced(self) -> list[int]:
        """Descriptors that a sync must cover, the caller's to sync and to close."""
        taken, self._unsynced = self._unsynced, []
        if self.segment is not None:
            taken.append(os.dup(self.segment.descriptor))
        return taken

    def _leave(self, current: Segment) -> None:
        if self._keeps_unsynced:
            self._unsynced.append(os.dup(current.descriptor))
        current.close()

    def _with_room(self, needed: int) -> Segment:
        current = self.segment
        if current is not None and current.is_gone():
            self.segment = None
            os.close(current.descriptor)
            current = None
        if current is not None and current.end + needed <= current.capacity:
            return current
        return self._roll(needed)

    def _roll(self, needed: int) -> Segment:
        now = time.monotonic()
        if now < self._retry_at:
            raise SpoolFull(f"{self._folder} had no room a moment ago")
        capacity = max(self._segment_bytes, segment.HEADER_BYTES + needed)
        try:
            fresh = self._create(capacity)
        except OSError:
            if capacity == self._segment_bytes:
                self._retry_at = now + RETRY_SECONDS
            raise
        previous, self.segment = self.segment, fresh
        if previous is not None:
            self._leave(previous)
        if self._keeps_unsynced:  # the new file's name must survive as well
            self._unsynced.append(os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC))
        return fresh

    def _create(self, capacity: int) -> Segment:
        """A new segment of that capacity; SpoolFull when it would break the cap."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = segment.file_name(self._recorder_id, self._number + 1)
        unfinished = self._folder / (name + segment.UNFINISHED_SUFFIX)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, 0o640)
        try:
            if not segment.lock(descriptor):
                raise SpoolFull(f"another process holds {unfinished}")
            os.write(descriptor, segment.encode_header(capacity, self._recorder_id, now_us()))
            # Ours is counted before we count: of two processes that both reach for the last room,
            # at least one sees the other, so that the cap holds without a lock.
            if (taken := spool_folder.taken_bytes(self._folder)) > self._max_bytes:
                raise SpoolFull(
                    f"{taken - capacity} of SPOOL_MAX_BYTES={self._max_bytes} are taken"
                )
            _reserve(descriptor, capacity)
            path = unfinished.with_suffix(segment.SUFFIX)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._number += 1
        return Segment(path, descriptor, capacity)


def _reserve(descriptor: int, capacity: int) -> None:
    """Have the file system set blocks aside, so that a disk that others fill costs no response row.

    The file's size stays as it is. Where this is not Linux or the file system cannot, nothing is set
    aside. OSError (ENOSPC) when there are not so many blocks.
    """
    if not sys.platform.startswith("linux"):
        return
    keep_size = 1  # FALLOC_FL_KEEP_SIZE
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if fallocate(descriptor, keep_size, 0, capacity) != 0:
        number = ctypes.get_errno()
        if number not in (95, 38):  # EOPNOTSUPP, ENOSYS
            raise OSError(number, os.strerror(number))
