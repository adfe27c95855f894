"""Waiting for what comes about in its own time; a test never asserts how long that takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(
    happened: Callable[[], bool], seconds: float = 180, or_say: Callable[[], str] = lambda: ""
) -> None:
    """Return when it has happened; fail when it has not within this generous bound."""
    deadline = time.monotonic() + seconds
    pause = 0.02
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {seconds} s: {or_say()}".rstrip(": "))
        time.sleep(pause)
        pause = min(1.2 * pause, 0.1)  # a question may be a query: many would keep a core busy
