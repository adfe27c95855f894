"""Intervals and tests for rates at one look, for description; the gates never use them."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import betaincinv, ndtri
from scipy.stats import binom

from shadow_report.statistics.interval import UNKNOWN, Interval


def wilson_interval(events: float, trials: float, alpha: float) -> Interval:
    """Wilson's score interval for a rate (Wilson 1927, JASA 22); fixed horizon, near 1 - alpha.

    Counts may be fractions, as effective trials are.
    """
    if trials == 0:
        return Interval(0.0, 1.0)
    z = float(-ndtri(alpha / 2))
    rate, shrink = events / trials, 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    lower = 0.0 if events == 0 else centre - half
    return Interval(lower, 1.0 if events == trials else centre + half)


def clopper_pearson_interval(events: int, trials: int, alpha: float) -> Interval:
    """The exact interval for a rate (Clopper, Pearson 1934, Biometrika 26); at least 1 - alpha."""
    if trials == 0:
        return Interval(0.0, 1.0)
    others = trials - events
    lower = float(betaincinv(events, others + 1, alpha / 2)) if events else 0.0
    upper = float(betaincinv(events + 1, others, 1 - alpha / 2)) if others else 1.0
    return Interval(lower, upper)


def tango_interval(gained: int, lost: int, trials: int, alpha: float) -> Interval:
    """Tango's score interval for P(gained) - P(lost) of paired outcomes; fixed horizon.

    Inverts the score test with the constrained maximum-likelihood estimate of P(lost)
    (Tango 1998, Statistics in Medicine 17, 891-908).
    """
    if trials == 0:
        return UNKNOWN
    z = float(-ndtri(alpha / 2))
    estimate = (gained - lost) / trials

    def score(delta: float) -> float:
        return _tango_score(gained, lost, trials, delta)

    lower = upper = estimate
    if estimate > -1:
        lower = float(brentq(lambda delta: score(delta) - z, -1 + 1e-12, estimate))
    if estimate < 1:
        upper = float(brentq(lambda delta: score(delta) + z, estimate, 1 - 1e-12))
    return Interval(lower, upper)


def _tango_score(gained: int, lost: int, trials: int, delta: float) -> float:
    """The standardised distance of the observed difference from `delta`, zero at equality."""
    distance = gained - lost - trials * delta
    if distance == 0:
        return 0.0
    linear = (2 * trials - gained + lost) * delta - gained - lost
    constant = -lost * delta * (1 - delta)
    root = math.sqrt(max(0.0, linear * linear - 8 * trials * constant))
    lost_rate = max(0.0, (root - linear) / (4 * trials))
    variance = trials * (2 * lost_rate + delta * (1 - delta))
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def mcnemar_exact(gained: int, lost: int) -> float:
    """The two-sided p-value of the exact McNemar test; 1 without a discordant pair.

    A p-value cannot show "no worse": use the interval of the difference for that.
    """
    discordant = gained + lost
    return min(1.0, 2 * float(binom.cdf(min(gained, lost), discordant, 0.5)))


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """The two-sided mid-p value of McNemar's test (Fagerland, Lydersen, Laake 2013,
    BMC Medical Research Methodology 13:91); less conservative than the exact one.
    """
    discordant, fewer = gained + lost, min(gained, lost)
    if gained == lost:
        return 1 - 0.5 * float(binom.pmf(fewer, discordant, 0.5))
    half = binom.cdf(fewer, discordant, 0.5) - 0.5 * binom.pmf(fewer, discordant, 0.5)
    return 2 * float(half)
