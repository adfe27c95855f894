"""Reads the spool's segments in their recorders' order, and remembers what Postgres has of them."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from minimal_transformer.spool.folder import DEAD_LETTER_FOLDER
from minimal_transformer.spool.format import (
    CORRUPT_SUFFIX,
    FRAME_BYTES,
    HEADER_BYTES,
    SUFFIX,
    UNFINISHED_SUFFIX,
    Frame,
    find_frame,
    frames,
    lock,
    read_frame_start,
    read_header,
    recorder_of,
    seed_of,
    write_capacity,
    write_delivered,
)

logger = logging.getLogger("minimal_transformer.delivery")

# Making a segment takes milliseconds.
UNFINISHED_SECONDS = 60.0
_READ_BYTES = 1024 * 1024


class Reader:
    """Gives out each record once, oldest segment first; holds no more than one batch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: dict[str, Source] = {}
        self._unreadable: set[str] = set()

    def next_batch(self, max_rows: int, max_bytes: int) -> list[Frame]:
        """The next records in each recorder's order; empty when there are none for now."""
        self.look()
        batch: list[Frame] = []
        for source in list(self._sources.values()):
            try:
                while len(batch) < max_rows and max_bytes > 0:
                    found = source.read(max_bytes, max_rows - len(batch))
                    if not found:
                        break
                    batch += found
                    max_bytes -= sum(len(frame.row) for frame in found)
            except OSError as error:
                self._complain(source.path, error)
            if source.is_finished:
                self._finish(source)
        return batch

    def delivered(self, records: Iterable[Frame]) -> None:
        """These records, and all that were given out before them, are in Postgres or set aside."""
        for source, end in {record.origin: record.end for record in records}.items():
            source.mark_delivered(end)
            if source.is_finished:
                self._finish(source)

    def close(self) -> None:
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    def look(self) -> None:
        """Find new segments, and give back what the dead hold of the spool's cap."""
        try:
            names = sorted(path.name for path in self._folder.glob("*" + SUFFIX))
        except OSError:  # no folder yet, or none any more
            names = []
        for name in self._sources.keys() - set(names):  # somebody deleted it
            self._sources.pop(name).close()
        self._sweep()
        fresh = [name for name in names if name not in self._sources]
        for name in fresh:
            try:
                self._sources[name] = Source(self._folder / name)
            except OSError as error:
                self._complain(self._folder / name, error)
        if fresh:
            self._sources = dict(sorted(self._sources.items(), key=lambda item: item[1].order))
        for source in self._sources.values():
            try:
                source.seal()
            except OSError as error:
                self._complain(source.path, error)

    def _sweep(self) -> None:
        """Delete files whose maker died before they became segments."""
        for path in self._folder.glob(f"*{UNFINISHED_SUFFIX}"):
            try:
                if path.stat().st_mtime < time.time() - UNFINISHED_SECONDS:
                    path.unlink()
            except OSError as error:
                self._complain(path, error)

    def _finish(self, source: Source) -> None:
        try:
            source.remove()
        except OSError as error:
            self._complain(source.path, error)
        else:
            self._sources.pop(source.path.name, None)

    def _complain(self, path: Path, error: OSError) -> None:
        if str(path) not in self._unreadable:
            self._unreadable.add(str(path))
            reason = error.strerror or error
            logger.error("%s: %s; the rest of the spool is delivered.", path, reason)


