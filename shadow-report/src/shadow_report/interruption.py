"""Ctrl-C at any moment: one line, exit code 130."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
LINE = "shadow-report: Interrupted."
# psycopg gives Postgres 5 s to hear that a query is cancelled and 5 s to end it.
PATIENCE_SECONDS = 15


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Within this, Ctrl-C ends the process, the second one at once.

    The first raises KeyboardInterrupt, so that Postgres is told and drafts of files are removed.
    What comes of that does not matter: an error on the way out is no news, and if nothing comes of
    it, because a library swallowed it, the process ends after 15 s all the same.

    Also where SIGINT was ignored, as shells have it for what scripts start in the background: who
    sends one means it.
    """
    came = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True
        logging.disable()  # psycopg warns of what it gave up
        signal.signal(signal.SIGINT, _end)
        signal.signal(signal.SIGALRM, _end)
        signal.alarm(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException:
        if not came:
            raise
        print(LINE, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        if not came:
            signal.signal(signal.SIGINT, before)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), f"{LINE}\n".encode())
    os._exit(INTERRUPTED)
