"""Which of several delivery processes works on a spool folder: the one that holds its lock."""

from __future__ import annotations

import os
from pathlib import Path

from minimal_transformer import segment
from minimal_transformer.folder import DELIVERY_LOCK


class Election:
    """Stands for election whenever asked; the death of the winner frees the place."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DELIVERY_LOCK
        self._descriptor: int | None = None

    def is_won(self) -> bool:
        """Whether this process is the folder's writer from now on; False without a folder."""
        if self._descriptor is None:
            self._descriptor = self._open()
        return self._descriptor is not None and segment.lock(self._descriptor)

    def _open(self) -> int | None:
        # A read-only folder can still be read empty: locking takes no right to write.
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            try:
                return os.open(self._path, flags | os.O_CLOEXEC, 0o640)
            except OSError:
                continue
        return None
