"""What the transformer tells its delivery process, through a pipe and by dying."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from types import FrameType

# Of a transformer that died without a word; kubernetes leaves 30 s between SIGTERM and SIGKILL.
DRAIN_SECONDS = 10.0


class Orders:
    """Listens while it waits. SIGTERM and the pipe's end are orders to drain for DRAIN_SECONDS."""

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._pipe: int | None = sys.stdin.fileno()
        self._text = b""
        # A signal wakes the wait through a socket: select() alone would go on waiting.
        self._wake, signalled = socket.socketpair()
        self._wake.setblocking(False)
        signalled.setblocking(False)
        self._signalled = signalled
        signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
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
            self._listen(self._pipe)
        return self.is_draining

    def _listen(self, pipe: int) -> None:
        received = os.read(pipe, 4096)
        if not received:
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
