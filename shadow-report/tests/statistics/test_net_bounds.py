"""Gained minus lost: an identical shadow near the limit must be able to pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
from looks import ALPHA, changes_at, share_ever

from shadow_report.statistics.sequences import (
    log_net_evidence_below,
    net_bounds,
    net_upper_bound,
    upper_bound,
)

MARGIN = 0.01
LIMIT = -math.log(ALPHA)


def _ever_passes(gained: float, lost: float, last: int, runs: int, seed: int) -> float:
    times = np.unique(np.geomspace(30, last, 1_000).round().astype(np.int64))
    g, b = changes_at(times, gained, lost, runs, seed)
    flags = [
        log_net_evidence_below(x, y, times, MARGIN) >= LIMIT for x, y in zip(g, b, strict=True)
    ]
    return share_ever(np.array(flags))


@pytest.mark.parametrize("crossing", [0.0, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("times_margin", [1.0, 1.05])
def test_net_excess_at_the_margin_passes_in_at_most_alpha(
    crossing: float, times_margin: float
) -> None:
    """Whatever share of pairs crosses both ways, looked at 1,000 times."""
    gained = crossing + times_margin * MARGIN
    assert _ever_passes(gained, crossing, 100_000, runs=120, seed=1) <= ALPHA + 0.02


@pytest.mark.parametrize(("crossing", "pairs"), [(0.0, 450), (0.05, 60_000), (0.2, 200_000)])
def test_identical_shadow_passes(crossing: float, pairs: int) -> None:
    """Where 5 or 20 % of the pairs cross each way by chance, nine in ten pass by so many pairs."""
    assert _ever_passes(crossing, crossing, pairs, runs=60, seed=2) >= 0.9


def test_nothing_lost_is_nearly_the_bound_of_a_rate() -> None:
    """Allowing for losses costs some 15 % of the pairs where nothing is lost."""
    assert net_upper_bound(0, 0, 440, ALPHA) <= MARGIN
    for gained in (0, 3, 30):
        rate = upper_bound(gained, 5_000, ALPHA)
        net = net_upper_bound(gained, 0, 5_000, ALPHA)
        assert 0.95 * rate <= net <= 1.15 * rate


def test_bounds_mirror_each_other_and_hold_the_observed_value() -> None:
    """Swapping gained and lost turns the interval over."""
    for gained, lost, trials in [(5, 9, 300), (0, 40, 40), (1_000, 1_000, 20_000), (7, 0, 1e8)]:
        low, high = net_bounds(gained, lost, trials, ALPHA, ALPHA)
        assert low <= (gained - lost) / trials <= high
        assert net_bounds(lost, gained, trials, ALPHA, ALPHA) == (-high, -low)


def test_evidence_grows_with_the_margin() -> None:
    """So a pass is exactly a bound below the margin."""
    margins = np.linspace(-0.5, 0.5, 101)
    evidence = log_net_evidence_below(30, 20, 1_000, margins)
    assert (np.diff(evidence) > 0).all()


def test_all_newly_slow_fails_within_a_few_pairs() -> None:
    """Rejecting a shadow that is always slower needs a dozen pairs."""
    assert net_bounds(12, 0, 12, ALPHA, ALPHA / 4).lower > MARGIN


def test_no_trials_say_nothing_and_impossible_counts_are_refused() -> None:
    """As the other bounds."""
    assert net_bounds(0, 0, 0, ALPHA, ALPHA) == (-1, 1)
    with pytest.raises(ValueError, match="3 gained and 2 lost among 4 trials"):
        net_upper_bound(3, 2, 4, ALPHA)
