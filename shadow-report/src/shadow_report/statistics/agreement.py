"""How well two series of numbers agree, from streaming moments; fixed horizon, description."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from shadow_report.statistics.samples import PairMoments
from shadow_report.statistics.sequences import UNKNOWN, Estimate, Interval

__all__ = ["LimitsOfAgreement", "PairMoments", "limits_of_agreement", "lin_ccc", "pearson"]


def pearson(moments: PairMoments, alpha: float) -> Estimate:
    """Pearson's correlation with Fisher's z interval (Fisher 1921, Metron 1).

    NaN when a side is constant; the interval is NaN below four pairs.
    """
    correlation = _correlation(moments)
    if math.isnan(correlation) or moments.n < 4:
        return Estimate(correlation, UNKNOWN)
    return Estimate(correlation, _fisher_interval(correlation, 1 / (moments.n - 3), alpha))


def lin_ccc(moments: PairMoments, alpha: float) -> Estimate:
    """Lin's concordance: 1 only when shadow equals primary, unlike a correlation.

    Interval on Fisher's z scale (Lin 1989, Biometrics 45, 255-268, with the correction of 2000,
    Biometrics 56, 324). NaN when both sides are the same constant.
    """
    n = moments.n
    shift = moments.mean_shadow - moments.mean_primary
    denominator = moments.m2_primary + moments.m2_shadow + n * shift * shift
    if n < 2 or denominator == 0:
        return Estimate(math.nan, UNKNOWN)
    concordance = 2 * moments.comoment / denominator
    correlation = _correlation(moments)
    if math.isnan(correlation) or correlation == 0 or n < 4:
        return Estimate(concordance, UNKNOWN)
    if abs(concordance) >= 1:
        return Estimate(concordance, Interval(concordance, concordance))
    scale = math.sqrt(moments.m2_primary) * math.sqrt(moments.m2_shadow) / n
    shift_squared = shift * shift / scale
    c2, r2 = concordance**2, correlation**2
    variance = (
        (1 - r2) * c2 / ((1 - c2) * r2)
        + 2 * concordance**3 * (1 - concordance) * shift_squared / (correlation * (1 - c2) ** 2)
        - c2**2 * shift_squared**2 / (2 * r2 * (1 - c2) ** 2)
    ) / (n - 2)
    return Estimate(concordance, _fisher_interval(concordance, max(0.0, variance), alpha))


@dataclass(frozen=True, slots=True)
class LimitsOfAgreement:
    """Between `lower` and `upper` lie near 95 % of the differences shadow - primary."""

    bias: float
    lower: Estimate
    upper: Estimate


def limits_of_agreement(moments: PairMoments, alpha: float) -> LimitsOfAgreement:
    """Bland and Altman's bias +- 1.96 sd, each limit with its interval.

    The variance of a limit is sd^2 (1/n + 1.96^2 / (2 (n - 1))) (Bland, Altman 1999, Statistical
    Methods in Medical Research 8, 135-160). NaN below two pairs.
    """
    difference = moments.difference
    if difference.n < 2:
        unknown = Estimate(math.nan, UNKNOWN)
        return LimitsOfAgreement(difference.mean if difference.n else math.nan, unknown, unknown)
    reach = 1.959963984540054 * difference.standard_deviation
    error = difference.standard_deviation * math.sqrt(
        1 / difference.n + 1.959963984540054**2 / (2 * (difference.n - 1))
    )
    half = float(-ndtri(alpha / 2)) * error

    def limit(value: float) -> Estimate:
        return Estimate(value, Interval(value - half, value + half))

    mean = difference.mean
    return LimitsOfAgreement(mean, limit(mean - reach), limit(mean + reach))


def _correlation(moments: PairMoments) -> float:
    scale = math.sqrt(moments.m2_primary) * math.sqrt(moments.m2_shadow)
    if moments.n < 2 or scale == 0:
        return math.nan
    return max(-1.0, min(1.0, moments.comoment / scale))


def _fisher_interval(value: float, variance: float, alpha: float) -> Interval:
    if abs(value) >= 1:
        return Interval(value, value)
    half = float(-ndtri(alpha / 2)) * math.sqrt(variance)
    centre = math.atanh(value)
    return Interval(math.tanh(centre - half), math.tanh(centre + half))


def cohens_kappa(confusion: ArrayLike, alpha: float) -> Estimate:
    """Cohen's kappa of a square count matrix (rows primary, columns shadow) with its interval.

    Large-sample variance of Fleiss, Cohen, Everitt 1969 (Psychological Bulletin 72, 323-327).
    NaN without pairs, or when both sides only ever give one and the same label.
    """
    shares, n = _shares(confusion)
    if n == 0:
        return Estimate(math.nan, UNKNOWN)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, by_chance = float(np.trace(shares)), float(rows @ columns)
    if by_chance >= 1:
        return Estimate(math.nan, UNKNOWN)
    kappa = (agreed - by_chance) / (1 - by_chance)
    off = shares * (columns[:, None] + rows[None, :]) ** 2
    diagonal = np.diag(shares) * (1 - (rows + columns) * (1 - kappa)) ** 2
    variance = (
        diagonal.sum()
        + (1 - kappa) ** 2 * (off.sum() - np.trace(off))
        - (kappa - by_chance * (1 - kappa)) ** 2
    ) / (n * (1 - by_chance) ** 2)
    half = float(-ndtri(alpha / 2)) * math.sqrt(max(0.0, float(variance)))
    return Estimate(kappa, Interval(max(-1.0, kappa - half), min(1.0, kappa + half)))


def gwet_ac1(confusion: ArrayLike) -> float:
    """Gwet's AC1: like kappa, but it does not collapse when one label dominates.

    (Gwet 2008, British Journal of Mathematical and Statistical Psychology 61, 29-48.) NaN without
    pairs or with fewer than two labels.
    """
    shares, n = _shares(confusion)
    labels = len(shares)
    if n == 0 or labels < 2:
        return math.nan
    usual = (shares.sum(axis=1) + shares.sum(axis=0)) / 2
    by_chance = float((usual * (1 - usual)).sum()) / (labels - 1)
    return (float(np.trace(shares)) - by_chance) / (1 - by_chance)


def _shares(confusion: ArrayLike) -> tuple[NDArray[np.float64], float]:
    counts = np.asarray(confusion, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"The confusion matrix has shape {counts.shape}; give a square one.")
    n = float(counts.sum())
    return (counts / n if n else counts), n


# An interval for p99 needs values beyond it: with fewer than this many the density out there is
# a guess, and the honest interval is none.
MIN_BEYOND = 10


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
    half = float(-ndtri(alpha / 2)) * math.sqrt(max(0.0, variance) / x.size)
    return QuantileShift(share, at_x, at_y, shift, Interval(shift - half, shift + half))


def _bandwidth(n: int, share: float, alpha: float) -> float:
    z, at = float(-ndtri(alpha / 2)), float(ndtri(share))
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
