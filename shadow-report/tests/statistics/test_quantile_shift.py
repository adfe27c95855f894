"""The shift of a latency quantile."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shadow_report.statistics.agreement import quantile_shift


def _latencies(random: np.random.Generator, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal latencies that share half of their variance; the shadow is 10 % slower."""
    shared = random.normal(size=pairs)
    primary = np.exp(3 + 0.35 * shared + 0.35 * random.normal(size=pairs))
    shadow = 1.1 * np.exp(3 + 0.35 * shared + 0.35 * random.normal(size=pairs))
    return primary, shadow


@pytest.mark.parametrize(("share", "z"), [(0.5, 0.0), (0.95, 1.6448536), (0.99, 2.3263479)])
def test_interval_covers_the_true_shift(share: float, z: float) -> None:
    """p50, p95 and p99 of 2,000 correlated pairs: held in near 95 % of 800 samples."""
    truth = 0.1 * math.exp(3 + 0.35 * math.sqrt(2) * z)
    random = np.random.default_rng(71)
    hits = 0
    for _ in range(800):
        lower, upper = quantile_shift(*_latencies(random, 2_000), share, 0.05).interval
        hits += lower <= truth <= upper
    assert 0.93 <= hits / 800 <= 0.975


def test_pairing_narrows_the_interval() -> None:
    """The joint term uses that both sides were slow on the same calls."""
    primary, shadow = _latencies(np.random.default_rng(72), 5_000)
    paired = quantile_shift(primary, shadow, 0.5, 0.05)
    shuffled = quantile_shift(primary, np.random.default_rng(73).permutation(shadow), 0.5, 0.05)
    assert paired.shift == shuffled.shift == pytest.approx(paired.shadow - paired.primary)
    width = paired.interval.upper - paired.interval.lower
    assert width < 0.9 * (shuffled.interval.upper - shuffled.interval.lower)


def test_identical_sides_have_no_shift_and_no_width() -> None:
    """The same values on both sides: exactly 0, exactly known."""
    values, _ = _latencies(np.random.default_rng(74), 1_000)
    result = quantile_shift(values, values, 0.95, 0.05)
    assert result.shift == 0
    assert result.interval == pytest.approx((0, 0), abs=1e-6)


def test_p99_of_200_pairs_has_a_value_but_no_interval() -> None:
    """Two values beyond a quantile cannot say how certain it is."""
    result = quantile_shift(*_latencies(np.random.default_rng(75), 200), 0.99, 0.05)
    assert math.isfinite(result.shift)
    assert math.isnan(result.interval.lower)


def test_no_pairs_give_nan() -> None:
    """No values, no quantile, no error."""
    assert math.isnan(quantile_shift([], [], 0.5, 0.05).shift)


def test_sides_of_unequal_length_are_refused() -> None:
    """Pairs come in twos."""
    with pytest.raises(ValueError, match="2 primary and 1 shadow values"):
        quantile_shift([1, 2], [1], 0.5, 0.05)
