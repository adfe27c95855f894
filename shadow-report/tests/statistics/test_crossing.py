"""Zeros of growing functions."""

from __future__ import annotations

import math

import pytest

from shadow_report.statistics.sequences import crossing


@pytest.mark.parametrize("zero", [-40.0, -1e-9, 0.0, 0.3, 17.25])
def test_finds_where_a_function_crosses(zero: float) -> None:
    """To 1e-12, on both sides of nought."""
    found = crossing(lambda x: math.expm1(x - zero), zero - 3, zero + 5)
    assert found == pytest.approx(zero, rel=1e-12, abs=1e-12)


def test_a_step_is_found_at_its_upper_side() -> None:
    """Where the function jumps over zero, the place is one at which it is no longer below."""
    found = crossing(lambda x: 1.0 if x >= 2 else -1.0, 0.0, 10.0)
    assert found >= 2
    assert found == pytest.approx(2)
