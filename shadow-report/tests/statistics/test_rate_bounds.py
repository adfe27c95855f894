"""The bounds that decide a gate: valid at every look, and nearly as fast as a fixed-n test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import ALPHA, events_at, share_ever
from scipy.integrate import quad

from shadow_report.statistics.sequences import (
    log_evidence_below,
    lower_bound,
    rate_bounds,
    trials_until,
    upper_bound,
)

REJECT_ALPHA = ALPHA / 4
COUNTS = st.integers(1, 10**8).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def _thousand_looks(margin: float) -> np.ndarray:
    """From before a pass is possible to 50 expected events."""
    return np.unique(np.geomspace(0.3 / margin, 50 / margin, 1_000).round().astype(np.int64))


def _ever_passes(margin: float, rate: float, runs: int, seed: int) -> float:
    times = _thousand_looks(margin)
    events = events_at(times, rate, runs, seed)
    return share_ever(log_evidence_below(events, times, margin) >= -math.log(ALPHA))


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("times_margin", [1.0, 1.05, 1.1])
def test_shadow_beyond_the_margin_is_promoted_in_at_most_alpha(
    margin: float, times_margin: float
) -> None:
    """At the margin and just beyond it, looked at 1,000 times."""
    assert _ever_passes(margin, margin * times_margin, runs=3_000, seed=1) <= ALPHA


@pytest.mark.parametrize("margin", [0.001, 0.01])
def test_shadow_of_half_the_margin_is_promoted(margin: float) -> None:
    """By 50 / margin pairs nine in ten pass; Jeffreys' prior over all rates let half pass."""
    assert _ever_passes(margin, margin / 2, runs=1_000, seed=2) >= 0.88


@pytest.mark.parametrize(("margin", "pairs", "fixed"), [(0.001, 3787, 2995), (0.01, 377, 299)])
def test_nothing_wrong_needs_at_most_1_3_times_the_fixed_number(
    margin: float, pairs: int, fixed: int
) -> None:
    """To the pair; the fixed number is the first with (1 - margin)^n <= alpha."""
    assert upper_bound(0, pairs, ALPHA) <= margin < upper_bound(0, pairs - 1, ALPHA)
    assert (1 - margin) ** fixed <= ALPHA < (1 - margin) ** (fixed - 1)
    assert pairs <= 1.3 * fixed


@given(COUNTS, st.sampled_from([0.05, 0.0125, 0.01]))
def test_bound_is_where_the_evidence_reaches_one_over_alpha(
    counts: tuple[int, int], alpha: float
) -> None:
    """From one trial to 1e8 the upper bound solves the equation, above the observed rate."""
    events, trials = counts
    bound = upper_bound(events, trials, alpha)
    assert events / trials <= bound <= 1
    if bound < 0.999:
        evidence = float(log_evidence_below(events, trials, bound))
        assert evidence == pytest.approx(-math.log(alpha), abs=1e-4)


@given(COUNTS, st.floats(1e-6, 0.9), st.floats(1.0001, 1.1))
def test_evidence_grows_with_the_margin(
    counts: tuple[int, int], margin: float, factor: float
) -> None:
    """So all margins are refuted together, and a pass is exactly a bound below the margin."""
    events, trials = counts
    low, high = log_evidence_below(events, trials, [margin, margin * factor])
    # Where the observed rate is far above, neither is any evidence at all, to the last digits.
    assert high >= low or low < 0 or high == pytest.approx(low, abs=1e-5)
    if margin > events / trials:
        assert (low >= -math.log(ALPHA)) <= (upper_bound(events, trials, ALPHA) <= margin + 1e-9)


@pytest.mark.parametrize(("events", "trials"), [(0, 5), (3, 40), (2.5, 90.0)])
def test_evidence_is_the_likelihood_ratio_averaged_over_the_prior(
    events: float, trials: float
) -> None:
    """The closed form equals the integral that it stands for."""
    margin = 0.1

    def ratio(root: float) -> float:
        # u = root^2 with a uniform root is Beta(1/2, 1).
        u = root * root
        return u**events * ((1 - margin * u) / (1 - margin)) ** (trials - events)

    integral, _ = quad(ratio, 0, 1)
    assert log_evidence_below(events, trials, margin) == pytest.approx(math.log(integral), rel=1e-7)


def test_outcomes_between_zero_and_one_keep_the_promise() -> None:
    """The means of clusters are such outcomes."""
    margin, times = 0.01, np.arange(1, 5_001)
    outcomes = np.random.default_rng(3).beta(0.02, 1.98, size=(300, 5_000))
    evidence = log_evidence_below(outcomes.cumsum(axis=1), times, margin)
    assert share_ever(evidence >= -math.log(ALPHA)) <= ALPHA


def test_gate_shows_the_bounds_that_decide_it() -> None:
    """The upper one at alpha, the lower one at the alpha of rejecting, each side of the rate."""
    bounds = rate_bounds(12, 4_000, ALPHA, REJECT_ALPHA)
    assert bounds.upper == upper_bound(12, 4_000, ALPHA)
    assert bounds.lower == lower_bound(12, 4_000, REJECT_ALPHA)
    assert bounds.lower < 12 / 4_000 < bounds.upper


def test_shadow_at_the_margin_is_rejected_in_at_most_its_share_of_alpha() -> None:
    """And one of twice the margin nearly always by 200 expected events."""
    times = np.unique(np.geomspace(100, 200_000, 60).round().astype(np.int64))
    share = []
    for rate in (0.001, 0.002):
        events = events_at(times, rate, runs=150, seed=4)
        share.append(
            np.mean(
                [
                    any(
                        k > 0.001 * n and lower_bound(k, n, REJECT_ALPHA) > 0.001
                        for k, n in zip(row, times.tolist(), strict=True)
                    )
                    for row in events.tolist()
                ]
            )
        )
    assert share[0] <= REJECT_ALPHA + 0.02
    assert share[1] >= 0.99


def test_how_many_more_settle_it() -> None:
    """At a tenth of the margin some 4,700 pairs do; at the margin itself no number does."""
    settled = trials_until(lambda n: upper_bound(0.0001 * n, n, ALPHA) <= 0.001, 1)
    assert settled is not None
    assert 4_000 < settled < 6_000
    assert trials_until(lambda n: upper_bound(0.001 * n, n, ALPHA) <= 0.001, 1) is None


def test_no_trials_say_nothing_and_impossible_counts_are_refused() -> None:
    """Without data any rate is possible; a mistake of the caller is named with its numbers."""
    assert rate_bounds(0, 0, ALPHA, REJECT_ALPHA) == (0, 1)
    assert upper_bound(4, 4, ALPHA) == 1
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        upper_bound(5, 4, ALPHA)