class Source:
    """An open segment file as delivery reads it: sound records, torn tails and damage told apart.

    OSError where the file cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor, self._is_writable = _opened(path)
        header = read_header(self._descriptor)
        recorder_id = recorder_of(path.name) or (header.recorder_id if header else b"")
        self._recorder_id = recorder_id
        self._seed = seed_of(recorder_id)
        self._position = header.delivered if header else HEADER_BYTES
        # Ends of the last record that was given out, and of the last that is stored.
        self._given = self._delivered = self._position
        self._is_abandoned = False  # its owner closed it or died
        self._is_read = False
        self._damaged_bytes = 0
        # Segments of one recorder follow each other by number, recorders by the time they started.
        self.order = (header.created_us if header else 0, path.name)

    @property
    def is_finished(self) -> bool:
        """Whether no record will come any more and all that came were delivered."""
        return self._is_read and self._delivered >= self._given

    def read(self, max_bytes: int, max_rows: int) -> list[Frame]:
        """The next whole records; empty when there are none for now, or for ever (is_finished)."""
        wanted = min(_READ_BYTES, max_bytes)
        while not self._is_read:
            # Before the bytes: what the owner appends in between is read next time, and no damage.
            size = os.fstat(self._descriptor).st_size
            data = os.pread(self._descriptor, max(wanted, FRAME_BYTES), self._position)
            found = list(islice(frames(data, self._position, self._seed, self), max_rows))
            if found:
                self._position = self._given = found[-1].end
                return found
            start = read_frame_start(data)
            if start is not None and len(data) < start.frame_bytes <= size - self._position:
                wanted = start.frame_bytes  # a record larger than a usual read
                continue
            is_cut_off = start is not None and self._position + start.frame_bytes > size
            if not self._skip_foreign_bytes(size, is_cut_off):
                return []
        return []

    def mark_delivered(self, offset: int) -> None:
        """What ends at or before `offset` is in Postgres; later delivery processes know it too."""
        self._delivered = max(self._delivered, offset)
        if self._is_writable:
            try:
                write_delivered(self._descriptor, self._delivered)
            except OSError:  # redelivered after a restart, which changes nothing in Postgres
                self._is_writable = False

    def seal(self) -> bool:
        """Give back the room that a dead owner reserved; False while the owner lives."""
        if self._is_abandoned:
            return True
        # The lock is the owner's until it closes the file or dies; from here on the file is ours.
        if not lock(self._descriptor):
            return False
        self._is_abandoned = True
        try:
            size = os.fstat(self._descriptor).st_size
            write_capacity(self._descriptor, size)
            os.ftruncate(self._descriptor, size)  # frees the blocks past its end
        except OSError:
            self._is_writable = False
        return True

    def remove(self) -> None:
        """Delete the delivered file, or keep it for inspection when parts of it were damaged.

        OSError when the folder does not let go of it; it may be removed later.
        """
        if self._damaged_bytes:
            folder = self.path.parent / DEAD_LETTER_FOLDER
            folder.mkdir(exist_ok=True)
            self.path.rename(folder / (self.path.name + CORRUPT_SUFFIX))
        else:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file; what is delivered of it later is not noted any more."""
        # The descriptor's number may soon be another file's.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _skip_foreign_bytes(self, size: int, is_cut_off: bool) -> bool:
        """Move past bytes that are not a record; False when its owner may yet complete them."""
        if not self._is_abandoned:
            if self.seal():
                return True  # it may have grown before its owner let go
            return not is_cut_off and self._skip_damage(size)
        if not self._skip_damage(size):
            if size > self._position:
                self._skip_tail(size, is_cut_off)
            self._is_read = True
        return True

    def _skip_damage(self, size: int) -> bool:
        """Go on with the next sound record; False when there is none."""
        if size <= self._position + FRAME_BYTES:
            return False
        rest = os.pread(self._descriptor, size - self._position, self._position)
        next_record = find_frame(rest, self._seed, self._recorder_id)
        if next_record is None:
            return False
        self._log_damage(self._position, self._position + next_record)
        self._position += next_record
        return True

    def _skip_tail(self, size: int, is_cut_off: bool) -> None:
        if is_cut_off or size - self._position < FRAME_BYTES:
            logger.warning(
                "%s ends in %d bytes of a record that was never completed; they are skipped, no"
                " answered call is concerned.",
                self.path,
                size - self._position,
            )
        else:
            self._log_damage(self._position, size)
        self._position = size

    def _log_damage(self, start: int, end: int) -> None:
        self._damaged_bytes += end - start
        logger.error(
            "%s is damaged from byte %d to %d; its other records are delivered, and the file is"
            " then kept in %s/ for you to look at and delete.",
            self.path,
            start,
            end,
            DEAD_LETTER_FOLDER,
        )


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor of the file, and whether it can be written."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC), True
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False
