"""Ctrl-C and SIGTERM, turned into one orderly end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shadow_local.stack import Stack
from shadow_local.supervisor import StopRequested

SAME_WISH_SECONDS = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopped_at_the_end(stack: Stack, say: Callable[[str], None]) -> Iterator[None]:
    """Stop the stack when the block ends, however it ends.

    A signal makes the stack's next `check` raise StopRequested, which is said and raised further;
    one more, sent after the children were given some time to finish, kills them at once.
    """
    first = float("inf")

    def on_signal(_: int, __: FrameType | None) -> None:
        # Nothing is raised here: Python would swallow it if a destructor happened to be running.
        nonlocal first
        stack.supervisor.stop_requested = True
        # `make` passes on what the whole process group got: the same signal twice is one wish.
        stack.supervisor.hurried = time.monotonic() > first + SAME_WISH_SECONDS
        first = min(first, time.monotonic())

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    except Exception:
        # Whatever fails after the wish to end fails because of it: Ctrl-C reaches initdb as well.
        if not stack.supervisor.stop_requested:
            raise
        say("stopping")
        raise StopRequested from None
    finally:
        stack.supervisor.stop_requested = True
        stack.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
