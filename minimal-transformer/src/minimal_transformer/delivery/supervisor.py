"""Runs the delivery process next to the server and restarts it when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from minimal_transformer.metrics import FOLDER_VARIABLE
from minimal_transformer.settings import RecordSettings
from minimal_transformer.spool.folder import waiting_calls

logger = logging.getLogger("minimal_transformer.recording")

FIRST_RESTART_SECONDS = 0.5
MAX_RESTART_SECONDS = 30.0


class DeliveryProcess:
    """The one background writer of a spool folder, as a child process that outlives no server.

    It is a process so that its work never takes the event loop's interpreter lock. It holds one end
    of a pipe: when this process dies, however it dies, the child reads the pipe's end.
    """

    def __init__(self, settings: RecordSettings, counters_folder: Path) -> None:
        self._folder = settings.spool_folder
        counters = {FOLDER_VARIABLE: str(counters_folder)}
        self._environment = os.environ | settings.as_environment() | counters
        # Held while a child is made, so that stop() and the watcher never make two.
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the writer; None while it does not run."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start the writer, and restart it whenever it dies."""
        self._spawn()
        self._watcher = threading.Thread(target=self._watch, name="delivery-watch", daemon=True)
        self._watcher.start()

    def stop(self, timeout: float) -> None:
        """Have it drain the spool for at most `timeout` seconds and end; the rest stays there."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping.set()
            if self._child is None or self._child.poll() is not None:
                self._spawn_locked()
            child = self._child
        if child is not None and child.stdin is not None:
            try:
                child.stdin.write(b"drain %f\n" % timeout)
                child.stdin.flush()
                child.wait(max(0.1, deadline + 1.0 - time.monotonic()))
            except (OSError, subprocess.TimeoutExpired):
                child.kill()
                child.wait()
            finally:
                with contextlib.suppress(OSError):  # it is gone
                    child.stdin.close()
        if self._watcher is not None:
            self._watcher.join(1.0)
        if calls := waiting_calls(self._folder):
            logger.warning(
                "%d calls wait in %s; they are delivered at the next start.", calls, self._folder
            )

    def _spawn(self) -> None:
        with self._lock:
            if not self._stopping.is_set():
                self._spawn_locked()

    def _spawn_locked(self) -> None:
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "minimal_transformer.delivery"],
                env=self._environment,
                stdin=subprocess.PIPE,
            )
        except OSError as error:
            self._child = None
            logger.error("The delivery process does not start: %s; trying again.", error)

    def _watch(self) -> None:
        pause = FIRST_RESTART_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            child = self._child
            if child is not None:
                code = child.wait()
                if self._stopping.is_set():  # stop() owns the child now
                    return
                if child.stdin is not None:
                    child.stdin.close()
                logger.warning(
                    "The delivery process ended with code %s; starting it again in %.1f s, the"
                    " records wait on the spool.",
                    code,
                    pause,
                )
            if self._stopping.wait(pause):
                return
            ran_long = time.monotonic() - started > 60
            pause = FIRST_RESTART_SECONDS if ran_long else min(pause * 2, MAX_RESTART_SECONDS)
            self._spawn()
