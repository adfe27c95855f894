"""The counts behind the gates."""

from __future__ import annotations

import pytest

from shadow_report.judging.rates import Excess, Net, Rate, Unmirrored

ALPHA = 0.05


def test_clusters_widen_the_bounds_and_keep_the_rate() -> None:
    """20 of 2,000 pairs, effectively 500: the rate of 2,000 with the certainty of 500."""
    clustered = Rate(20, 2_000, 500)
    assert clustered.rate == 0.01
    assert clustered.n_eff == 500
    assert clustered.bounds(ALPHA, ALPHA) == pytest.approx(Rate(5, 500).bounds(ALPHA, ALPHA))


@pytest.mark.parametrize(
    ("count", "grown"),
    [
        (Rate(3, 300), Rate(30, 3_000)),
        (Net(3, 1, 300), Net(30, 10, 3_000)),
        (Unmirrored(30, 300, 0.1), Unmirrored(300, 3_000, 0.1)),
        (Unmirrored(8, 300, 0.1), Unmirrored(80, 3_000, 0.1)),
        (
            Excess(Rate(30, 300), Rate(9, 100)),
            Excess(Rate(300, 3_000), Rate(9, 100)),
        ),
    ],
    ids=lambda count: type(count).__name__,
)
def test_bounds_at_more_trials_are_those_of_grown_counts(
    count: Rate | Net | Unmirrored | Excess, grown: Rate | Net | Unmirrored | Excess
) -> None:
    """What a count at the same rate would say after ten times the trials; noise is what it is."""
    assert count.bounds(ALPHA, ALPHA, 3_000) == pytest.approx(grown.bounds(ALPHA, ALPHA))


def test_change_is_gained_minus_lost() -> None:
    change = Net(9, 4, 1_000, 800)
    assert change.rate == pytest.approx(0.005)
    assert change.n_eff == 800


def test_a_mirror_that_was_lucky_lost_nothing() -> None:
    """More pairs than its share are neither a negative loss nor a proof."""
    lucky = Unmirrored(120, 1_000, 0.1)
    assert lucky.rate == 0
    assert lucky.bounds(ALPHA, ALPHA).upper > 0.01


def test_a_mirror_that_was_unlucky_may_lose_nothing() -> None:
    """Nine tenths of the pairs that were to be expected, of 2,000 calls: as chance has it."""
    assert Unmirrored(180, 2_000, 0.1).outlook == 0
    assert Unmirrored(18_000, 200_000, 0.1).outlook == pytest.approx(0.1)


def test_noise_is_taken_off_between_both_bounds() -> None:
    """Differing as often as the primary does from itself is not an excess, in either direction."""
    excess = Excess(Rate(500, 10_000), Rate(500, 10_000))
    assert excess.rate == 0
    low, high = excess.bounds(ALPHA, ALPHA)
    assert low < 0 < high < 0.02
    assert Excess(Rate(500, 10_000), Rate(5, 100)).bounds(ALPHA, ALPHA).upper > high
    assert Excess(Rate(5_000, 10_000), Rate(500, 10_000)).bounds(ALPHA, ALPHA).lower > 0.4


def test_no_trials_say_nothing() -> None:
    """No rate, and every value possible."""
    assert Rate(0, 0).rate is None
    assert Rate(0, 0).bounds(ALPHA, ALPHA) == (0, 1)
    assert Net(0, 0, 0).rate is None
    assert Net(0, 0, 0).bounds(ALPHA, ALPHA) == (-1, 1)
    assert Unmirrored(0, 0, 0.1).rate is None
    assert Unmirrored(0, 0, 0.1).bounds(ALPHA, ALPHA) == (0, 1)


def test_impossible_counts_are_refused() -> None:
    """A mistake in the counting stops the report instead of bending the verdict."""
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        Rate(5, 4)
    with pytest.raises(ValueError, match="-1 events"):
        Rate(-1, 4)
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        Net(3, 2, 4)
    with pytest.raises(ValueError, match="-1 events"):
        Net(3, -1, 4)
    with pytest.raises(ValueError, match="5 events among 4 trials"):
        Unmirrored(5, 4, 0.1)
    with pytest.raises(ValueError, match="effective_trials is 5 for 4 trials"):
        Rate(1, 4, 5)
