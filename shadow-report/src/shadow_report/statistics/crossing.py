"""Where a function crosses zero; scipy.optimize does this too, and takes a second to import."""

from __future__ import annotations

from collections.abc import Callable


def crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """The place, to some 1e-13 of its size, where a growing function crosses zero; by bisection.

    It is below zero at `low` and not at `high`.
    """
    while high - low > 1e-13 * max(1.0, abs(low), abs(high)):
        middle = (low + high) / 2
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return high
