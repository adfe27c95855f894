"""Ends what its starter leaves behind: `python -m shadow_local.watchdog`.

It leads a process group that every child of the runner joins, and waits for its standard input to
end. That happens when the runner closes it or dies, however it dies. Then the whole group goes,
and with it what the children started themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import psutil

GRACE_SECONDS = 10.0


def main() -> None:
    # It leads the group that it ends: a signal to the group must not end it before the others.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while _others() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)


def _others() -> bool:
    """Is anyone else in the group, zombies aside?"""
    group, me = os.getpgrp(), os.getpid()
    for process in psutil.process_iter(["status"]):
        try:
            in_group = os.getpgid(process.pid) == group and process.pid != me
        except ProcessLookupError:
            continue
        if in_group and process.info["status"] != psutil.STATUS_ZOMBIE:
            return True
    return False


if __name__ == "__main__":
    main()
