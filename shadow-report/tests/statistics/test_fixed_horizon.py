"""One-look intervals and tests, against statsmodels and published figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from shadow_report.statistics.fixed_horizon import (
    clopper_pearson_interval,
    mcnemar_exact,
    mcnemar_mid_p,
    tango_interval,
    wilson_interval,
)

COUNTS = [(0, 10), (1, 10), (5, 10), (10, 10), (3, 5_000), (4_999, 5_000)]


@pytest.mark.parametrize(("events", "trials"), COUNTS)
def test_rate_intervals_agree_with_statsmodels_and_scipy(events: int, trials: int) -> None:
    """Wilson and Clopper-Pearson, also at no and at all events."""
    for ours, method in ((wilson_interval, "wilson"), (clopper_pearson_interval, "beta")):
        theirs = proportion_confint(events, trials, 0.05, method=method)
        assert ours(events, trials, 0.05) == pytest.approx(theirs, abs=1e-12)
    exact = binomtest(events, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson_interval(events, trials, 0.05) == pytest.approx((exact.low, exact.high))


def test_tango_interval_agrees_with_the_published_example() -> None:
    """The airway example of Fagerland, Lydersen, Laake 2014: 1 and 7 discordant of 21."""
    assert tango_interval(1, 7, 21, 0.05) == pytest.approx((-0.5172, -0.0260), abs=5e-5)


@pytest.mark.parametrize(
    ("gained", "lost", "trials"), [(0, 0, 50), (5, 0, 5), (0, 5, 5), (3, 3, 40)]
)
def test_tango_interval_survives_the_corners(gained: int, lost: int, trials: int) -> None:
    """No discordant pair, only discordant pairs: ordered, within -1 and 1, around the estimate."""
    lower, upper = tango_interval(gained, lost, trials, 0.05)
    assert -1 <= lower <= (gained - lost) / trials <= upper <= 1
    assert upper > lower
    mirrored = tango_interval(lost, gained, trials, 0.05)
    assert mirrored == pytest.approx((-upper, -lower), abs=1e-9)


@pytest.mark.parametrize("trials", [500, 2_000, 10_000])
def test_tango_interval_covers_rare_changes(trials: int) -> None:
    """Nominal coverage for P(gained) .003 and P(lost) .001, where Wald's covers 78 % at 500."""
    drawn = np.random.default_rng(41).multinomial(trials, [0.003, 0.001, 0.996], size=1_000)
    pairs, weights = np.unique(drawn[:, :2], axis=0, return_counts=True)
    covered = 0
    for (gained, lost), weight in zip(pairs, weights, strict=True):
        lower, upper = tango_interval(int(gained), int(lost), trials, 0.05)
        covered += weight * (lower <= 0.002 <= upper)
    assert 0.93 <= covered / 1_000 <= 0.995


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_rate_intervals_cover_nominally(rate: float) -> None:
    """Wilson near 95 %, Clopper-Pearson at least 95 %."""
    events = np.random.default_rng(42).binomial(1_000, rate, size=3_000)
    wilson = [wilson_interval(int(k), 1_000, 0.05) for k in events]
    exact = [clopper_pearson_interval(int(k), 1_000, 0.05) for k in events]
    assert 0.935 <= np.mean([low <= rate <= high for low, high in wilson]) <= 0.965
    assert np.mean([low <= rate <= high for low, high in exact]) >= 0.95


@pytest.mark.parametrize(("gained", "lost"), [(1, 7), (0, 0), (4, 4), (30, 12), (0, 9)])
def test_mcnemar_agrees_with_statsmodels(gained: int, lost: int) -> None:
    """The exact p-value; the mid-p value is smaller by half the chance of the observed split."""
    assert mcnemar_exact(gained, lost) == pytest.approx(
        mcnemar([[10, gained], [lost, 10]], exact=True).pvalue if gained + lost else 1.0
    )
    chance = math.comb(gained + lost, gained) / 2 ** (gained + lost)
    if gained != lost:
        assert mcnemar_mid_p(gained, lost) == pytest.approx(mcnemar_exact(gained, lost) - chance)
    else:
        assert mcnemar_mid_p(gained, lost) == pytest.approx(1 - chance / 2)


def test_mcnemar_mid_p_of_the_published_example() -> None:
    """1 and 7 discordant pairs: exact p .0703, mid-p .0391."""
    assert mcnemar_exact(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar_mid_p(1, 7) == pytest.approx(0.0391, abs=5e-5)


def test_no_trials_say_nothing() -> None:
    """Without data the rate is anywhere, and the difference unknown."""
    assert wilson_interval(0, 0, 0.05) == clopper_pearson_interval(0, 0, 0.05) == (0, 1)
    assert math.isnan(tango_interval(0, 0, 0, 0.05).lower)
