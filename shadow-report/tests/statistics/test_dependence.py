"""Calls that repeat each other are worth fewer than they are, and no fewer than that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from looks import ALPHA
from numpy.typing import NDArray

from shadow_report.statistics.dependence import (
    Clusters,
    EffectiveSize,
    clump_effect,
    effective_size,
)
from shadow_report.statistics.sequences import log_evidence_below, upper_bound

MARGIN = 0.01
LIMIT = -math.log(ALPHA)
RUNS = 100

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def _ever_promoted(keys: Ints, events: Flags, recurring: bool = False, blind: bool = False) -> bool:
    """Whether any of 1,000 looks at calls in this order passes a gate of 1 %.

    A smaller effective size never makes a pass of a fail, so it is asked only where counting every
    call would pass.
    """
    times = np.unique(np.geomspace(30, keys.size, 1_000).round().astype(np.int64))
    k = events.cumsum()[times - 1]
    candidates = np.flatnonzero(log_evidence_below(k, times, MARGIN) >= LIMIT)
    clusters = np.maximum.accumulate(keys) + 1
    all_sizes, all_bad = np.zeros((2, clusters[-1]))
    before = 0
    for look in candidates.tolist():
        n = int(times[look])
        # What came since the look before, so that each call is counted once.
        new = slice(before, n)
        np.add.at(all_sizes, keys[new], 1.0)
        np.add.at(all_bad, keys[new][events[new]], 1.0)
        sizes, bad, before = all_sizes[: clusters[n - 1]], all_bad[: clusters[n - 1]], n
        known = _seen_in_half_of_24_blocks(keys[:n], sizes.size) if recurring else None
        scale = 1.0 if blind else effective_size(sizes, bad, known).n_eff / n
        if log_evidence_below(k[look] * scale, n * scale, MARGIN) >= LIMIT:
            return True
    return False


def _seen_in_half_of_24_blocks(keys: Ints, clusters: int) -> Flags:
    blocks = np.arange(keys.size) * 24 // keys.size
    seen = np.unique(keys * 24 + blocks) // 24
    return np.asarray(np.bincount(seen, minlength=clusters) >= 12)


def _bursts(random: np.random.Generator, rate: float, mirrored: float) -> tuple[Ints, Flags]:
    """2,000 bursts of 50 calls of one cause each, and the share of them that is mirrored."""
    bad = random.random(2_000) < rate
    keys = np.repeat(np.arange(2_000), 50)
    keys = keys[random.random(keys.size) < mirrored]
    return keys, bad[keys]


def _bursts_among_single_calls(random: np.random.Generator, rate: float) -> tuple[Ints, Flags]:
    """Half of the calls come in bursts of 50, and only those are ever bad."""
    sizes = np.where(random.random(20_000) < 1 / 51, 50, 1)
    bad = (sizes > 1) & (random.random(sizes.size) < 2 * rate)
    keys = np.repeat(np.arange(sizes.size), sizes)
    return keys, bad[keys]


def _returning_users(
    random: np.random.Generator, rate: float, likeness: float
) -> tuple[Ints, Flags]:
    """2,000 users of equal activity who come back again and again."""
    strength = 1 / likeness - 1
    rates = random.beta(rate * strength, (1 - rate) * strength, 2_000)
    rates = np.minimum(1, rates * rate / rates.mean())
    keys = random.integers(0, 2_000, 30_000)
    return keys, random.random(keys.size) < rates[keys]


def _popular_requests(random: np.random.Generator, rate: float) -> tuple[Ints, Flags]:
    """20,000 requests by Zipf's law, as in real traffic; the bad ones have `rate` of the calls."""
    share = 1 / np.arange(1, 20_001)
    share /= share.sum()
    bad, total = np.zeros(20_000, dtype=bool), 0.0
    for request in random.permutation(20_000):
        if total + share[request] <= rate * 1.01:
            bad[request] = True
            total += share[request]
    keys = random.choice(20_000, 50_000, p=share)
    return keys, bad[keys]


@pytest.mark.parametrize("mirrored", [1.0, 0.1])
@pytest.mark.parametrize("times_margin", [1.0, 1.05])
def test_bursts_of_50_do_not_promote_a_bad_shadow(mirrored: float, times_margin: float) -> None:
    """Full mirror and a tenth of it; counting every call as one promotes it in most runs."""
    random = np.random.default_rng(1)
    runs = [_bursts(random, times_margin * MARGIN, mirrored) for _ in range(RUNS)]
    assert np.mean([_ever_promoted(*run) for run in runs]) <= ALPHA
    assert np.mean([_ever_promoted(*run, blind=True) for run in runs[:40]]) > 0.5


