"""How many trials until a question is settled, if its rates stay as they are."""

from __future__ import annotations

from collections.abc import Callable

# Beyond a billion pairs the answer to "how long" is "no".
TRIALS_LIMIT = 1_000_000_000


def trials_until(is_settled: Callable[[int], bool], start: int) -> int | None:
    """The fewest trials from `start` on (at least 1) at which `is_settled`; None past the limit.

    `is_settled` must stay true once it is true; it is asked some sixty times.
    """
    low = high = max(1, start)
    if is_settled(low):
        return low
    while not is_settled(high):
        if high >= TRIALS_LIMIT:
            return None
        low, high = high, min(2 * high, TRIALS_LIMIT)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_settled(middle) else (middle, high)
    return high
