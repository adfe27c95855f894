"""A segment that this process appends to, and the blocks that the disk keeps for it."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from minimal_transformer import segment


class SpoolFull(OSError):
    """The spool's cap leaves no room for another segment."""


class Segment:
    """An open segment of this process; only it appends to the file."""

    def __init__(self, path: Path, descriptor: int, capacity: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.capacity = capacity
        self.end = segment.HEADER_BYTES

    def append(self, frame: segment.Pieces) -> None:
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
        header = segment.read_header(self.descriptor)
        start = header.delivered if header else segment.HEADER_BYTES
        return os.pread(self.descriptor, self.end - start, start)

    def close(self) -> None:
        """Give back the room that is left and leave the file to the delivery process.

        That also frees the blocks past the file's end, which takes a file system milliseconds.
        """
        try:
            segment.write_capacity(self.descriptor, self.end)
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
