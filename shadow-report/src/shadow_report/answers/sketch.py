"""Quantiles of any number of values in bounded memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Neighbouring bins differ by 2 %, so a quantile lies within 1 % of the true one.
GROWTH = 1.02
_LOG_GROWTH = math.log(GROWTH)
# Sizes beyond are gathered in the outermost bins; smaller ones count as zero.
SMALLEST, LARGEST = 1e-18, 1e18
_LIMIT = math.ceil(math.log(LARGEST / SMALLEST) / _LOG_GROWTH) + 2


class Sketch:
    """Counts of finite values in bins that grow by 2 %, on both sides of zero.

    The idea of DDSketch (Masson, Rim, Lee 2019, PVLDB 12, 2195-2205): relative accuracy, and the
    same result in any order. At most some 8,000 bins.
    """

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Count these values."""
        self.total += values.size
        other = values[values != 0]
        # Most differences are zero; they cost no logarithm.
        self._add(0, values.size - other.size)
        if not other.size:
            return
        sizes = np.clip(np.abs(other), SMALLEST, LARGEST)
        bins = 1 + (np.log(sizes / SMALLEST) / _LOG_GROWTH).astype(np.int64)
        counts = np.bincount(np.where(other < 0, -bins, bins) + _LIMIT)
        found = np.flatnonzero(counts)
        for position, count in zip(found.tolist(), counts[found].tolist(), strict=True):
            self._add(position - _LIMIT, count)

    def _add(self, position: int, count: int) -> None:
        if count:
            self._counts[position] = self._counts.get(position, 0) + count

    def sizes(self) -> Sketch:
        """The sketch of the absolute values."""
        folded = Sketch()
        folded.total = self.total
        for position, count in self._counts.items():
            folded._add(abs(position), count)
        return folded

    def bins(self) -> list[tuple[float, int]]:
        """(value, count) of each filled bin, in ascending order of the values."""
        return [(_value(position), self._counts[position]) for position in sorted(self._counts)]

    def quantile(self, share: float) -> float:
        """The value below which this share lies, within 1 %; NaN when nothing was added."""
        rank, seen = share * (self.total - 1), 0
        for value, count in self.bins():
            seen += count
            if seen > rank:
                return value
        return math.nan


def distance(first: Sketch, second: Sketch) -> float:
    """The largest gap between both distribution functions (Kolmogorov-Smirnov D), up to the bins.

    NaN when either is empty.
    """
    if not first.total or not second.total:
        return math.nan
    gap, below_first, below_second = 0.0, 0, 0
    first_counts, second_counts = dict(first.bins()), dict(second.bins())
    for value in sorted(first_counts.keys() | second_counts.keys()):
        below_first += first_counts.get(value, 0)
        below_second += second_counts.get(value, 0)
        gap = max(gap, abs(below_first / first.total - below_second / second.total))
    return gap


def histogram(sketch: Sketch, bins: int = 40) -> tuple[tuple[float, float, int], ...]:
    """(low, high, count) of equal bins over the middle 99 %; the rest is in the outer bins."""
    low, high = sketch.quantile(0.005), sketch.quantile(0.995)
    if not sketch.total:
        return ()
    if low == high:
        return ((low, high, sketch.total),)
    edges = np.linspace(low, high, bins + 1)
    counts = [0] * bins
    for value, count in sketch.bins():
        place = int((value - low) / (high - low) * bins)
        counts[min(bins - 1, max(0, place))] += count
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return tuple((a, b, n) for (a, b), n in zip(pairs, counts, strict=True))


def _value(position: int) -> float:
    if position == 0:
        return 0.0
    size = SMALLEST * math.exp((abs(position) - 0.5) * _LOG_GROWTH)
    return math.copysign(size, position)
