"""Numbers as a person reads them."""

from __future__ import annotations

import math
from datetime import timedelta

NOT_RECORDED = "(none)"
"""Stands for a missing value where calls are counted by value."""


def percent(share: float) -> str:
    """A share as a percentage with three digits that matter: `0.0812 %`, `2.61 %`, `99.931 %`.

    Close to 100 % the digits that matter are those of the distance to 100 %.
    """
    telling = 100 * min(abs(share), abs(1 - share)) if 0 <= share <= 1 else 100 * abs(share)
    if telling < 1e-9:
        return f"{100 * share:.0f} %"
    decimals = max(0, 2 - math.floor(math.log10(telling)))
    text = f"{100 * share:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 pair`, `2,992 pairs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(span: timedelta) -> str:
    """A span in the unit that fits, rounded up: `40 s`, `12 min`, `3 h`, `9 days`."""
    seconds = span.total_seconds()
    for size, unit, limit in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800)):
        if seconds < limit:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{math.ceil(seconds / 86_400)} days"
