"""Counters that several processes add to and any of them can read, each in a file of its own.

They live in a temporary folder and not on the spool, so that they also count when the spool's disk
is full or read-only.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import shutil
import tempfile
import uuid
from pathlib import Path

from minimal_transformer import segment

SPOOLED, WRITTEN, DROPPED, DEAD_LETTER, WRITE_ERRORS = range(5)
_COUNT = 5
_BYTES = _COUNT * 8
FOLDER_VARIABLE = "PREDICTION_DB_COUNTERS"

_PREFIX = "minimal-transformer-"
_LOCK = "lock"


def new_folder() -> Path:
    """A place for the counters of a server and its children; nothing is made there yet."""
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:  # none can be written: each process counts for itself
        temporary = Path("/tmp")  # noqa: S108
    return temporary / f"{_PREFIX}{uuid.uuid4().hex}"


def claim(folder: Path) -> None:
    """Keep the folder until this process ends; what killed processes left behind is removed.

    Its lock says that somebody lives who counts there. It gets its name when it is held already, so
    that nobody else's claim() finds it free.
    """
    for lock in folder.parent.glob(f"{_PREFIX}*/{_LOCK}"):
        _remove_if_left(lock)
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        unheld = folder / f"{_LOCK}.new"
        segment.lock(os.open(unheld, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        unheld.rename(folder / _LOCK)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _remove_if_left(lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # another user's, or gone
        return
    try:
        if segment.lock(descriptor):
            shutil.rmtree(lock.parent, ignore_errors=True)
    finally:
        os.close(descriptor)


class Counters:
    """This process' counters; `add` costs a memory write."""

    def __init__(self, folder: Path | None) -> None:
        self._map: mmap.mmap | bytearray
        try:
            if folder is None:
                raise FileNotFoundError
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, _ = tempfile.mkstemp(
                prefix=f"{os.getpid()}-", suffix=".counters", dir=folder
            )
            try:
                os.ftruncate(descriptor, _BYTES)
                self._map = mmap.mmap(descriptor, _BYTES)
            finally:
                os.close(descriptor)
            self._folder: Path | None = folder
        except OSError:  # no temporary folder: this process' own figures are all there is
            self._map = bytearray(_BYTES)
            self._folder = None
        # One aligned 8-byte store each, so that a reader never sees half a number.
        self._slots = memoryview(self._map).cast("q")

    def add(self, counter: int, amount: int = 1) -> None:
        self._slots[counter] += amount

    def totals(self) -> list[int]:
        """Each counter over all processes, the dead included."""
        if self._folder is None:
            return list(self._slots)
        totals = [0] * _COUNT
        for path in self._folder.glob("*.counters"):
            values = memoryview(path.read_bytes().ljust(_BYTES, b"\0")[:_BYTES]).cast("q")
            totals = [total + value for total, value in zip(totals, values, strict=True)]
        return totals
