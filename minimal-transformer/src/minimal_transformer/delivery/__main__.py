"""python -m minimal_transformer.delivery: the one writer of a spool folder.

Started by DeliveryProcess with the transformer's environment. Its standard input is a control pipe
from there: a line "drain <seconds>" ends it when the spool is empty or the time is over, and the
pipe's end, which is the transformer's death, does the same with DRAIN_SECONDS, as does SIGTERM.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from minimal_transformer.delivery.database import Database
from minimal_transformer.delivery.writer import Writer
from minimal_transformer.logs import Episode, formatter
from minimal_transformer.metrics import FOLDER_VARIABLE, Counters
from minimal_transformer.settings import RecordSettings, SettingsError
from minimal_transformer.spool.folder import DELIVERY_LOCK
from minimal_transformer.spool.format import lock

logger = logging.getLogger("minimal_transformer.delivery")

# A batch is sent when it is full or this old.
BATCH_SECONDS = 0.2
LOCK_RETRY_SECONDS = 0.5
# Of a transformer that died without a word; Kubernetes leaves 30 s between SIGTERM and SIGKILL.
DRAIN_SECONDS = 10.0


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(os.environ.get("LOG_FORMAT", "text")))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Ctrl-C goes to the whole process group; the transformer decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    try:
        settings = RecordSettings.from_environment()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    control = ControlPipe()
    leader = LeaderLock(settings.spool_folder)
    while not leader.is_held():
        # The folder may have been made since: the first call's rows are not left behind.
        if control.wait(LOCK_RETRY_SECONDS) and not leader.is_held():
            return 0
    if (share := settings.record_sample) < 1:
        logger.info("RECORD_SAMPLE is %g: so many of the pairs are recorded, by their ids.", share)
    folder = os.environ.get(FOLDER_VARIABLE)
    writer = Writer(
        settings.spool_folder,
        Database(settings.postgres_uri.get_secret_value(), settings.secret_folder),
        Counters(Path(folder) if folder else None),
    )
    run(writer, control)
    writer.close()
    return 0


def run(writer: Writer, control: ControlPipe) -> None:
    """Deliver until ordered to drain, then until the spool is empty or the time is over."""
    while True:
        pause = writer.advance()
        if pause is None and control.is_draining:
            return
        control.wait(BATCH_SECONDS if pause is None else pause)
        if control.is_over:
            return


class ControlPipe:
    """What the transformer orders, through a pipe and by dying; heard while this waits."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._pipe: int | None = sys.stdin.fileno()
        self._text = b""
        # A signal wakes the wait through a socket: select() alone would go on waiting.
        self._wake, self._signalled = socket.socketpair()
        self._wake.setblocking(False)
        self._signalled.setblocking(False)
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)

    @property
    def is_draining(self) -> bool:
        return self._deadline is not None

    @property
    def is_over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def wait(self, seconds: float) -> bool:
        """Listen for so long, or until an order comes; whether there is an order to drain."""
        if self._deadline is not None:
            seconds = max(0.0, min(seconds, self._deadline - time.monotonic()))
        wake = self._wake.fileno()
        listening = [wake] if self._pipe is None else [wake, self._pipe]
        ready, _, _ = select.select(listening, [], [], seconds)
        if wake in ready:
            self._wake.recv(64)
        if self._pipe is not None and self._pipe in ready:
            self._read(self._pipe)
        return self.is_draining

    def _read(self, pipe: int) -> None:
        received = os.read(pipe, 4096)
        if not received:  # the transformer is dead
            self._pipe = None
            self._drain(DRAIN_SECONDS)
        *lines, self._text = (self._text + received).split(b"\n")
        for line in lines:
            order, _, seconds = line.partition(b" ")
            if order == b"drain":
                self._drain(float(seconds))

    def _drain(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + seconds

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._drain(DRAIN_SECONDS)


class LeaderLock:
    """Makes one of several delivery processes the folder's writer; its death frees the lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / DELIVERY_LOCK
        self._descriptor: int | None = None
        self._refused = Episode(logger, "the spool folder can be locked again; %d attempts failed")

    def is_held(self) -> bool:
        """Whether this process is the folder's writer from now on; False without a folder."""
        if self._descriptor is None:
            self._descriptor = self._open()
        try:
            return self._descriptor is not None and lock(self._descriptor)
        except OSError as error:  # a file system without locks
            self._refused.hit(f"{self._path} cannot be locked: {error}; use another SPOOL_DIR.")
            return False

    def _open(self) -> int | None:
        # A read-only folder can still be read empty: locking takes no right to write.
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            try:
                return os.open(self._path, flags | os.O_CLOEXEC, 0o640)
            except FileNotFoundError:  # nothing was recorded yet
                return None
            except OSError as error:
                fault = error
        self._refused.hit(
            f"{self._path} cannot be opened: {fault.strerror}; nothing is delivered until it can."
            " Give it to this process's user, or delete it: another one is made."
        )
        return None


if __name__ == "__main__":
    sys.exit(main())
