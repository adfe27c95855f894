"""Pairs that repeat each other count for less."""

from __future__ import annotations

import numpy as np
import pytest
from looks import ALPHA, look_times, share_ever
from statsmodels.stats.proportion import proportion_confint

from shadow_report.judging.gates import Tally
from shadow_report.statistics.samples import (
    ClusterBuckets,
    ClusterCounts,
    design_effect,
    effective_trials,
)

SIZE = 20


def _clustered_events(
    rate: float, correlation: float, clusters: int, runs: int, seed: int
) -> np.ndarray:
    """Events per cluster of 20 pairs with this intra-cluster correlation, one row per run."""
    random = np.random.default_rng(seed)
    strength = 1 / correlation - 1
    rates = random.beta(rate * strength, (1 - rate) * strength, size=(runs, clusters))
    return random.binomial(SIZE, rates)


def _passes_at(events: np.ndarray, looks: np.ndarray, margin: float) -> list[bool]:
    """Whether the clustered gate passes after so many clusters, per look."""
    y = events.astype(np.float64)
    totals, squares = y.cumsum(), (y * y).cumsum()
    with_event, without = (y > 0).cumsum(), (y < SIZE).cumsum()
    result = []
    for c in looks:
        counts = ClusterCounts(
            clusters=int(c),
            trials=int(c) * SIZE,
            events=int(totals[c - 1]),
            size_squares=float(c * SIZE**2),
            event_squares=squares[c - 1],
            products=SIZE * totals[c - 1],
            with_event=int(with_event[c - 1]),
            without_event=int(without[c - 1]),
        )
        tally = Tally(counts.events, counts.trials, effective_trials(counts))
        result.append(tally.interval(ALPHA).upper <= margin)
    return result


@pytest.mark.parametrize(("correlation", "margin"), [(0.1, 0.01), (0.1, 0.001), (0.3, 0.01)])
def test_clustered_shadow_at_the_margin_is_promoted_in_at_most_alpha(
    correlation: float, margin: float
) -> None:
    """Users who repeat 20 times with ICC 0.1 do not promote a bad shadow, at 200 looks."""
    looks = look_times(10_000, first=20)
    events = _clustered_events(margin, correlation, 10_000, runs=100, seed=11)
    assert share_ever(np.array([_passes_at(row, looks, margin) for row in events])) <= ALPHA


def test_counting_pairs_as_independent_would_promote_far_too_often() -> None:
    """The same shadow with its clusters ignored: the effective number is what protects us."""
    looks = look_times(10_000, first=20)
    events = _clustered_events(0.01, 0.3, 10_000, runs=100, seed=11).cumsum(axis=1)
    passes = [
        [Tally(int(row[c - 1]), int(c) * SIZE).interval(ALPHA).upper <= 0.01 for c in looks]
        for row in events
    ]
    assert share_ever(np.array(passes)) > 2 * ALPHA


@pytest.mark.parametrize("correlation", [0.02, 0.1, 0.3])
def test_effective_n_restores_the_coverage_of_a_wilson_interval(correlation: float) -> None:
    """With clusters the plain interval misses far too often; with the effective n it does not."""
    rate, hits, plain = 0.1, 0, 0
    rows = _clustered_events(rate, correlation, 500, runs=4_000, seed=12)
    for events in rows:
        counts = ClusterCounts.of(np.full(500, SIZE), events)
        n_eff = effective_trials(counts)
        share = counts.events / counts.trials
        low, high = proportion_confint(share * n_eff, n_eff, ALPHA, "wilson")
        hits += low <= rate <= high
        low, high = proportion_confint(counts.events, counts.trials, ALPHA, "wilson")
        plain += low <= rate <= high
    assert 0.935 <= hits / 4_000 <= 0.965
    assert plain < hits


def test_design_effect_matches_its_formula_for_equal_clusters() -> None:
    """1 + (m - 1) ICC, the textbook value for clusters of one size."""
    events = _clustered_events(0.1, 0.1, 20_000, runs=1, seed=13)[0]
    counts = ClusterCounts.of(np.full(events.size, SIZE), events)
    assert design_effect(counts) == pytest.approx(1 + (SIZE - 1) * 0.1, rel=0.05)


def test_few_clusters_with_events_count_as_one_observation_each() -> None:
    """8,062 clean pairs of ten users are ten observations, not proof for 0.1 %."""
    counts = ClusterCounts.of(np.full(10, 806), np.zeros(10))
    assert effective_trials(counts) == pytest.approx(10)


def test_independent_pairs_count_in_full() -> None:
    """Clusters of one pair each change nothing, and no cluster structure ever adds to them."""
    events = np.random.default_rng(14).random(5_000) < 0.1
    assert effective_trials(ClusterCounts.of(np.ones(5_000), events)) == pytest.approx(
        5_000, rel=1e-3
    )
    assert effective_trials(ClusterCounts()) == 0


def test_buckets_equal_exact_counts_while_keys_do_not_collide() -> None:
    """Pairs may arrive in any order and in any batches."""
    random = np.random.default_rng(16)
    keys = random.integers(0, 200, 5_000)
    events = random.integers(0, 2, 5_000)
    buckets = ClusterBuckets()
    for start in range(0, 5_000, 700):
        buckets.add(keys[start : start + 700], 1, events[start : start + 700])
    exact = ClusterCounts.of(np.bincount(keys), np.bincount(keys, weights=events))
    assert buckets.counts() == exact


def test_colliding_buckets_only_lower_the_effective_size() -> None:
    """More clusters than buckets is safe: it can cost pairs, never add them."""
    keys = np.arange(-50_000, 50_000)
    buckets = ClusterBuckets(buckets=1_000)
    buckets.add(keys, 1, 0)
    assert effective_trials(buckets.counts()) == pytest.approx(1_000, rel=0.01)
