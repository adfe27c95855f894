"""Streaming moments: constant memory, mergeable, stable for large means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike


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

    @property
    def difference(self) -> Moments:
        """The moments of shadow - primary."""
        # Rounding can push the sum of squares below zero when both sides agree to the last digit.
        m2 = max(0.0, self.m2_primary + self.m2_shadow - 2 * self.comoment)
        return Moments(self.n, self.mean_shadow - self.mean_primary, m2)
