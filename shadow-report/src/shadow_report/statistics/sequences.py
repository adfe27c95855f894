"""Bounds that hold at every look at once (confidence sequences), and how long they take.

The two bounds of a gate are asked each at its own alpha, and a gate shows exactly the two that
decided it: the upper one lets it pass, the lower one fails it. Of a rate they are `rate_bounds`, of
a difference of two `net_bounds`, of the coverage of a partial mirror `coverage_bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from shadow_report.statistics.samples import Moments


class Interval(NamedTuple):
    """A closed interval, `lower <= upper`; both ends are NaN when the data cannot say."""

    lower: float
    upper: float


UNKNOWN = Interval(math.nan, math.nan)


def crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """The place, to some 1e-13 of its size, where a growing function crosses zero; by bisection.

    It is below zero at `low` and not at `high`.
    """
    while high - low > 1e-13 * max(1.0, abs(low), abs(high)):
        middle = (low + high) / 2
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return high


# Jeffreys' prior: it spends least where rare events live.
PRIOR_EVENTS = 0.5
PRIOR_OTHERS = 0.5


def beta_binomial_interval(events: float, trials: float, alpha: float) -> Interval:
    """Holds the true rate at all looks together with chance at least 1 - alpha (anytime, exact).

    It is `{p : M(p) < 1/alpha}`, where M(p) is the likelihood averaged over the prior, relative to
    that of p. Under the true rate M is a nonnegative martingale that starts at 1, so it ever
    reaches 1/alpha with chance at most alpha (Ville). Counts may be fractions: for outcomes
    anywhere in [0, 1] it is a supermartingale, which keeps the promise (Howard, Ramdas, McAuliffe,
    Sekhon 2021, arXiv:1810.08240, the sub-Bernoulli case; Robbins 1970).

    Without trials it is [0, 1]. Good for trials up to 1e8 and beyond: the two ends are found on
    the scale of log odds, where a rate of 1e-9 is as easy as one half.
    """
    if trials <= 0:
        return Interval(0.0, 1.0)
    others = trials - events
    if not (0 <= events <= trials):
        raise ValueError(f"{events} events among {trials} trials; give 0 <= events <= trials.")
    lower = _lower_end(events, others, alpha) if events > 0 else 0.0
    upper = _upper_end(events, others, alpha) if others > 0 else 1.0
    return Interval(lower, upper)


def _lower_end(events: float, others: float, alpha: float) -> float:
    return _odds_to_rate(-_upper_log_odds(others, events, alpha))


def _upper_end(events: float, others: float, alpha: float) -> float:
    return _odds_to_rate(_upper_log_odds(events, others, alpha))


def _upper_log_odds(events: float, others: float, alpha: float) -> float:
    """The log odds above the observed rate at which the evidence reaches 1/alpha."""
    constant = (
        float(scipy.special.betaln(PRIOR_EVENTS + events, PRIOR_OTHERS + others))
        - float(scipy.special.betaln(PRIOR_EVENTS, PRIOR_OTHERS))
        + math.log(alpha)
    )

    def excess(log_odds: float) -> float:
        # log p = -log(1 + e^-x) and log(1 - p) = -log(1 + e^x): no cancellation at either end.
        return (
            constant + events * _log_one_plus_exp(-log_odds) + others * _log_one_plus_exp(log_odds)
        )

    # The evidence is lowest, below 1, at the observed rate; without events that is 0, so start low.
    start = math.log(max(events, 1e-3) / others)
    step = 1.0
    while excess(start + step) < 0:
        step *= 2
    return crossing(excess, start, start + step)


def _log_one_plus_exp(power: float) -> float:
    return max(power, 0.0) + math.log1p(math.exp(-abs(power)))


def _odds_to_rate(log_odds: float) -> float:
    if log_odds < 0:
        return math.exp(log_odds) / (1 + math.exp(log_odds))
    return 1 / (1 + math.exp(-log_odds))


# The alternatives to "the rate is `margin`" are `margin * u` with u from Beta(SHAPE, 1). One half
# is Jeffreys' exponent. Without an event the bound then clears 0.1 % after 3,786 trials and 1 %
# after 377, 1.26 times what a test with a fixed n needs; a smaller shape would need fewer, and
# twice as many for a rate of half the margin.
SHAPE = 0.5


def log_evidence_below(
    events: ArrayLike, trials: ArrayLike, margin: ArrayLike
) -> NDArray[np.float64]:
    """The logarithm of an e-process against "the rate is at least `margin`"; arrays broadcast.

    While every trial has an event with chance at least `margin`, given all before it, the chance
    that this ever reaches log(1/alpha) is at most alpha (Ville's inequality). It is the likelihood
    ratio of `margin * u` to `margin`, averaged over u in [0, 1]: every such ratio is a
    supermartingale for every rate from `margin` up, so no alternative above the margin, which
    could never help, is paid for (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021,
    arXiv:1810.08240). Counts may be fractions: outcomes anywhere in [0, 1] keep the promise.
    It grows with `margin`, because it does so for each u; `margin` lies strictly in (0, 1).
    """
    k, n, m = (np.asarray(value, dtype=np.float64) for value in (events, trials, margin))
    a, b = k + SHAPE, n - k + 1
    # Far below the observed rate the incomplete beta function underflows: no evidence at all.
    with np.errstate(divide="ignore"):
        mixture = np.log(scipy.special.betainc(a, b, m)) + scipy.special.betaln(a, b)
    return np.asarray(
        math.log(SHAPE) + mixture - scipy.special.xlogy(a, m) - scipy.special.xlog1py(n - k, -m)
    )


def upper_bound(events: float, trials: float, alpha: float) -> float:
    """Lies above the true rate at every look together with chance at least 1 - alpha (anytime).

    It is the smallest margin that `log_evidence_below` refutes at alpha, so the bound is below a
    margin exactly when that margin is refuted, and all margins are refuted together. It lies
    above the observed rate; 1 without trials. Exact for independent trials, and for outcomes in
    [0, 1]; see `dependence` for others. Good for trials up to 1e8.
    """
    _check(events, trials)
    if trials <= 0 or events == trials:
        return 1.0
    others = trials - events
    a, b = events + SHAPE, others + 1
    constant = math.log(SHAPE) + float(scipy.special.betaln(a, b)) + math.log(alpha)

    def excess(log_odds: float) -> float:
        # `log_evidence_below` of single numbers: with arrays of one it takes ten times as long, and
        # a report asks it thousands of times.
        below = float(scipy.special.betainc(a, b, _odds_to_rate(log_odds)))
        return (
            constant
            + (math.log(below) if below else -math.inf)
            + a * _log_one_plus_exp(-log_odds)
            + others * _log_one_plus_exp(log_odds)
        )

    start = math.log(max(events, 1e-3) / others)
    step = 1.0
    while excess(start + step) < 0:
        step *= 2
        if start + step > 36:
            # Nearer to 1 than a double can say.
            return 1.0
    return _odds_to_rate(crossing(excess, start, start + step))


def lower_bound(events: float, trials: float, alpha: float) -> float:
    """Lies below the true rate at every look together with chance at least 1 - alpha (anytime).

    The lower end of the beta-binomial sequence with Jeffreys' prior over all rates. A prior
    truncated to rates above the margin would gain nothing: there lies 98 % of Jeffreys' prior.
    """
    _check(events, trials)
    return beta_binomial_interval(events, trials, alpha).lower


def rate_bounds(events: float, trials: float, alpha: float, reject_alpha: float) -> Interval:
    """Both bounds as a gate shows them: `upper` at `alpha`, `lower` at `reject_alpha`.

    A gate with a maximum passes exactly when `upper <= maximum` and fails exactly when
    `lower > maximum`. Both together hold with chance at least 1 - alpha - reject_alpha.
    """
    return Interval(
        lower_bound(events, trials, reject_alpha) if events > 0 else 0.0,
        upper_bound(events, trials, alpha),
    )


def _check(events: float, trials: float) -> None:
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events among {trials} trials; give 0 <= events <= trials.")


# The stakes, as 1 minus the share of the largest one that may be bet: the arcsine law in 512
# equally likely steps. Small stakes win where many pairs cross both ways, the largest ones where
# none does, and the arcsine law has most of its weight at both ends.
_STEPS = 512
_KEPT = np.sin((np.arange(_STEPS) + 0.5) * math.pi / (2 * _STEPS)) ** 2


def log_net_evidence_below(
    gained: ArrayLike, lost: ArrayLike, trials: ArrayLike, margin: ArrayLike
) -> NDArray[np.float64]:
    """The logarithm of an e-process against "gained minus lost is at least `margin`" of trials.

    Each trial gives d = 1 (gained), -1 (lost) or 0. While E[d] >= `margin` given all before it,
    1 + stake (margin - d) has mean at most 1 for every stake from 0 to 1 / (1 - margin), so the
    products, averaged over the stakes, ever reach 1/alpha with chance at most alpha
    (Waudby-Smith, Ramdas 2024, JRSS B 86, 1-27, the betting sequence with a fixed mixture).
    Nothing is assumed of the variance: the stakes that suit it win. It depends on the counts
    only and grows with `margin`, which lies strictly in (-1, 1). Arrays broadcast; counts may be
    fractions.
    """
    g, b, n, m = (
        np.asarray(value, dtype=np.float64)[..., np.newaxis]
        for value in (gained, lost, trials, margin)
    )
    stake = (1 - _KEPT) / (1 - m)
    logs = g * np.log(_KEPT) + b * np.log1p(stake * (1 + m)) + (n - g - b) * np.log1p(stake * m)
    return np.asarray(scipy.special.logsumexp(logs, axis=-1) - math.log(_STEPS))


def net_upper_bound(gained: float, lost: float, trials: float, alpha: float) -> float:
    """Lies above P(gained) - P(lost) at every look together with chance at least 1 - alpha.

    Anytime and exact; the smallest margin that `log_net_evidence_below` refutes. 1 without trials.
    """
    if not (gained >= 0 and lost >= 0 and gained + lost <= trials):
        raise ValueError(
            f"{gained} gained and {lost} lost among {trials} trials; give no more than trials."
        )
    if trials <= 0 or gained == trials:
        return 1.0
    threshold = -math.log(alpha)

    def excess(margin: float) -> float:
        return float(log_net_evidence_below(gained, lost, trials, margin)) - threshold

    low = (gained - lost) / trials
    # At the observed value there is no evidence; at all lost, -1 itself would divide by zero.
    low, high = max(low, -1 + 1e-12), 1 - 1e-12
    return crossing(excess, low, high) if excess(high) >= 0 else 1.0


def net_bounds(
    gained: float, lost: float, trials: float, alpha: float, reject_alpha: float
) -> Interval:
    """Both bounds as a gate shows them, as `rate_bounds`; [-1, 1] without trials."""
    return Interval(
        -net_upper_bound(lost, gained, trials, reject_alpha),
        net_upper_bound(gained, lost, trials, alpha),
    )


# The alternatives lie between the coverage in question (0) and a mirror that loses nothing (1).
# Half of the weight is on the latter, which costs the others one factor of 2.
_PLACES = np.linspace(1 / 8, 1.0, 8)
_WEIGHTS = np.array([0.5 / 7] * 7 + [0.5])


def log_coverage_evidence(
    pairs: ArrayLike, calls: ArrayLike, share: float, coverage: ArrayLike
) -> NDArray[np.float64]:
    """The logarithm of an e-process against "a mirrored call is paired with at most `coverage`".

    While each call has a pair with chance at most `share * coverage`, given all before it, this
    ever reaches log(1/alpha) with chance at most alpha. The alternatives are the rates from there
    up to `share`, which no mirror exceeds. `share` and `coverage` lie strictly in (0, 1); arrays
    broadcast.
    """
    k, n, c = (
        np.asarray(value, dtype=np.float64)[..., np.newaxis] for value in (pairs, calls, coverage)
    )
    null = share * c
    other = null + (share - null) * _PLACES
    logs = (
        scipy.special.xlogy(k, other)
        - scipy.special.xlogy(k, null)
        + scipy.special.xlog1py(n - k, -other)
        - scipy.special.xlog1py(n - k, -null)
    )
    return np.asarray(scipy.special.logsumexp(logs, axis=-1, b=_WEIGHTS))


def coverage_bounds(
    pairs: float, calls: float, share: float, alpha: float, reject_alpha: float
) -> Interval:
    """Bounds on the share of mirrored calls that have a pair, at every look together.

    `lower` holds with chance at least 1 - alpha and `upper` with at least 1 - reject_alpha: the
    gate passes exactly when `lower >= minimum` and fails exactly when `upper < minimum`. `share`
    is the configured one, in (0, 1]. `upper` is cut to 1. A mirror that copies more than `share`
    is another finding: `share_is_exceeded`.
    """
    if not (0 < share <= 1 and 0 <= pairs <= calls):
        raise ValueError(
            f"{pairs} pairs among {calls} calls at a share of {share}; "
            "give 0 <= pairs <= calls and 0 < share <= 1."
        )
    if calls <= 0:
        return Interval(0.0, 1.0)
    if share == 1:
        # Every call should have one, so the missing ones are counted as in any other gate.
        missing = rate_bounds(calls - pairs, calls, alpha, reject_alpha)
        return Interval(1 - missing.upper, 1 - missing.lower)
    upper = min(1.0, upper_bound(pairs, calls, reject_alpha) / share)
    return Interval(_lower_coverage(pairs, calls, share, alpha), upper)


def share_is_exceeded(pairs: float, calls: float, share: float, alpha: float) -> bool:
    """Whether the mirror copies more calls than configured, said in error with chance <= alpha."""
    return calls > 0 and lower_bound(pairs, calls, alpha) > share


def _lower_coverage(pairs: float, calls: float, share: float, alpha: float) -> float:
    threshold = -math.log(alpha)

    def shortfall(coverage: float) -> float:
        return threshold - float(log_coverage_evidence(pairs, calls, share, coverage))

    # The evidence falls as the coverage in question grows, up to the observed one, where it is
    # below 1: the logarithm of a likelihood is concave, so what moves towards its top gains less.
    low = 1e-12
    high = min(pairs / (calls * share), 1 - 1e-12)
    if high <= low or shortfall(low) >= 0:
        return 0.0
    return crossing(shortfall, low, high)


# The width is best near this many values and stays within 20 % of the best from a tenth to
# tenfold. It is fixed so that the interval does not depend on when one looks.
TIGHTEST_AT = 5_000
# Before some 20 values have moved, the variance is not known well enough: a first look with two
# differing pairs missed the mean in 16 % of the runs (facts measured for this project), not 5 %.
MIN_NONZERO = 20


def mean_interval(moments: Moments, alpha: float, nonzero: int) -> Interval:
    """Holds the true mean at all looks together with chance near 1 - alpha (anytime, asymptotic).

    mean +- sd * sqrt(2 (n r^2 + 1) / (n^2 r^2) * log(sqrt(n r^2 + 1) / alpha))
    (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, arXiv:2103.06476, theorem 2.2).
    NaN while fewer than `MIN_NONZERO` of the values are not zero (`nonzero`): for paired
    differences, until so many pairs differ.
    """
    n = moments.n
    if nonzero < MIN_NONZERO:
        return UNKNOWN
    spread = -2 * math.log(alpha)
    scaled = n * (spread + math.log(spread + 1)) / TIGHTEST_AT
    half = moments.standard_deviation * math.sqrt(
        2 * (scaled + 1) / (n * scaled) * math.log(math.sqrt(scaled + 1) / alpha)
    )
    return Interval(moments.mean - half, moments.mean + half)


# Beyond a billion pairs the answer to "how long" is "no".
TRIALS_LIMIT = 1_000_000_000


def trials_until(is_settled: Callable[[int], bool], start: int) -> int | None:
    """The fewest trials from `start` on (at least 1) at which `is_settled`; None past the limit.

    `is_settled` must stay true once it is true; it is asked some sixty times.
    """
    low = high = max(1, start)
    if is_settled(low):
        return low
    while not is_settled(high):
        if high >= TRIALS_LIMIT:
            return None
        low, high = high, min(2 * high, TRIALS_LIMIT)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_settled(middle) else (middle, high)
    return high
