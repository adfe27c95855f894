"""When the next call is due: at a steady rate, at the original times, or at once."""

import re
from datetime import datetime

from shadow_report.errors import SettingWrong

RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?")
SECONDS = {"s": 1, "m": 60, "h": 3600, None: 1}


def parse_rate(text: str) -> float:
    """Calls per second from `50`, `50/s`, `600/m` or `10000/h`; SettingWrong otherwise."""
    match = RATE.fullmatch(text.strip().lower())
    if match and (rate := float(match[1]) / SECONDS[match[2]]) > 0:
        return rate
    raise SettingWrong(f"--rate is '{text}'; write calls per second, like 50/s.")


class Pace:
    """Says how long to wait before a call, in seconds on the caller's clock."""

    def __init__(self, rate: float | None, original_timing: bool) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._original_timing = original_timing
        self._next = 0.0
        self._start: tuple[float, datetime] | None = None

    def wait(self, request_time: datetime, now: float) -> float:
        """Seconds until this call is due; calling it counts the call as sent then.

        Time lost to a slow candidate is not made up by a burst: the rate is a ceiling.
        """
        due = max(self._next, now)
        if self._original_timing:
            started, first = self._start = self._start or (now, request_time)
            due = max(due, started + (request_time - first).total_seconds())
        self._next = due + self._gap
        return due - now
