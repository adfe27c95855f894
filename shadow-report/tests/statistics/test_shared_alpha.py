"""Several candidates that are looked at again and again, each at its share of alpha."""

from __future__ import annotations

import numpy as np
import pytest
from looks import ALPHA, clears, events_at, exceeds, look_times

CANDIDATES = 4
RUNS = 2_000
MARGIN = 0.01


@pytest.mark.parametrize("alike", [False, True], ids=["each by itself", "all fail together"])
def test_any_bad_candidate_is_promoted_in_at_most_alpha(alike: bool) -> None:
    """All four lie at the margin: that one of them passes at any look has chance alpha at most, and
    more than that with no share. Where they fail on the same calls, too.
    """
    times = look_times(20_000)
    passed = {ALPHA: np.zeros(RUNS, bool), ALPHA / CANDIDATES: np.zeros(RUNS, bool)}
    for candidate in range(CANDIDATES):
        events = events_at(times, MARGIN, RUNS, seed=17 if alike else 17 + candidate)
        for alpha in passed:
            passed[alpha] |= clears(events, times.astype(float), MARGIN, alpha).any(axis=1)
    assert passed[ALPHA / CANDIDATES].mean() <= ALPHA
    assert alike or passed[ALPHA].mean() > ALPHA


def test_any_good_candidate_is_rejected_in_at_most_alpha() -> None:
    """The same for a rejection of one that lies at the margin and not beyond it."""
    times = look_times(20_000)
    rejected = np.zeros(RUNS, bool)
    for candidate in range(CANDIDATES):
        events = events_at(times, MARGIN, RUNS, seed=51 + candidate)
        rejected |= exceeds(events, times.astype(float), MARGIN, ALPHA / CANDIDATES).any(axis=1)
    assert rejected.mean() <= ALPHA
