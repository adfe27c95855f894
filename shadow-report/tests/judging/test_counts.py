"""The counts behind the gates."""

from __future__ import annotations

import pytest

from shadow_report.judging.gates import ChangeTally, Tally

ALPHA = 0.05


def test_clusters_widen_the_interval_and_keep_the_rate() -> None:
    """20 of 2,000 pairs, effectively 500: the rate of 2,000 with the certainty of 500."""
    clustered = Tally(20, 2_000, 500)
    assert clustered.rate == 0.01
    assert clustered.n_eff == 500
    assert clustered.interval(ALPHA) == pytest.approx(Tally(5, 500).interval(ALPHA))


def test_interval_at_more_trials_is_that_of_grown_counts() -> None:
    """What a tally at the same rate would say after ten times the trials."""
    assert Tally(3, 300).interval(ALPHA, 3_000) == pytest.approx(Tally(30, 3_000).interval(ALPHA))
    grown = ChangeTally(3, 1, 300).interval(ALPHA, 3_000)
    assert grown == pytest.approx(ChangeTally(30, 10, 3_000).interval(ALPHA))


def test_change_is_gained_minus_lost() -> None:
    """The net share, and the gains alone."""
    change = ChangeTally(9, 4, 1_000, 800)
    assert change.rate == pytest.approx(0.005)
    assert change.gains == Tally(9, 1_000, 800)
    assert change.n_eff == 800


def test_no_trials_say_nothing() -> None:
    """No rate, and every value possible."""
    assert Tally(0, 0).rate is None
    assert Tally(0, 0).interval(ALPHA) == (0, 1)
    assert ChangeTally(0, 0, 0).rate is None
    assert ChangeTally(0, 0, 0).interval(ALPHA) == (-1, 1)


def test_impossible_counts_are_refused() -> None:
    """A mistake in the counting stops the report instead of bending the verdict."""
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        Tally(5, 4)
    with pytest.raises(ValueError, match="-1 events"):
        Tally(-1, 4)
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        ChangeTally(3, 2, 4)
    with pytest.raises(ValueError, match="-1 events"):
        ChangeTally(3, -1, 4)
    with pytest.raises(ValueError, match="effective_trials is 5 for 4 trials"):
        Tally(1, 4, 5)
