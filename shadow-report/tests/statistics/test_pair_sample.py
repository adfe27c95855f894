"""A bounded sample that every pair has the same chance to enter."""

from __future__ import annotations

import numpy as np

from shadow_report.statistics.samples import PairSample


def test_up_to_its_capacity_it_keeps_every_pair_in_order() -> None:
    """Small comparisons are exact."""
    sample = PairSample(capacity=1_000)
    for start in range(0, 900, 90):
        sample.add(np.arange(start, start + 90), -np.arange(start, start + 90))
    assert sample.seen == 900
    assert (sample.primary == np.arange(900)).all()
    assert (sample.shadow == -np.arange(900)).all()


def test_memory_stays_bounded_and_pairs_stay_together() -> None:
    """However many pairs pass, `capacity` stay, and both sides belong to one call."""
    sample = PairSample(capacity=500)
    for start in range(0, 100_000, 1_999):
        sample.add(np.arange(start, start + 1_999), 2 * np.arange(start, start + 1_999))
    assert sample.primary.size == sample.shadow.size == 500
    assert (sample.shadow == 2 * sample.primary).all()
    assert np.unique(sample.primary).size == 500


def test_every_pair_has_the_same_chance() -> None:
    """Early, middle and late pairs enter equally often, over 300 seeds."""
    kept = np.zeros(10)
    for seed in range(300):
        sample = PairSample(capacity=100, seed=seed)
        for start in range(0, 1_000, 130):
            batch = np.arange(start, min(1_000, start + 130))
            sample.add(batch, batch)
        kept += np.bincount(sample.primary.astype(int) // 100, minlength=10)
    # Each tenth of the stream expects 3,000 of the 30,000 places; five deviations are 250.
    assert np.abs(kept - 3_000).max() < 250


def test_same_seed_gives_the_same_sample() -> None:
    """A report made twice from the same rows shows the same figures."""
    first, second = PairSample(50, seed=4), PairSample(50, seed=4)
    for sample in (first, second):
        sample.add(np.arange(1_000), np.arange(1_000))
    assert (first.primary == second.primary).all()


def test_single_pairs_and_empty_batches_are_fine() -> None:
    """Scalars count as one pair."""
    sample = PairSample(2)
    sample.add([], [])
    for value in range(5):
        sample.add(value, value)
    assert sample.seen == 5
    assert sample.primary.size == 2
