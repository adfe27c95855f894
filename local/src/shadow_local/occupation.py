"""A folder that one run at a time may use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Occupied(Exception):
    """Another run uses the folder; the message says which one and what to do."""


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Keep a second run out of a folder; it is free again when this process ends in any way."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read()
            raise Occupied(
                f"Process {pid} already runs in {folder}; stop it (Ctrl-C there, or `kill {pid}`), "
                "or run this one beside it with a folder and a port of its own: "
                f"`GATEWAY_PORT=9000 local/.venv/bin/shadow-local up --folder {folder}/second`, "
                "and the same with `report` in place of `up`."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
