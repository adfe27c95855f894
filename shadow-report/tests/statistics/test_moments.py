"""Streaming moments equal the moments of everything at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow_report.statistics.samples import Moments, PairMoments

NUMBERS = st.lists(st.floats(-1e6, 1e6), max_size=30)


@given(NUMBERS, NUMBERS)
def test_merged_moments_equal_those_of_all_values(first: list[float], second: list[float]) -> None:
    """In any split, also with an empty part."""
    merged, whole = Moments.of(first).merge(Moments.of(second)), Moments.of(first + second)
    assert merged.n == whole.n
    assert merged.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-6)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-2)


def test_large_means_do_not_swallow_the_variance() -> None:
    """Timestamps of 1e9 seconds that vary by one keep their variance."""
    values = 1e9 + np.random.default_rng(1).random(10_000)
    merged = Moments()
    for part in np.split(values, 10):
        merged = merged.merge(Moments.of(part))
    assert merged.variance == pytest.approx(values.var(ddof=1), rel=1e-6)
    assert merged.standard_deviation == pytest.approx(values.std(ddof=1), rel=1e-6)


def test_one_value_has_no_variance() -> None:
    """A single value cannot tell how values vary."""
    assert math.isnan(Moments.of([3.0]).variance)


def test_merged_pair_moments_equal_those_of_all_pairs() -> None:
    """Means, variances and the covariance, against numpy."""
    random = np.random.default_rng(2)
    x = random.normal(5, 2, 1_000)
    y = x + random.normal(0.1, 1, 1_000)
    merged = PairMoments()
    for rows in (slice(0, 1), slice(1, 300), slice(300, 1_000)):
        merged = merged.merge(PairMoments.of(x[rows], y[rows]))
    covariance = np.cov(x, y, ddof=0) * 1_000
    assert merged.n == 1_000
    assert (merged.mean_primary, merged.mean_shadow) == pytest.approx((x.mean(), y.mean()))
    assert (merged.m2_primary, merged.m2_shadow) == pytest.approx(tuple(np.diag(covariance)))
    assert merged.comoment == pytest.approx(covariance[0, 1])
    assert merged.merge(PairMoments.of([], [])) == merged


def test_sides_of_unequal_length_are_refused() -> None:
    """Pairs come in twos."""
    with pytest.raises(ValueError, match="2 primary and 1 shadow values"):
        PairMoments.of([1, 2], [1])
