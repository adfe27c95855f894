"""A bounded sample that every pair has the same chance to enter."""

from __future__ import annotations

import numpy as np

from shadow_report.statistics.samples import PairSample


def hashes(count: int, seed: int = 0) -> np.ndarray:
    """Distinct hashes, as good as at random."""
    return np.random.default_rng(seed).permutation(count).astype(np.int64) - count // 2


def test_up_to_its_capacity_it_keeps_every_pair() -> None:
    """Small comparisons are exact."""
    sample, keys = PairSample(capacity=1_000), hashes(900)
    for start in range(0, 900, 90):
        values = np.arange(start, start + 90)
        sample.add(values, -values, keys[values])
    assert sample.seen == 900
    assert (np.sort(sample.primary) == np.arange(900)).all()
    assert (sample.shadow == -sample.primary).all()


def test_memory_stays_bounded_and_pairs_stay_together() -> None:
    """However many pairs pass, `capacity` stay, and both sides belong to one call."""
    sample, keys = PairSample(capacity=500), hashes(100_000)
    for start in range(0, 100_000, 1_999):
        values = np.arange(start, min(100_000, start + 1_999))
        sample.add(values, 2 * values, keys[values])
    assert sample.primary.size == sample.shadow.size == 500
    assert (sample.shadow == 2 * sample.primary).all()
    assert np.unique(sample.primary).size == 500


def test_every_pair_has_the_same_chance() -> None:
    """Early, middle and late pairs enter equally often, over 300 lots of hashes."""
    kept = np.zeros(10)
    for seed in range(300):
        sample, keys = PairSample(capacity=100), hashes(1_000, seed)
        for start in range(0, 1_000, 130):
            batch = np.arange(start, min(1_000, start + 130))
            sample.add(batch, batch, keys[batch])
        kept += np.bincount(sample.primary.astype(int) // 100, minlength=10)
    # Each tenth of the stream expects 3,000 of the 30,000 places; five deviations are 250.
    assert np.abs(kept - 3_000).max() < 250


def test_any_order_and_any_batches_give_the_same_sample() -> None:
    """A report made twice from the same rows shows the same figures."""
    keys, found = hashes(1_000), []
    for seed, size in ((1, 7), (2, 1_000), (3, 130)):
        sample, order = PairSample(50), np.random.default_rng(seed).permutation(1_000)
        for start in range(0, 1_000, size):
            values = order[start : start + size]
            sample.add(values, values, keys[values])
        found.append(np.sort(sample.primary).tolist())
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 50
