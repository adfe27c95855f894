"""Quantiles within one per cent, in any order, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from shadow_report.statistics.samples import Sketch, distance, histogram


def sketch_of(values: np.ndarray) -> Sketch:
    sketch = Sketch()
    for part in np.array_split(values, 7):
        sketch.add(part)
    return sketch


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_quantiles_are_within_one_per_cent(share: float, scale: float) -> None:
    values = np.random.default_rng(1).normal(size=10_001) * scale
    exact = np.quantile(values, share)
    assert sketch_of(values).quantile(share) == pytest.approx(exact, rel=0.011)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_any_finite_values(values: list[float]) -> None:
    """Nothing finite breaks it or grows it without end; the order of arrival does not matter."""
    array = np.array(values)
    one, other = sketch_of(array), sketch_of(array[::-1])
    assert one.bins() == other.bins()
    assert one.total == len(values)
    assert sum(count for _, _, count in histogram(one)) == len(values)


@given(
    st.lists(st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-9), min_size=1),
    st.floats(0, 1),
)
def test_no_quantile_lies_outside_the_values(values: list[float], share: float) -> None:
    """Between the least and the largest, which are those of 0 and 1; of the sizes too."""
    array = np.array(values)
    for sketch, exact in ((sketch_of(array), array), (sketch_of(array).sizes(), np.abs(array))):
        assert exact.min() <= sketch.quantile(share) <= exact.max()
        assert (sketch.quantile(0.0), sketch.quantile(1.0)) == (exact.min(), exact.max())
        assert sketch.ends() == (exact.min(), exact.max())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_few_distinct_values_have_exact_quantiles(share: float) -> None:
    """A median of whole numbers is one of them."""
    values = np.random.default_rng(4).integers(1, 40, size=1_001).astype(float)
    assert sketch_of(values).quantile(share) == np.quantile(values, share, method="lower")


def test_memory_is_bounded() -> None:
    generator = np.random.default_rng(2)
    sketch = Sketch()
    for _ in range(50):
        sketch.add(generator.normal(size=2_000) * 10.0 ** generator.uniform(-300, 300, 2_000))
    assert len(sketch.bins()) < 8_500


def test_distance_is_kolmogorov_smirnov() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.normal(0, 1, 5_000), generator.normal(0.3, 1.2, 4_000)
    exact = ks_2samp(first, second).statistic
    assert distance(sketch_of(first), sketch_of(second)) == pytest.approx(exact, abs=0.01)
