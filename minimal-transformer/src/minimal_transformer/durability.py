"""SPOOL_FSYNC=1: an answer waits until its records are on the disk; many answers share a sync."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from minimal_transformer.episode import Episode

logger = logging.getLogger("minimal_transformer.recording")


class GroupCommit:
    """Syncs the spool in one thread; never on the event loop. One per process and event loop."""

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
