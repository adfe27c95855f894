"""How well two series of numbers agree, from streaming moments; fixed horizon, description."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtri

from shadow_report.statistics.interval import UNKNOWN, Estimate, Interval
from shadow_report.statistics.moments import PairMoments

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
