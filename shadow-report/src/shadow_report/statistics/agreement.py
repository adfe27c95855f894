"""How far two series agree and where they differ, for description; fixed horizon, for one look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from shadow_report.statistics.samples import Moments, PairMoments
from shadow_report.statistics.sequences import UNKNOWN, Interval

# An interval for p99 needs values beyond it: with fewer than this many the density out there is
# a guess, and there is no honest interval.
MIN_BEYOND = 10
# Beyond the mean the hypergeometric law falls within some hundred square roots of the part's size.
TAIL_TERMS = 100_000


def pearson(moments: PairMoments) -> float:
    """Pearson's correlation; NaN when a side is constant."""
    scale = math.sqrt(moments.m2_primary) * math.sqrt(moments.m2_shadow)
    if moments.n < 2 or scale == 0:
        return math.nan
    return max(-1.0, min(1.0, moments.comoment / scale))


def limits_of_agreement(differences: Moments) -> Interval:
    """Between them lie near 95 % of the differences: bias +- 1.96 sd.

    (Bland, Altman 1999, Statistical Methods in Medical Research 8, 135-160.) The bias alone below
    two values.
    """
    reach = 1.96 * differences.standard_deviation if differences.n > 1 else 0.0
    return Interval(differences.mean - reach, differences.mean + reach)


def cohens_kappa(confusion: ArrayLike) -> float:
    """Cohen's kappa of a square count matrix (rows primary, columns shadow): agreement of labels
    beyond chance.

    NaN without pairs, or when both sides only ever give one and the same label.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"The confusion matrix has shape {counts.shape}; give a square one.")
    if not (n := float(counts.sum())):
        return math.nan
    shares = counts / n
    agreed, by_chance = float(np.trace(shares)), float(shares.sum(axis=1) @ shares.sum(axis=0))
    return math.nan if by_chance >= 1 else (agreed - by_chance) / (1 - by_chance)


@dataclass(frozen=True, slots=True)
class QuantileShift:
    """The quantile at `share` on both sides, and `shift` = shadow - primary with its interval.

    This is the difference of the quantiles, not the quantile of the differences.
    """

    share: float
    primary: float
    shadow: float
    shift: float
    interval: Interval


def quantile_shift(
    primary: ArrayLike, shadow: ArrayLike, share: float, alpha: float
) -> QuantileShift:
    """The shift of one quantile between paired values, with an interval near 1 - alpha.

    Bahadur's representation with the joint term of the pairing (Bahadur 1966, Annals of
    Mathematical Statistics 37, 577-580), densities from spacings with the bandwidth of Hall and
    Sheather 1988 (JRSS B 50, 381-391). The interval is NaN with fewer than `MIN_BEYOND` values
    beyond the quantile; all values must be finite.
    """
    x, y = np.asarray(primary, dtype=np.float64), np.asarray(shadow, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} primary and {y.size} shadow values; give as many of each.")
    if x.size == 0:
        return QuantileShift(share, math.nan, math.nan, math.nan, UNKNOWN)
    width = _bandwidth(x.size, share, alpha)
    levels = [share - width, share, share + width]
    low_x, at_x, high_x = (float(value) for value in np.quantile(x, levels))
    low_y, at_y, high_y = (float(value) for value in np.quantile(y, levels))
    shift = at_y - at_x
    if x.size * min(share, 1 - share) < MIN_BEYOND:
        return QuantileShift(share, at_x, at_y, shift, UNKNOWN)
    spread_x, spread_y = (high_x - low_x) / (2 * width), (high_y - low_y) / (2 * width)
    joint = _share_below_both(x, y, at_x, at_y) - share * share
    variance = share * (1 - share) * (spread_x**2 + spread_y**2) - 2 * joint * spread_x * spread_y
    half = float(-scipy.special.ndtri(alpha / 2)) * math.sqrt(max(0.0, variance) / x.size)
    return QuantileShift(share, at_x, at_y, shift, Interval(shift - half, shift + half))


def _bandwidth(n: int, share: float, alpha: float) -> float:
    z, at = float(-scipy.special.ndtri(alpha / 2)), float(scipy.special.ndtri(share))
    density = math.exp(-at * at / 2) / math.sqrt(2 * math.pi)
    width = float(n) ** (-1 / 3) * z ** (2 / 3) * (1.5 * density**2 / (2 * at * at + 1)) ** (1 / 3)
    # Past half of the way to the nearer end the spacing would reach into the extremes.
    return float(min(width, share / 2, (1 - share) / 2))


def _share_below_both(
    x: NDArray[np.float64], y: NDArray[np.float64], at_x: float, at_y: float
) -> float:
    return int(np.count_nonzero((x <= at_x) & (y <= at_y))) / x.size


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values: keeping those at or under q keeps the false discovery rate under q.

    (Benjamini, Hochberg 1995, JRSS B 57, 289-300.) Same order as the input; for independent or
    positively dependent tests.
    """
    p = np.asarray(p_values, dtype=np.float64).ravel()
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def fisher_p(bad: int, pairs: int, all_bad: int, all_pairs: int) -> float:
    """The chance of so many bad pairs or more in the slice if it were a random part of all.

    The upper tail of the hypergeometric law (Fisher's exact test, one-sided); 1 for a slice that
    is no worse than the whole.
    """
    if bad * all_pairs <= pairs * all_bad:
        return 1.0
    counts = np.arange(bad, min(pairs, all_bad) + 1)[:TAIL_TERMS].astype(np.float64)
    logs = _log_choose(all_bad, counts) + _log_choose(all_pairs - all_bad, pairs - counts)
    return float(min(1.0, np.exp(logs - _log_choose(all_pairs, np.float64(pairs))).sum()))


def _log_choose(n: int, k: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return np.asarray(-scipy.special.betaln(n - k + 1, k + 1) - np.log(n + 1.0))


def kolmogorov_smirnov_p(distance: float, first: int, second: int) -> float:
    """The chance of this distance between samples of these sizes from one law (asymptotic)."""
    return float(scipy.special.kolmogorov(distance * math.sqrt(first * second / (first + second))))


def same_shares_p(table: NDArray[np.float64]) -> float:
    """Pearson's chi-squared test that both rows have the same shares; 1 for a single column."""
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float((np.square(table - expected) / expected).sum())
    return float(scipy.special.chdtrc(table.shape[1] - 1, statistic))
