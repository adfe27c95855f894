"""Distances of distributions, against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from shadow_report.statistics.distribution import (
    jensen_shannon,
    kolmogorov_smirnov,
    normed_wasserstein,
    population_stability,
    population_stability_of,
    wasserstein,
)

RANDOM = np.random.default_rng(81)
FIRST, SECOND = RANDOM.normal(size=1_000), RANDOM.normal(0.3, 1.2, size=1_500)


def test_distances_agree_with_scipy() -> None:
    """Also with ties, which discrete scores have in plenty."""
    for x, y in ((FIRST, SECOND), (FIRST.round(1), SECOND.round(1))):
        assert kolmogorov_smirnov(x, y) == pytest.approx(ks_2samp(x, y).statistic)
        assert wasserstein(x, y) == pytest.approx(wasserstein_distance(x, y))
        assert normed_wasserstein(x, y) == pytest.approx(wasserstein_distance(x, y) / x.std())
    counts = [30, 50, 0, 20], [10, 60, 5, 25]
    assert jensen_shannon(*counts) == pytest.approx(jensenshannon(*counts, base=2))


def test_population_stability_is_its_definition() -> None:
    """Sum of (q - p) ln(q / p), on shares."""
    expected = 0.1 * math.log(0.6 / 0.5) - 0.1 * math.log(0.4 / 0.5)
    assert population_stability([50, 50], [60, 40]) == pytest.approx(expected)


def test_same_sample_is_no_distance_apart() -> None:
    """Every distance is zero, also for a constant sample."""
    for values in (FIRST, np.ones(10)):
        assert kolmogorov_smirnov(values, values) == 0
        assert wasserstein(values, values) == 0
        assert population_stability_of(values, values) == 0
    assert jensen_shannon([3, 4], [6, 8]) == pytest.approx(0, abs=1e-7)


def test_disjoint_samples_are_as_far_apart_as_can_be() -> None:
    """KS and Jensen-Shannon reach 1, the stability index is finite and large."""
    assert kolmogorov_smirnov(FIRST, FIRST + 100) == 1
    assert jensen_shannon([5, 0], [0, 5]) == 1
    assert 0.25 < population_stability_of(FIRST, FIRST + 100) < math.inf
    assert population_stability_of(np.ones(50), np.full(50, 2.0)) > 0.25


def test_nothing_to_compare_gives_nan() -> None:
    """Empty sides, empty counts and a constant scale are no errors."""
    for distance in (kolmogorov_smirnov, wasserstein, normed_wasserstein, population_stability_of):
        assert math.isnan(distance([], FIRST))
    assert math.isnan(normed_wasserstein(np.ones(5), FIRST))
    assert math.isnan(population_stability([0, 0], [1, 2]))
    assert math.isnan(jensen_shannon([0, 0], [1, 2]))
