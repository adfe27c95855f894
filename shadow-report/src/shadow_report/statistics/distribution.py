"""How far two distributions lie apart: effect sizes for description, never a gate.

With a million pairs every p-value is 0, so none is given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import wasserstein_distance

# A bin that one side never fills would make the index infinite; half a count is the usual cure.
EMPTY_BIN = 0.5


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> float:
    """The largest gap between both empirical distribution functions, 0 to 1; NaN when empty."""
    x, y = _sorted(first), _sorted(second)
    if x.size == 0 or y.size == 0:
        return math.nan
    grid = np.concatenate([x, y])
    below_x = np.searchsorted(x, grid, side="right") / x.size
    below_y = np.searchsorted(y, grid, side="right") / y.size
    return float(np.abs(below_x - below_y).max())


def wasserstein(first: ArrayLike, second: ArrayLike) -> float:
    """The mean distance that values must move to turn one sample into the other, in their unit."""
    x, y = _sorted(first), _sorted(second)
    return float(wasserstein_distance(x, y)) if x.size and y.size else math.nan


def normed_wasserstein(first: ArrayLike, second: ArrayLike) -> float:
    """`wasserstein` in standard deviations of the first sample; NaN when that one is constant."""
    x = np.asarray(first, dtype=np.float64)
    spread = float(x.std()) if x.size else 0.0
    return wasserstein(x, second) / spread if spread > 0 else math.nan


def population_stability(first_counts: ArrayLike, second_counts: ArrayLike) -> float:
    """The population stability index of two counts per bin; by custom 0.1 is small, 0.25 large.

    (Siddiqi 2006, Credit Risk Scorecards, Wiley.) It is the symmetric Kullback-Leibler divergence.
    """
    p, q = _bin_shares(first_counts), _bin_shares(second_counts)
    if p is None or q is None:
        return math.nan
    return float(((q - p) * np.log(q / p)).sum())


def population_stability_of(first: ArrayLike, second: ArrayLike, bins: int = 10) -> float:
    """`population_stability` of two samples, in bins that hold equal shares of the first."""
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.size == 0 or y.size == 0:
        return math.nan
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
    # `left`: a value equal to an edge lies below it, so that a constant sample fills one bin.
    counts = [
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1)
        for values in (x, y)
    ]
    filled = (counts[0] + counts[1]) > 0
    return population_stability(counts[0][filled], counts[1][filled])


def jensen_shannon(first_counts: ArrayLike, second_counts: ArrayLike) -> float:
    """The Jensen-Shannon distance of two counts per category, 0 (same) to 1 (disjoint).

    (Endres, Schindelin 2003, IEEE Transactions on Information Theory 49, 1858-1860.)
    """
    p = np.asarray(first_counts, dtype=np.float64)
    q = np.asarray(second_counts, dtype=np.float64)
    if p.sum() == 0 or q.sum() == 0:
        return math.nan
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return math.sqrt(min(1.0, max(0.0, divergence)))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / q[seen])).sum())


def _bin_shares(counts: ArrayLike) -> NDArray[np.float64] | None:
    array = np.asarray(counts, dtype=np.float64)
    if array.sum() == 0:
        return None
    array = np.where(array == 0, EMPTY_BIN, array)
    return np.asarray(array / array.sum(), dtype=np.float64)


def _sorted(values: ArrayLike) -> NDArray[np.float64]:
    return np.sort(np.asarray(values, dtype=np.float64).ravel())
