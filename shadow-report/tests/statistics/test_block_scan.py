"""A shadow that is bad now, or was bad for a while, is not promoted on its average."""

from __future__ import annotations

import numpy as np
import pytest

from shadow_report.statistics.block_scan import WORST_FACTOR, BlockScan
from shadow_report.statistics.sequences import upper_bound

MARGINS = (0.001, 0.01, 0.1)
SECOND = 1_000_000


def _scan(*runs: tuple[int, bool], batch: int = 1_000, shuffled: bool = True) -> BlockScan:
    """Runs of so many good or bad trials one after the other, a second apart, read in any order."""
    events = np.concatenate([np.full(count, bad) for count, bad in runs])
    scan = BlockScan(0, (events.size - 1) * SECOND)
    order = np.random.default_rng(0).permutation(events.size) if shuffled else None
    times = np.arange(events.size) if order is None else order
    for start in range(0, events.size, batch):
        part = times[start : start + batch]
        scan.add(part * SECOND, events[part])
    return scan


@pytest.mark.parametrize("maximum", MARGINS)
@pytest.mark.parametrize(
    ("good", "bad"), [(20_000, 120), (60_000, 25), (60_000, 30), (20_000, 140)]
)
def test_shadow_that_is_bad_now_is_seen(maximum: float, good: int, bad: int) -> None:
    """Dead, failing or wrong for the newest calls; the block found ends with them."""
    block = _scan((good, False), (bad, True)).newest_bad(maximum)
    assert block is not None
    assert block.last_time == (good + bad - 1) * SECOND
    assert block.rate > 0.7


def test_average_alone_would_promote_it() -> None:
    """Why the newest block has a bound of its own."""
    assert upper_bound(25, 60_025, 0.05) <= 0.001


@pytest.mark.parametrize(("maximum", "bad"), [(0.001, 3), (0.01, 4), (0.1, 7)])
def test_few_bad_trials_in_a_row_are_enough(maximum: float, bad: int) -> None:
    """And one fewer is not."""
    assert _scan((9_000, False), (bad, True)).newest_bad(maximum)
    assert _scan((9_000, False), (bad - 1, True)).newest_bad(maximum) is None


@pytest.mark.parametrize("bad", [25, 140])
def test_newest_block_clears_after_as_many_good_trials_as_it_says(bad: int) -> None:
    """What a person can wait for."""
    more = _scan((20_000, False), (bad, True)).trials_until_newest_clears(0.01)
    assert 100 < more <= 4_096
    assert _scan((20_000, False), (bad, True), (more - 1, False)).newest_bad(0.01)
    assert _scan((20_000, False), (bad, True), (more, False)).newest_bad(0.01) is None


@pytest.mark.parametrize("maximum", MARGINS)
def test_outage_that_has_passed_is_the_worst_block(maximum: float) -> None:
    """The newest is good again; the worst one says when it was."""
    scan = _scan((20_000, False), (140, True), (60_000, False))
    assert scan.newest_bad(maximum) is None
    block = scan.worst_bad(WORST_FACTOR * maximum)
    assert block is not None
    assert block.first_time < 20_140 * SECOND
    assert block.last_time >= 20_000 * SECOND
    assert block.rate >= 0.5


@pytest.mark.parametrize("trials", [100, 1_000, 20_000])
def test_worst_block_lies_within_the_trials(trials: int) -> None:
    """The grid that it stands on goes on before and after them."""
    first = 1_700_000_000 * SECOND + 123_457
    last = first + trials * SECOND
    scan = BlockScan(first, last + 3_600 * SECOND)
    scan.add(np.arange(first, last, SECOND), np.ones(trials, dtype=bool))
    block = scan.worst_bad(0.03)
    assert block is not None
    assert first <= block.first_time < block.last_time <= last - SECOND


@pytest.mark.parametrize("maximum", MARGINS)
def test_healthy_shadow_is_never_held_up(maximum: float) -> None:
    """At half the margin, 1,000 looks in each of 10 runs: no block, newest or past."""
    random = np.random.default_rng(1)
    for _ in range(10):
        scan = BlockScan(0, 50_000 * SECOND)
        for look in range(1_000):
            scan.add((look * 50 + np.arange(50)) * SECOND, random.random(50) < maximum / 2)
            assert scan.newest_bad(maximum) is None
        assert scan.worst_bad(WORST_FACTOR * maximum) is None


