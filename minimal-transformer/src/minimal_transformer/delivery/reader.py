"""Reads the spool's segments in their recorders' order, and remembers what Postgres has of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

from minimal_transformer import segment
from minimal_transformer.delivery.source import Source
from minimal_transformer.segment import Frame

logger = logging.getLogger("minimal_transformer.delivery")


# Making a segment takes milliseconds.
UNFINISHED_SECONDS = 60.0


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
            names = sorted(path.name for path in self._folder.glob("*" + segment.SUFFIX))
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
        for path in self._folder.glob(f"*{segment.UNFINISHED_SUFFIX}"):
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
