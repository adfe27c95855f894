"""The anytime interval of a paired difference."""

from __future__ import annotations

import numpy as np
import pytest
from looks import ALPHA, changes_at, look_times

from shadow_report.statistics.sequences import difference_interval


@pytest.mark.parametrize(
    ("trials", "lower", "upper"),
    [(10_000, -0.0017, 0.0057), (30_000, -0.0001, 0.0041), (100_000, 0.0008, 0.0032)],
)
def test_interval_has_the_measured_width(trials: int, lower: float, upper: float) -> None:
    """P(gained) .003 and P(lost) .001: the intervals that the project's measurements give."""
    gained, lost = round(0.003 * trials), round(0.001 * trials)
    assert difference_interval(gained, lost, trials, ALPHA) == pytest.approx(
        (lower, upper), abs=1e-4
    )


def test_true_difference_is_missed_at_any_of_200_looks_in_at_most_alpha() -> None:
    """Rare changes, looked at from ten pairs on."""
    times = look_times(100_000)
    gained, lost = changes_at(times, 0.003, 0.001, runs=60, seed=21)
    missed = 0
    for run in range(60):
        intervals = [
            difference_interval(g, b, n, ALPHA)
            for g, b, n in zip(gained[run], lost[run], times, strict=True)
        ]
        missed += any(not lower <= 0.002 <= upper for lower, upper in intervals)
    assert missed / 60 <= ALPHA


def test_swapping_the_sides_mirrors_the_interval() -> None:
    """Which side is called primary changes the sign and nothing else."""
    there, back = difference_interval(9, 2, 500, ALPHA), difference_interval(2, 9, 500, ALPHA)
    assert np.allclose(there, (-back.upper, -back.lower))


def test_no_pairs_say_nothing() -> None:
    """Without data the difference can be anything."""
    assert difference_interval(0, 0, 0, ALPHA) == (-1, 1)
