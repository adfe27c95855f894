"""How far the predictions moved as a whole: PSI, Wasserstein, Kolmogorov-Smirnov.

They describe both sides' distributions and never decide: with a million pairs every p-value is
zero, and what counts is how far they are from what chance gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The usual ten bins, each with a tenth of the primary's values, and the usual reading: under 0.1
# stable, over 0.25 another distribution (Siddiqi 2006, Credit Risk Scorecards).
PSI_BINS = 10


@dataclass(frozen=True, slots=True)
class DistributionShift:
    """Distances between both sides' values; fixed horizon, description; NaN when a side is empty.

    ks: the largest gap between the distribution functions, 0 to 1. wasserstein: the mean distance
    that a value moved, in the values' unit. psi: the population stability index. psi_by_chance:
    what it is on average for two independent samples of this size from one distribution; paired
    samples give less.
    """

    ks: float
    wasserstein: float
    psi: float
    psi_by_chance: float


def distribution_shift(
    primary: ArrayLike, shadow: ArrayLike, primary_counts: ArrayLike, shadow_counts: ArrayLike
) -> DistributionShift:
    """The distances between two sets of distinct values, given in ascending order with counts.

    A sketch's bins are such values; then the figures are exact up to its bins.
    """
    x, y, n, m = (
        np.asarray(part, dtype=np.float64)
        for part in (primary, shadow, primary_counts, shadow_counts)
    )
    if not n.sum() or not m.sum():
        return DistributionShift(math.nan, math.nan, math.nan, math.nan)
    values = np.union1d(x, y)
    # scipy.stats has both distances, of unweighted samples or after a second's import; the tests
    # hold these lines against it.
    gaps = np.abs(_share_up_to(values, x, n) - _share_up_to(values, y, m))
    psi, by_chance = _psi(x, y, n, m)
    return DistributionShift(
        ks=float(gaps.max()),
        wasserstein=float(gaps[:-1] @ np.diff(values)),
        psi=psi,
        psi_by_chance=by_chance,
    )


def _share_up_to(
    values: NDArray[np.float64], seen: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = np.concatenate([[0.0], counts.cumsum()])
    return np.asarray(sums[np.searchsorted(seen, values, side="right")] / sums[-1])


def _psi(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    n: NDArray[np.float64],
    m: NDArray[np.float64],
) -> tuple[float, float]:
    """The index and what chance gives, over bins of equal shares of the primary's values."""
    shares = np.arange(1, PSI_BINS) / PSI_BINS
    places = np.searchsorted(n.cumsum(), shares * n.sum())
    # Repeated values make equal edges, so fewer bins.
    edges = np.unique(x[np.minimum(places, x.size - 1)])
    bins = edges.size + 1
    p, q = (
        # Half a value more in each bin, so that an empty one does not make it infinite.
        np.bincount(np.searchsorted(edges, v, side="left"), weights=c, minlength=bins) + 0.5
        for v, c in ((x, n), (y, m))
    )
    p, q = p / p.sum(), q / q.sum()
    index = float(((q - p) * np.log(q / p)).sum())
    return index, float((bins - 1) * (1 / n.sum() + 1 / m.sum()))
