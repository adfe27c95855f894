"""Ctrl-C and SIGTERM, turned into one orderly end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from shadow_local.stack import Stack

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """Someone asked this process to end; not an error, so no `except Exception` swallows it."""


@contextmanager
def stopped_at_the_end(stack: Stack) -> Iterator[None]:
    """Stop the stack when the block ends, however it ends.

    The first signal raises StopRequested in the block; another one, while the children are being
    given time to finish, kills them at once.
    """
    stopping = False

    def on_signal(_: int, __: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            stack.supervisor.hurried = True
        else:
            stopping = True
            raise StopRequested

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        stopping = True
        stack.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
