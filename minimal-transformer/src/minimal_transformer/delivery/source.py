"""One segment as the delivery process reads it: sound records, torn tails and damage told apart."""

from __future__ import annotations

import logging
import os
from itertools import islice
from pathlib import Path

from minimal_transformer import segment
from minimal_transformer.folder import DEAD_LETTER_FOLDER
from minimal_transformer.segment import Frame

logger = logging.getLogger("minimal_transformer.delivery")

_READ_BYTES = 1024 * 1024


class Source:
    """An open segment file. OSError where the file cannot be opened or read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_writable = True
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError:
            self._is_writable = False
        except OSError as error:
            if error.errno != 30:  # EROFS
                raise
            self._is_writable = False
        if not self._is_writable:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        header = segment.read_header(self._descriptor)
        recorder_id = segment.recorder_of(path.name) or (header.recorder_id if header else b"")
        self._seed = segment.seed_of(recorder_id)
        self._position = header.delivered if header else segment.HEADER_BYTES
        self._given = self._delivered = (
            self._position
        )  # ends of the last record given out, and stored
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
            data = os.pread(self._descriptor, max(wanted, segment.FRAME_BYTES), self._position)
            found = list(islice(segment.frames(data, self._position, self._seed, self), max_rows))
            if found:
                self._position = self._given = found[-1].end
                return found
            declared = segment.declared_frame_bytes(data)
            if declared is not None and len(data) < declared <= size - self._position:
                wanted = declared  # a record larger than a usual read
                continue
            if not self._pass_what_is_no_record(size, declared):
                return []
        return []

    def _pass_what_is_no_record(self, size: int, declared: int | None) -> bool:
        """Move past bytes that are no record; False when its owner may yet complete them."""
        if not self._is_abandoned:
            if self.seal():
                return True  # it may have grown before its owner let go
            if declared is not None and self._position + declared > size:
                return False
            return self._skip_damage(size)
        if self._skip_damage(size):
            return True
        if size > self._position:
            self._pass_tail(size, declared)
        self._is_read = True
        return True

    def _skip_damage(self, size: int) -> bool:
        """Go on with the next sound record; False when there is none."""
        if size <= self._position + segment.FRAME_BYTES:
            return False
        rest = os.pread(self._descriptor, size - self._position, self._position)
        next_record = segment.find_frame(rest, self._seed)
        if next_record is None:
            return False
        self._tell_damage(self._position, self._position + next_record)
        self._position += next_record
        return True

    def _pass_tail(self, size: int, declared: int | None) -> None:
        is_torn = size - self._position < segment.FRAME_BYTES
        if is_torn or (declared is not None and self._position + declared > size):
            logger.warning(
                "%s ends in %d bytes of a record that was never completed; they are skipped, no"
                " answered call is concerned.",
                self.path,
                size - self._position,
            )
        else:
            self._tell_damage(self._position, size)
        self._position = size

    def _tell_damage(self, start: int, end: int) -> None:
        self._damaged_bytes += end - start
        logger.error(
            "%s is damaged from byte %d to %d; its other records are delivered, and the file is"
            " then kept in %s/ for you to look at and delete.",
            self.path,
            start,
            end,
            DEAD_LETTER_FOLDER,
        )

    def mark_delivered(self, offset: int) -> None:
        """What ends at or before `offset` is in Postgres; later delivery processes know it too."""
        self._delivered = max(self._delivered, offset)
        if self._is_writable:
            try:
                segment.write_delivered(self._descriptor, self._delivered)
            except OSError:  # sent again after a restart, which changes nothing in Postgres
                self._is_writable = False

    def seal(self) -> bool:
        """Give back the room that a dead owner reserved; False while the owner lives."""
        if self._is_abandoned:
            return True
        if not segment.lock(self._descriptor):
            return False
        self._is_abandoned = True
        try:
            size = os.fstat(self._descriptor).st_size
            segment.write_capacity(self._descriptor, size)
            os.ftruncate(self._descriptor, size)  # frees the blocks past its end
        except OSError:
            self._is_writable = False
        return True

    def remove(self) -> None:
        """Delete the delivered file, or keep it for inspection when parts of it were damaged.

        OSError when the folder does not let go of it; it may be asked again.
        """
        if self._damaged_bytes:
            folder = self.path.parent / DEAD_LETTER_FOLDER
            folder.mkdir(exist_ok=True)
            self.path.rename(folder / (self.path.name + segment.CORRUPT_SUFFIX))
        else:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file; what is delivered of it later is not noted any more."""
        # The descriptor's number may soon be another file's.
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
