"""Which of several delivery processes works on a spool folder: the one that holds its lock."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from minimal_transformer import segment
from minimal_transformer.episode import Episode
from minimal_transformer.folder import DELIVERY_LOCK

logger = logging.getLogger("minimal_transformer.delivery")


class Election:
    """Stands for election whenever asked; the death of the winner frees the place."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DELIVERY_LOCK
        self._descriptor: int | None = None
        self._refused = Episode(logger, "the spool folder can be locked again; %d attempts failed")

    def is_won(self) -> bool:
        """Whether this process is the folder's writer from now on; False without a folder."""
        if self._descriptor is None:
            self._descriptor = self._open()
        try:
            return self._descriptor is not None and segment.lock(self._descriptor)
        except OSError as error:  # a file system without locks
            self._refused.hit(f"{self._path} cannot be locked: {error}; use another SPOOL_DIR.")
            return False

    def _open(self) -> int | None:
        # A read-only folder can still be read empty: locking takes no right to write.
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            try:
                return os.open(self._path, flags | os.O_CLOEXEC, 0o640)
            except OSError:
                continue
        return None
