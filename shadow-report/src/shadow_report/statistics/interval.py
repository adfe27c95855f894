"""The values that the estimators return."""

from __future__ import annotations

import math
from typing import NamedTuple


class Interval(NamedTuple):
    """A closed interval, `lower <= upper`; both ends are NaN when the data cannot say."""

    lower: float
    upper: float


class Estimate(NamedTuple):
    """A value with its interval; NaN when the data cannot say."""

    value: float
    interval: Interval


UNKNOWN = Interval(math.nan, math.nan)
