"""Whether a process takes traffic: it answers the probes of its manifest."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from shadow_local.processes import Command

READY_SECONDS = 300


class NotReady(Exception):
    """A process did not answer its probe in time; the message has its last answer."""


def wait_until_ready(item: Command, check: Callable[[], None], endless: bool = False) -> None:
    """Return when every probe of a process answers 200; `check`, asked meanwhile, may raise."""
    deadline = time.monotonic() + READY_SECONDS
    for url in item.probes:
        while (answer := _answer(url)) != "200":
            check()
            if not endless and time.monotonic() > deadline:
                raise NotReady(f"{item.name}: GET {url}: {answer}, {READY_SECONDS} s long.")
            time.sleep(0.1)


def _answer(url: str) -> str:
    """The status of a GET, or what went wrong."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return str(error)
