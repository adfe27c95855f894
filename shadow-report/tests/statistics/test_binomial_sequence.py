"""The beta-binomial confidence sequence, which rejects and describes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import ALPHA, events_at, is_refuted, log_evidence, look_times, share_ever
from scipy.integrate import quad
from scipy.stats import beta
from statsmodels.stats.proportion import proportion_confint

from shadow_report.statistics.sequences import beta_binomial_interval

COUNTS = st.integers(1, 10**8).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.sampled_from([0.05, 0.05 / 3, 0.01]))
def test_each_end_is_where_the_evidence_reaches_one_over_alpha(
    counts: tuple[int, int], alpha: float
) -> None:
    """From one trial to 1e8, both ends solve M(p) = 1/alpha and hold the observed rate."""
    events, trials = counts
    interval = beta_binomial_interval(events, trials, alpha)
    assert 0 <= interval.lower <= events / trials <= interval.upper <= 1
    assert (interval.lower == 0) == (events == 0)
    # Towards 1 a double has no digits left to hold the end, so ask its mirror image instead.
    mirrored = beta_binomial_interval(trials - events, trials, alpha)
    assert interval.upper == pytest.approx(1 - mirrored.lower, abs=1e-9)
    for end in (interval.lower, interval.upper):
        if 0 < end < 0.999:
            assert log_evidence(events, trials, end) == pytest.approx(-math.log(alpha), abs=1e-4)


@pytest.mark.parametrize(
    ("trials", "width"),
    [(500, 0.0458), (2_000, 0.0236), (10_000, 0.0111), (100_000, 0.0038), (1_000_000, 0.00126)],
)
def test_width_is_about_twice_the_wilson_interval(trials: int, width: float) -> None:
    """At 98 % the price of looking at any time is the measured one, not more."""
    interval = beta_binomial_interval(round(0.98 * trials), trials, ALPHA)
    assert interval.upper - interval.lower == pytest.approx(width, rel=0.02)
    low, high = proportion_confint(round(0.98 * trials), trials, ALPHA, method="wilson")
    assert 1.5 < (interval.upper - interval.lower) / (high - low) < 2.5


@pytest.mark.parametrize(("events", "trials"), [(0, 5), (3, 7), (2.5, 9.0), (40, 40)])
def test_evidence_is_the_likelihood_ratio_averaged_over_the_prior(
    events: float, trials: float
) -> None:
    """The closed form equals the integral that it stands for."""
    rate = 0.3
    prior = beta(0.5, 0.5)

    def ratio(angle: float) -> float:
        # p = sin^2 takes away the poles of Jeffreys' prior at both ends: it becomes uniform.
        p = math.sin(angle) ** 2
        return (p / rate) ** events * ((1 - p) / (1 - rate)) ** (trials - events) * 2 / math.pi

    integral, _ = quad(ratio, 0, math.pi / 2)
    assert prior.mean() == 0.5
    assert log_evidence(events, trials, rate) == pytest.approx(math.log(integral), rel=1e-8)


@pytest.mark.parametrize("rate", [0.0005, 0.001, 0.002, 0.01, 0.05, 0.5, 0.98])
def test_true_rate_is_missed_at_any_of_200_looks_in_at_most_alpha(rate: float) -> None:
    """Looking 200 times up to 200,000 pairs never costs more than alpha."""
    times = look_times(200_000)
    events = events_at(times, rate, runs=4_000, seed=1)
    missed = is_refuted(events, times.astype(np.float64), rate, ALPHA)
    assert share_ever(missed) <= ALPHA


def test_outcomes_between_zero_and_one_keep_the_promise() -> None:
    """Cluster means are such outcomes: the sequence stays valid for them, only wider."""
    times = look_times(5_000)
    outcomes = np.random.default_rng(2).beta(0.02, 1.98, size=(400, 5_000))
    events = outcomes.cumsum(axis=1)[:, times - 1]
    assert share_ever(is_refuted(events, times.astype(np.float64), 0.01, ALPHA)) <= ALPHA


def test_no_trials_say_nothing() -> None:
    """Without data the interval is everything."""
    assert beta_binomial_interval(0, 0, ALPHA) == (0, 1)


def test_impossible_counts_are_refused() -> None:
    """More events than trials is a mistake of the caller, named with both numbers."""
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        beta_binomial_interval(5, 4, ALPHA)