@pytest.mark.parametrize("times_margin", [1.0, 1.05])
def test_bad_bursts_among_good_single_calls_do_not_promote(times_margin: float) -> None:
    """The larger a cluster the likelier it is bad: the worst case allows for it, where Kish's
    design effect promotes in 12 to 22 % of the runs.
    """
    random = np.random.default_rng(2)
    runs = [_bursts_among_single_calls(random, times_margin * MARGIN) for _ in range(120)]
    assert np.mean([_ever_promoted(*run) for run in runs]) <= ALPHA
    assert np.mean([_ever_promoted(*run, blind=True) for run in runs[:40]]) > 0.5


@pytest.mark.parametrize("likeness", [0.1, 0.3, 0.999])
def test_returning_users_do_not_promote_a_bad_shadow(likeness: float) -> None:
    """Before and after the likeness of a user's calls can be measured."""
    random = np.random.default_rng(3)
    runs = [_returning_users(random, 1.05 * MARGIN, likeness) for _ in range(60)]
    assert np.mean([_ever_promoted(*run, recurring=True) for run in runs]) <= ALPHA


def test_popular_requests_do_not_promote_a_bad_shadow() -> None:
    """Although those that recur all the time are taken as known."""
    random = np.random.default_rng(4)
    runs = [_popular_requests(random, 1.05 * MARGIN) for _ in range(30)]
    assert np.mean([_ever_promoted(*run, recurring=True) for run in runs]) <= ALPHA


def test_one_request_and_few_users_are_few_observations() -> None:
    """However often they call."""
    assert effective_size([8_200], [0]).n_eff == 1
    assert effective_size(np.full(180, 50), np.zeros(180)).n_eff == pytest.approx(180)
    assert effective_size(np.full(180, 50), np.zeros(180), np.ones(180)).n_eff == pytest.approx(180)


def test_independent_calls_are_worth_what_they_are() -> None:
    """Also when all of them are bad, or none, or no call is there."""
    for bad in (0, 1):
        found = effective_size(np.ones(5_000), np.full(5_000, bad))
        assert found == EffectiveSize(5_000, 5_000, 5_000, "independent")
    assert effective_size([], []).n_eff == 0


def test_likeness_is_measured_once_it_can_be() -> None:
    """Users whose calls are not alike are worth all their calls, nearly."""
    random = np.random.default_rng(5)
    events = random.binomial(20, 0.1, 10_000)
    found = effective_size(np.full(10_000, 20), events)
    assert found.source == "likeness"
    assert 0.9 * 200_000 < found.n_eff <= 200_000
    events = np.where(random.random(10_000) < 0.1, 20, 0)
    assert effective_size(np.full(10_000, 20), events).n_eff <= 10_000 * 1.05


def test_one_frequent_request_does_not_take_the_worth_of_the_others() -> None:
    """Half of the traffic is one probe that never stops: the other half is worth what it is."""
    clusters, random = Clusters(gates=1), np.random.default_rng(6)
    keys = np.where(random.random(9_000) < 0.5, 7, np.arange(9_000) + 100)
    clusters.add(keys, np.arange(9_000) * 1_000, np.zeros((1, 9_000), dtype=bool))
    found = clusters.effective(0)
    assert found.n_eff == np.count_nonzero(keys != 7)
    assert upper_bound(0, found.n_eff, ALPHA) <= 0.001
    # As many calls in one burst are not there all through the window, and take everything.
    burst, times = Clusters(gates=1), np.arange(9_000) * 1_000
    times[np.sort(keys) == 7] //= 10
    burst.add(np.sort(keys), times, np.zeros((1, 9_000), dtype=bool))
    assert burst.effective(0).n_eff < 10


def test_batches_and_their_order_do_not_matter_to_the_counts() -> None:
    """Nor does the growth of the window; gates are counted apart."""
    random = np.random.default_rng(7)
    keys, times = (
        random.integers(-(2**62), 2**62, 300)[random.integers(0, 300, 6_000)],
        np.arange(6_000),
    )
    events = random.random((2, 6_000)) < [[0.1], [0.4]]
    whole, parts = Clusters(gates=2), Clusters(gates=2)
    whole.add(keys, times, events)
    for start in range(0, 6_000, 700):
        stop = start + 700
        parts.add(keys[start:stop], times[start:stop], events[:, start:stop])
    _, index = np.unique(keys, return_inverse=True)
    for gate in (0, 1):
        exact = effective_size(np.bincount(index), np.bincount(index, weights=events[gate]))
        assert whole.effective(gate).clusters == parts.effective(gate).clusters == exact.clusters
        assert parts.effective(gate).n_eff == pytest.approx(whole.effective(gate).n_eff)


