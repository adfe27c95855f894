"""An exact anytime interval for the difference of two paired rates."""

from __future__ import annotations

from shadow_report.statistics.binomial_sequence import beta_binomial_interval
from shadow_report.statistics.interval import Interval


def difference_interval(gained: float, lost: float, trials: float, alpha: float) -> Interval:
    """Holds P(gained) - P(lost) at all looks together with chance at least 1 - alpha (anytime).

    Among `trials` pairs, `gained` have the outcome on the shadow's side only and `lost` on the
    primary's only. Each of both rates gets a beta-binomial confidence sequence at alpha/2; their
    difference follows by a union bound, without large-sample assumptions (arXiv:1810.08240).
    """
    if trials <= 0:
        return Interval(-1.0, 1.0)
    gains = beta_binomial_interval(gained, trials, alpha / 2)
    losses = beta_binomial_interval(lost, trials, alpha / 2)
    return Interval(gains.lower - losses.upper, gains.upper - losses.lower)
