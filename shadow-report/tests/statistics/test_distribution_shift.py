"""How far predictions moved as a whole; held against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from shadow_report.statistics.distribution_shift import DistributionShift, distribution_shift


def _shift(primary: np.ndarray, shadow: np.ndarray) -> DistributionShift:
    x, n = np.unique(primary, return_counts=True)
    y, m = np.unique(shadow, return_counts=True)
    return distribution_shift(x, y, n, m)


@pytest.mark.parametrize("moved", [0.0, 0.1, 0.5])
def test_distances_are_scipys(moved: float) -> None:
    """With repeated values and unequal numbers of them."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=5_000).round(2), random.normal(moved, 1, 4_000).round(2)
    found = _shift(x, y)
    assert found.ks == pytest.approx(ks_2samp(x, y).statistic)
    assert found.wasserstein == pytest.approx(wasserstein_distance(x, y))


def test_psi_without_a_shift_is_what_chance_gives() -> None:
    """On average over 200 draws from one distribution; and a shift of half a deviation is more."""
    random = np.random.default_rng(2)
    draws = [_shift(*random.normal(size=(2, 2_000))) for _ in range(200)]
    mean = np.mean([draw.psi for draw in draws])
    assert mean == pytest.approx(draws[0].psi_by_chance, rel=0.1)
    moved = _shift(random.normal(size=20_000), random.normal(0.5, 1, 20_000))
    assert 0.2 < moved.psi < 0.3


def test_same_constant_and_disjoint_values() -> None:
    """No shift at all, and all of it; nothing is infinite."""
    same = distribution_shift([1.0], [1.0], [10], [10])
    assert (same.ks, same.wasserstein, same.psi) == (0, 0, pytest.approx(0))
    apart = distribution_shift([1.0], [3.0], [10], [10])
    assert (apart.ks, apart.wasserstein) == (1, 2)
    assert 1 < apart.psi < 10
    assert math.isnan(distribution_shift([], [1.0], [], [1]).ks)
