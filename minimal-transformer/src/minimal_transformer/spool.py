"""One process' side of the spool: append-only files of its own in a folder that others share.

A record is in the kernel's page cache before `append_*` returns, so that no death of the process
loses it. Room is taken of the folder's cap a segment at a time, so that appending needs no look at
the other processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from minimal_transformer import folder as spool_folder
from minimal_transformer import segment
from minimal_transformer.record import now_us
from minimal_transformer.segment_file import Segment, SpoolFull, reserve

logger = logging.getLogger("minimal_transformer.recording")

MAX_SEGMENT_BYTES = 16 * 1024 * 1024
# A response row without its body fits in this, so that an admitted call always gets one.
RESPONSE_RESERVE = 640
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
        self.unanswered = 0  # calls whose response row is still to come

    def append_request(self, frame: segment.Pieces) -> None:
        """Put a request row on the spool and keep room for its response; OSError if dropped."""
        if self.segment is not None and time.monotonic() >= self._look_at:
            self._replace_if_deleted(self.segment)
        needed = frame[1] + (self.unanswered + 1) * RESPONSE_RESERVE
        self._with_room(needed).append(frame)
        self.unanswered += 1

    def append_response(
        self, frame: segment.Pieces, without_body: Callable[[], segment.Pieces]
    ) -> None:
        """Put a response row on the spool, without its body where that has no room.

        OSError only when the folder itself fails.
        """
        self.unanswered -= 1
        try:
            chosen = self._with_room(frame[1] + self.unanswered * RESPONSE_RESERVE)
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
        spare = segment.HEADER_BYTES + self._segment_bytes // 2
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
        smallest = needed + segment.HEADER_BYTES + SMALLEST_SPARE_BYTES
        return min(capacity, max(smallest, disk.f_bavail * disk.f_frsize // 2))

    def _create(self, capacity: int) -> Segment:
        """A new segment of that capacity; SpoolFull when it would break the cap."""
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
            reserve(descriptor, capacity)
            path = unfinished.with_suffix(segment.SUFFIX)
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        self._number += 1
        return Segment(path, descriptor, capacity)
