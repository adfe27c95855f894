"""How far a quantile moved between paired samples; fixed horizon, description."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from shadow_report.statistics.interval import UNKNOWN, Interval

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
