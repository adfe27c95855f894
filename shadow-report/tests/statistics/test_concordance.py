"""Agreement of numbers from streaming moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from shadow_report.statistics.agreement import limits_of_agreement, lin_ccc, pearson
from shadow_report.statistics.samples import PairMoments
from shadow_report.statistics.sequences import Interval

RUNS = 1_500


def _holds(interval: Interval, truth: float) -> bool:
    return interval.lower <= truth <= interval.upper


def test_pearson_agrees_with_scipy() -> None:
    """The value and Fisher's interval."""
    random = np.random.default_rng(61)
    x = random.normal(size=200)
    y = 0.6 * x + random.normal(size=200)
    value, interval = pearson(PairMoments.of(x, y), 0.05)
    theirs = pearsonr(x, y)
    assert value == pytest.approx(theirs.statistic)
    assert interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_lin_ccc_agrees_with_its_definition() -> None:
    """2 cov / (var + var + squared shift), with moments divided by n."""
    random = np.random.default_rng(62)
    x = random.normal(3, 2, 500)
    y = x + random.normal(0.5, 1, 500)
    expected = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert lin_ccc(PairMoments.of(x, y), 0.05).value == pytest.approx(expected)


def test_intervals_cover_nominally() -> None:
    """Correlation .8, a shift of .3, equal spreads, 200 pairs: every interval near 95 %."""
    rho, shift = 0.8, 0.3
    random = np.random.default_rng(63)
    x = random.normal(size=(RUNS, 200))
    y = rho * x + math.sqrt(1 - rho**2) * random.normal(size=(RUNS, 200)) + shift
    concordance = 2 * rho / (2 + shift**2)
    spread = math.sqrt(2 - 2 * rho)
    hits = np.zeros(4)
    for row in range(RUNS):
        moments = PairMoments.of(x[row], y[row])
        limits = limits_of_agreement(moments, 0.05)
        hits += [
            _holds(pearson(moments, 0.05).interval, rho),
            _holds(lin_ccc(moments, 0.05).interval, concordance),
            _holds(limits.lower.interval, shift - 1.959964 * spread),
            _holds(limits.upper.interval, shift + 1.959964 * spread),
        ]
    assert (hits / RUNS >= 0.93).all()
    assert (hits / RUNS <= 0.97).all()


def test_shifted_shadow_correlates_but_does_not_agree() -> None:
    """FACTOR=3 against FACTOR=2: the correlation is 1, the concordance is not."""
    x = np.arange(1.0, 101)
    moments = PairMoments.of(2 * x, 3 * x)
    assert pearson(moments, 0.05).value == pytest.approx(1)
    assert lin_ccc(moments, 0.05).value < 0.8


def test_identical_sides_agree_perfectly() -> None:
    """Concordance 1, bias 0 and limits of agreement at 0."""
    moments = PairMoments.of(np.arange(50), np.arange(50))
    assert lin_ccc(moments, 0.05) == (1, (1, 1))
    limits = limits_of_agreement(moments, 0.05)
    assert (limits.bias, limits.lower.value, limits.upper.value) == (0, 0, 0)


def test_most_differences_lie_within_the_limits_of_agreement() -> None:
    """About 95 % of them."""
    random = np.random.default_rng(64)
    x = random.normal(size=20_000)
    y = x + random.normal(0.2, 0.5, 20_000)
    limits = limits_of_agreement(PairMoments.of(x, y), 0.05)
    inside = (limits.lower.value <= y - x) & (y - x <= limits.upper.value)
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0, 2.0]])
def test_constant_or_missing_values_give_nan(values: list[float]) -> None:
    """There is no correlation to speak of, and no error either."""
    moments = PairMoments.of(values, values)
    assert math.isnan(pearson(moments, 0.05).value)
    assert math.isnan(lin_ccc(moments, 0.05).value)
    assert math.isnan(limits_of_agreement(moments, 0.05).lower.value) == (len(values) < 2)
