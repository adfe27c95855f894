"""A mirror that tosses a coin per call is judged by its pairs among all calls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from looks import ALPHA, events_at, share_ever

from shadow_report.statistics.sequences import (
    coverage_bounds,
    log_coverage_evidence,
    log_evidence_below,
    rate_bounds,
    share_is_exceeded,
)

MINIMUM = 0.99
REJECT_ALPHA = 0.01
# Calls that tell 100 % from 99 % at each share nine times out of ten, and more.
CALLS = {0.01: 15_000_000, 0.1: 1_500_000, 0.5: 150_000, 0.9: 20_000}


def _looks(share: float) -> np.ndarray:
    return np.unique(np.geomspace(10, CALLS[share], 1_000).round().astype(np.int64))


def _ever_passes(share: float, coverage: float, runs: int, seed: int) -> float:
    times = _looks(share)
    pairs = events_at(times, share * coverage, runs, seed)
    flags = [log_coverage_evidence(row, times, share, MINIMUM) >= -math.log(ALPHA) for row in pairs]
    return share_ever(np.array(flags))


def _ever_fails(share: float, coverage: float, runs: int, seed: int) -> float:
    times = _looks(share)
    pairs = events_at(times, share * coverage, runs, seed)
    evidence = log_evidence_below(pairs, times, share * MINIMUM)
    return share_ever(evidence >= -math.log(REJECT_ALPHA))


@pytest.mark.parametrize("share", CALLS)
def test_healthy_mirror_is_called_invalid_in_at_most_one_percent(share: float) -> None:
    """At 1,000 looks; the count of pairs varies by chance, and that is not a loss."""
    assert _ever_fails(share, 1.0, runs=1_000, seed=1) <= 0.01


@pytest.mark.parametrize("share", CALLS)
def test_mirror_that_loses_three_percent_fails_and_does_not_pass(share: float) -> None:
    """Not once in 200 runs of 1,000 looks does it pass, and in the end it fails."""
    assert _ever_passes(share, 0.97, runs=200, seed=2) == 0
    assert _ever_fails(share, 0.97, runs=200, seed=2) >= 0.99


@pytest.mark.parametrize("share", CALLS)
def test_mirror_at_the_minimum_passes_in_at_most_alpha(share: float) -> None:
    """The hardest bad mirror."""
    assert _ever_passes(share, MINIMUM, runs=300, seed=3) <= ALPHA


@pytest.mark.parametrize("share", CALLS)
def test_healthy_mirror_passes(share: float) -> None:
    """It can be proved, with many calls: 1.5 million at 10 %, 20,000 at 90 %."""
    assert _ever_passes(share, 1.0, runs=200, seed=4) >= 0.9


def test_bounds_decide_what_the_evidence_decides() -> None:
    """The gate passes exactly when the lower bound shown is not below the minimum."""
    for pairs, calls in [(60_000, 600_000), (59_800, 600_000), (59_700, 600_000), (180, 2_000)]:
        low, high = coverage_bounds(pairs, calls, 0.1, ALPHA, REJECT_ALPHA)
        refuted = log_coverage_evidence(pairs, calls, 0.1, MINIMUM) >= -math.log(ALPHA)
        assert (low >= MINIMUM) == bool(refuted)
        assert 0 <= low <= pairs / calls / 0.1 <= max(high, 1)


def test_full_mirror_is_a_share_of_missing_calls() -> None:
    """With a share of one there is no coin, and the missing calls are counted as ever."""
    missing = rate_bounds(3, 9_000, ALPHA, REJECT_ALPHA)
    bounds = coverage_bounds(8_997, 9_000, 1, ALPHA, REJECT_ALPHA)
    assert bounds == (1 - missing.upper, 1 - missing.lower)


def test_dead_mirror_is_below_the_minimum_after_some_fifty_calls() -> None:
    """A 10 % mirror without a single pair."""
    assert coverage_bounds(0, 20, 0.1, ALPHA, REJECT_ALPHA).upper > MINIMUM
    assert coverage_bounds(0, 80, 0.1, ALPHA, REJECT_ALPHA).upper < MINIMUM


def test_mirror_that_copies_more_than_configured_is_seen() -> None:
    """12 % instead of 10 %; and a healthy one is not."""
    assert share_is_exceeded(12_000, 100_000, 0.1, ALPHA)
    assert not share_is_exceeded(10_000, 100_000, 0.1, ALPHA)


def test_no_calls_say_nothing_and_impossible_counts_are_refused() -> None:
    """As the other bounds."""
    assert coverage_bounds(0, 0, 0.1, ALPHA, REJECT_ALPHA) == (0, 1)
    with pytest.raises(ValueError, match="5 pairs among 4 calls"):
        coverage_bounds(5, 4, 0.1, ALPHA, REJECT_ALPHA)
