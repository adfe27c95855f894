"""What many values amount to in bounded memory: moments, quantiles, a fair sample."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations (`m2`) of the values seen so far.

    `merge` gives the same as seeing both lots of values at once (Chan, Golub, LeVeque 1983).
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike) -> Self:
        """The moments of these values; all of them must be finite."""
        array = np.asarray(values, dtype=np.float64).ravel()
        if array.size == 0:
            return cls()
        mean = float(array.mean())
        return cls(array.size, mean, float(np.square(array - mean).sum()))

    def merge(self, other: Self) -> Self:
        """The moments of both lots of values together."""
        n = self.n + other.n
        if n == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        m2 = self.m2 + other.m2 + delta * delta * (self.n * (other.n / n))
        return type(self)(n, mean, m2)

    @property
    def variance(self) -> float:
        """The unbiased variance; NaN for fewer than two values."""
        return self.m2 / (self.n - 1) if self.n > 1 else math.nan

    @property
    def standard_deviation(self) -> float:
        """The square root of the unbiased variance; NaN for fewer than two values."""
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class PairMoments:
    """First and second moments of (primary, shadow) values; `comoment` sums the cross products."""

    n: int = 0
    mean_primary: float = 0.0
    mean_shadow: float = 0.0
    m2_primary: float = 0.0
    m2_shadow: float = 0.0
    comoment: float = 0.0

    @classmethod
    def of(cls, primary: ArrayLike, shadow: ArrayLike) -> Self:
        """The moments of these pairs; both arrays have the same length and are finite."""
        x = np.asarray(primary, dtype=np.float64).ravel()
        y = np.asarray(shadow, dtype=np.float64).ravel()
        if x.size != y.size:
            raise ValueError(f"{x.size} primary and {y.size} shadow values; give as many of each.")
        if x.size == 0:
            return cls()
        mean_x, mean_y = float(x.mean()), float(y.mean())
        dx, dy = x - mean_x, y - mean_y
        # Not `dx @ dx`: for a few thousand values BLAS starts threads that spin while they wait.
        squares = float(np.square(dx).sum()), float(np.square(dy).sum())
        return cls(x.size, mean_x, mean_y, *squares, float((dx * dy).sum()))

    def merge(self, other: Self) -> Self:
        """The moments of both lots of pairs together."""
        n = self.n + other.n
        if n == 0:
            return self
        dx = other.mean_primary - self.mean_primary
        dy = other.mean_shadow - self.mean_shadow
        share, weight = other.n / n, self.n * (other.n / n)
        return type(self)(
            n,
            self.mean_primary + dx * share,
            self.mean_shadow + dy * share,
            self.m2_primary + other.m2_primary + dx * dx * weight,
            self.m2_shadow + other.m2_shadow + dy * dy * weight,
            self.comoment + other.comoment + dx * dy * weight,
        )


class PairSample:
    """Keeps at most `capacity` pairs, each pair seen with the same chance; memory stays constant.

    Up to `capacity` pairs it keeps them all, then those with the least keys. Keys are hashes, so
    that is a fair sample, and the same one in whatever order and batches the pairs come.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self.capacity = capacity
        self.seen = 0
        self._keys: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._primary: NDArray[np.float64] = np.empty(0)
        self._shadow: NDArray[np.float64] = np.empty(0)
        self._below: int | None = None
        """Once pairs were left out, all that are to come have a smaller key, or are too."""

    def add(self, primary: ArrayLike, shadow: ArrayLike, keys: ArrayLike) -> None:
        """Offer a batch of pairs; all arrays have the same length."""
        x, y = (np.asarray(side, dtype=np.float64) for side in (primary, shadow))
        hashes = np.asarray(keys, dtype=np.int64)
        self.seen += x.size
        if self._below is not None:
            chosen = hashes < self._below
            x, y, hashes = x[chosen], y[chosen], hashes[chosen]
        self._keep(
            np.concatenate([self._keys, hashes]),
            np.concatenate([self._primary, x]),
            np.concatenate([self._shadow, y]),
        )

    def _keep(
        self, keys: NDArray[np.int64], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> None:
        if keys.size > self.capacity:
            least = np.argpartition(keys, self.capacity - 1)[: self.capacity]
            keys, x, y = keys[least], x[least], y[least]
            self._below = int(keys.max())
        self._keys, self._primary, self._shadow = keys, x, y

    @property
    def primary(self) -> NDArray[np.float64]:
        """The sampled primary values; entry i belongs to entry i of `shadow`."""
        return self._primary

    @property
    def shadow(self) -> NDArray[np.float64]:
        """The sampled shadow values."""
        return self._shadow


# Neighbouring bins differ by 2 %, so a quantile lies within 1 % of the true one.
GROWTH = 1.02
_LOG_GROWTH = math.log(GROWTH)
# Sizes beyond are gathered in the outermost bins.
SMALLEST, LARGEST = 1e-18, 1e18
_LIMIT = math.ceil(math.log(LARGEST / SMALLEST) / _LOG_GROWTH) + 2


# How many values a bin holds, the least and the largest of them. A plain tuple: there are hundreds
# of them in each batch, and a named one takes longer to make than to fill.
Bin = tuple[int, float, float]


class Sketch:
    """Counts of finite values in bins that grow by 2 %, on both sides of zero.

    The idea of DDSketch (Masson, Rim, Lee 2019, PVLDB 12, 2195-2205): relative accuracy, and the
    same result in any order. At most some 8,000 bins. Each knows its own least and largest value,
    so that no quantile lies outside the values, and one of few distinct values is exact.
    """

    def __init__(self) -> None:
        self._bins: dict[int, Bin] = {}
        self.total = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Count these values."""
        self.total += values.size
        other = values[values != 0]
        # Most differences are zero; they cost no logarithm.
        if zeros := values.size - other.size:
            self._add(0, zeros, 0.0, 0.0)
        if not other.size:
            return
        sizes = np.clip(np.abs(other), SMALLEST, LARGEST)
        bins = 1 + (np.log(sizes / SMALLEST) / _LOG_GROWTH).astype(np.int64)
        positions = np.where(other < 0, -bins, bins) + _LIMIT
        counts = np.bincount(positions)
        capped = np.clip(other, -LARGEST, LARGEST)
        least, largest = np.full(counts.size, np.inf), np.full(counts.size, -np.inf)
        np.minimum.at(least, positions, capped)
        np.maximum.at(largest, positions, capped)
        found = np.flatnonzero(counts)
        parts = (part[found].tolist() for part in (counts, least, largest))
        for position, n, low, high in zip((found - _LIMIT).tolist(), *parts, strict=True):
            self._add(position, n, low, high)

    def _add(self, position: int, n: int, low: float, high: float) -> None:
        before = self._bins.get(position)
        if before is not None:
            n += before[0]
            low = min(before[1], low)
            high = max(before[2], high)
        self._bins[position] = n, low, high

    def __deepcopy__(self, _: dict[int, object]) -> Sketch:
        twin = copy(self)
        # The bins themselves never change.
        twin._bins = self._bins.copy()
        return twin

    @property
    def nonzero(self) -> int:
        """How many of the values are not zero."""
        return self.total - (self._bins[0][0] if 0 in self._bins else 0)

    def sizes(self) -> Sketch:
        """The sketch of the absolute values."""
        folded = Sketch()
        folded.total = self.total
        for position, (n, low, high) in self._bins.items():
            folded._add(abs(position), n, *((-high, -low) if position < 0 else (low, high)))
        return folded

    def bins(self) -> list[tuple[float, int]]:
        """(value, count) of each filled bin, in ascending order of the values; the value is the
        bin's own, the same in every sketch, so that two sketches can be compared by it.
        """
        return [(_value(position), self._bins[position][0]) for position in sorted(self._bins)]

    def ends(self) -> tuple[float, float]:
        """The least and the largest value; both 0 when nothing was added."""
        if not self._bins:
            return 0.0, 0.0
        return self._bins[min(self._bins)][1], self._bins[max(self._bins)][2]

    def quantile(self, share: float) -> float:
        """The value below which this share lies, within 1 % and never outside the values; exact for
        0 and 1; NaN when nothing was added.
        """
        rank, seen = share * (self.total - 1), 0
        for position in sorted(self._bins):
            n, low, high = self._bins[position]
            if seen + n > rank:
                # As if they were evenly spread within the bin; exact at both of its ends.
                along = min(1.0, (rank - seen) / (n - 1)) if n > 1 else 0.0
                return min(low + (high - low) * along, high)
            seen += n
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


# So many times as wide as the middle 99 %, the whole range would show that as one spike.
FAR_OUT = 10


def histogram(sketch: Sketch, bins: int = 40) -> tuple[tuple[float, float, int], ...]:
    """(low, high, count) of equal bins in ascending order, and every value is in one of them.

    When some of the outer 1 % lie far out, the equal bins are those of the others, and one wider
    bin at that end holds what lies beyond.
    """
    if not sketch.total:
        return ()
    least, most = sketch.ends()
    if least == most:
        return ((least, most, sketch.total),)
    values = [(min(max(value, least), most), count) for value, count in sketch.bins()]
    low, high = sketch.quantile(0.005), sketch.quantile(0.995)
    width = high - low
    near = [value for value, _ in values if low - width <= value <= high + width]
    is_even = most - least <= FAR_OUT * width
    low, high = (least, most) if is_even or len(near) < 2 else (near[0], near[-1])
    edges = np.linspace(low, high, bins + 1).tolist()
    counts = [0] * bins
    below = above = 0
    for value, count in values:
        if value < low:
            below += count
        elif value > high:
            above += count
        else:
            counts[min(bins - 1, int((value - low) / (high - low) * bins))] += count
    middle = [(edges[i], edges[i + 1], count) for i, count in enumerate(counts)]
    return (
        *([(least, low, below)] if below else []),
        *middle,
        *([(high, most, above)] if above else []),
    )


def _value(position: int) -> float:
    if position == 0:
        return 0.0
    size = SMALLEST * math.exp((abs(position) - 0.5) * _LOG_GROWTH)
    return math.copysign(size, position)