@pytest.mark.parametrize("maximum", MARGINS)
def test_shadow_that_never_exceeds_the_maximum_has_a_worst_block_in_at_most_one_percent(
    maximum: float,
) -> None:
    """Exactly at it all along, over 100,000 trials that come as they like."""
    random, found = np.random.default_rng(2), 0
    for _ in range(100):
        times = random.integers(0, 86_400 * SECOND, 100_000)
        scan = BlockScan(0, 86_400 * SECOND)
        scan.add(times, random.random(100_000) < maximum)
        found += scan.worst_bad(maximum) is not None
    assert found / 100 <= 0.01


def test_blocks_of_a_growing_window_stand_where_they_stood() -> None:
    """A later look at more of the same window sees the same blocks, only fewer of the small ones:
    so one level holds for all looks.
    """
    events = np.random.default_rng(3).random(4_000) < 0.3
    times = 5_000_001 + np.arange(4_000) * SECOND
    early, late = BlockScan(times[0], times[-1]), BlockScan(times[0], 20 * times[-1])
    for scan in (early, late):
        scan.add(times, events)
    shared = dict(_blocks(early).items() & _blocks(late).items())
    assert len(shared) > 1_000
    width = min(width for _, width in _blocks(late))
    assert {at for at in _blocks(early) if at[1] == width} <= _blocks(late).keys()


def _blocks(scan: BlockScan) -> dict[tuple[int, int], tuple[int, int]]:
    """Trials and events by the start and the width of each block that has trials."""
    return {
        ((first + i) << shift, 1 << shift): (n, k)
        for shift, first, trials, events in scan._widths()
        for i, (n, k) in enumerate(zip(trials.tolist(), events.tolist(), strict=True))
        if n
    }


def test_batches_and_their_order_do_not_matter() -> None:
    """One trial at a time or all at once, in the order of time or not."""
    runs = (1_003, False), (37, True), (2_000, False), (5, True)
    once = _scan(*runs, batch=10_000, shuffled=False)
    one_by_one = _scan(*runs, batch=1)
    assert once.newest_bad(0.01) == one_by_one.newest_bad(0.01)
    assert once.worst_bad(0.03) == one_by_one.worst_bad(0.03)
    assert once.worst_bad(0.03)


def test_repeats_of_one_request_are_no_past_outage() -> None:
    """Fifty failing calls of one request are one failing request; but they fail callers now."""
    events = np.zeros(10_000, dtype=bool)
    events[5_000:5_050] = True
    repeats = np.zeros(10_000, dtype=bool)
    repeats[5_001:5_050] = True
    times = np.arange(10_000) * SECOND
    scan = BlockScan(0, times[-1])
    scan.add(times[:5_050], events[:5_050], repeats[:5_050])
    assert scan.newest_bad(0.01)
    scan.add(times[5_050:], events[5_050:], repeats[5_050:])
    assert scan.worst_bad(0.03) is None


def test_steps_add_up() -> None:
    """For whoever looks at counts over time: at most as many steps as asked for."""
    trials, events = _scan((20_000, False), (120, True)).in_steps(1_000)
    assert 500 <= trials.size <= 1_000
    assert (trials.sum(), events.sum()) == (20_120, 120)


def test_partial_mirror_that_dies_is_seen() -> None:
    """At 10 % nine calls of ten have no pair; 260 in a row have a cause."""
    random = np.random.default_rng(3)
    unpaired = random.random(50_000) >= 0.1
    for dead, seen in ((0, False), (260, True)):
        events = np.concatenate([unpaired, np.ones(dead, dtype=bool)])
        scan = BlockScan(0, events.size)
        scan.add(np.arange(events.size), events)
        assert (scan.newest_bad(1 - 0.1 * 0.99) is not None) == seen


def test_too_few_trials_say_nothing() -> None:
    """Less than the smallest block, or none at all."""
    assert BlockScan(0, 0).newest_bad(0.01) is None
    assert BlockScan(0, 0).worst_bad(0.01) is None
    assert _scan((7, True)).newest_bad(0.01) is None


@pytest.mark.parametrize("length", [20, 140, 1_000])
def test_a_bad_run_is_over_after_its_last_event_wherever_its_blocks_begin(length: int) -> None:
    """Else the window that begins there would have the rest of it."""
    for start in range(0, 20_000_000_000, 997_000_003):
        times = start + 100_000 * np.arange(20_000)
        events = (np.arange(20_000) >= 5_000) & (np.arange(20_000) < 5_000 + length)
        scan = BlockScan(int(times[0]), int(times[-1]))
        scan.add(times, events)
        found = scan.worst_bad(0.03)
        assert found is not None
        last = int(times[events][-1])
        assert last <= found.over < last + 100_000
