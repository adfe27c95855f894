"""Lengths of time as people type them: `30d`, `4w`, `12h`, `90s`, `1d12h`."""

import re
from datetime import timedelta

UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
PART = re.compile(r"(\d+)([wdhms])")


def parse_duration(text: str) -> timedelta:
    """The length of time; ValueError says in one line what would be right."""
    compact = text.strip().lower()
    try:
        if compact and PART.sub("", compact) == "":
            return sum(
                (int(amount) * UNITS[unit] for amount, unit in PART.findall(compact)), timedelta(0)
            )
    except OverflowError:
        pass
    raise ValueError(
        f"{text!r} is no length of time; write a number and w, d, h, m or s, like 30d or 12h."
    )