@pytest.mark.parametrize(
    ("keys", "new"),
    [
        ([7] * 6_000, 0),
        ([*range(100)] * 60, 0),
        (range(6_000), 1),
        ([i if i % 10 else 0 for i in range(6_000)], 0.9),
        ([*range(3_000), *range(3_000)], 0),
    ],
    ids=["one", "a hundred in turn", "all different", "nine of ten different", "all again"],
)
def test_new_clusters_are_those_of_the_later_half(keys: Sequence[int], new: float) -> None:
    """A call a second: how many of them are of a cluster that did not come before, of late."""
    clusters = Clusters(gates=1, start=0)
    assert clusters.new_ones_per_time() == 0
    clusters.add(np.asarray(keys) * 7_919, np.arange(6_000), np.zeros((1, 6_000), dtype=bool))
    assert clusters.new_ones_per_time() == pytest.approx(new, rel=0.01)


def test_every_key_has_its_own_slot_until_there_are_too_many() -> None:
    """Four thousand distinct requests are worth four thousand, to the call; more than there are
    slots can only be worth less.
    """
    keys = np.random.default_rng(8).integers(0, 2**63, 10_000)
    roomy, tight = Clusters(gates=1), Clusters(gates=1, slots=1_024)
    for clusters in (roomy, tight):
        clusters.add(keys, np.zeros(10_000), np.zeros((1, 10_000), dtype=bool))
    assert roomy.effective(0).n_eff == 10_000
    assert 100 < tight.effective(0).n_eff <= 1_024


def test_clumps_of_different_requests_are_seen_by_their_time() -> None:
    """Events that come fifty at a time are one cause, from the first clump on."""
    trials, random = np.full(500, 200), np.random.default_rng(9)
    assert clump_effect(np.eye(1, 500)[0] * 50, trials) == pytest.approx(50, rel=0.02)
    clumped = np.where(random.random(500) < 0.1, 50, 0)
    assert clump_effect(clumped, trials) > 30
    assert clump_effect(random.binomial(200, 0.01, 500), trials) < 1.2
    assert clump_effect(np.full(500, 200), trials) == 1
    assert clump_effect(np.zeros(500), trials) == 1


@pytest.mark.parametrize("calls", [100, 300, 2_000])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.8])
def test_events_that_do_not_depend_on_time_do_not_clump(calls: int, rate: float) -> None:
    """Not by chance either: in at most one window of a hundred, where in two of five of them more
    events share a block than on average.
    """
    random = np.random.default_rng(calls)
    clumped = 0
    for _ in range(100):
        blocks = random.integers(0, 700, calls)
        flags = random.random(calls) < rate
        events = np.bincount(blocks[flags], minlength=700)
        clumped += clump_effect(events, np.bincount(blocks, minlength=700)) > 1
    assert clumped <= 1


@pytest.mark.parametrize("burst", [3, 5, 20])
def test_the_first_burst_of_a_few_hundred_calls_clumps(burst: int) -> None:
    """Three calls in a row that fail are one cause, also among others that fail by themselves."""
    random = np.random.default_rng(burst)
    found = []
    for _ in range(50):
        blocks = np.sort(random.integers(0, 700, 400))
        flags = random.random(400) < 0.01
        first = int(random.integers(0, 400 - burst))
        flags[first : first + burst] = True
        blocks[first : first + burst] = blocks[first]
        trials = np.bincount(blocks, minlength=700)
        found.append(clump_effect(np.bincount(blocks[flags], minlength=700), trials))
    assert np.count_nonzero(np.array(found) > 1) >= 45
    assert np.median(found) > 0.5 * burst * burst / (burst + 4)


def test_more_trials_than_can_be_shuffled_are_judged_by_their_excess() -> None:
    """More than a thousand million calls: n is worth less, and nothing fails."""
    trials = np.full(1_000, 2_000_000)
    assert clump_effect(np.eye(1, 1_000)[0] * 50, trials) == pytest.approx(50, rel=0.02)
