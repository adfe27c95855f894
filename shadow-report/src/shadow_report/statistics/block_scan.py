"""Whether a shadow is bad *now*, or was bad for a while: the newest and the worst block.

An average over 60,000 pairs hides the last 25. Both tests ask whether the rate of events in a run
of consecutive trials is above a maximum, at a level that counts every run looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

SMALLEST_BLOCK = 8
# The newest 8, 16, ... 4,096 trials, each at a tenth of this level. It is strict because it is
# asked at every look, and can be: a shadow that fails everything is seen after 4 trials even so.
NEWEST_SIZES = tuple(SMALLEST_BLOCK << step for step in range(10))
NEWEST_LEVEL = 1e-5
# Past blocks of every width, over all looks together.
WORST_LEVEL = 0.01
# The load moves through a day, and a rate with it: a past block may have three times what the
# whole window may. At most one half, so that an outage is one whatever is allowed.
WORST_FACTOR = 3.0
WORST_MAXIMUM = 0.5
# A window is cut into at most so many steps, each a power of two microseconds wide.
_STEPS = 1 << 17
# A block may be 1, 2, 4, ... microseconds wide: 2^64 of them are more than any window.
_WIDTHS = 64


@dataclass(frozen=True, slots=True)
class Block:
    """`events` among `trials` consecutive trials, from the first time to the last.

    `over`: after it the run of bad trials that the block is of has ended. `p_value` is the chance
    of so many at the maximum, times the number of blocks looked at.
    """

    first_time: int
    last_time: int
    over: int
    trials: int
    events: int
    p_value: float

    @property
    def rate(self) -> float:
        """The observed share of events in the block."""
        return self.events / self.trials


class BlockScan:
    """The trials of one gate over time: batches of any size in any order, in some 2 MiB.

    `first` and `last` are the ends of the window, in whole microseconds (or any other integers);
    a time outside counts with the nearer end. A later look at the same window has the same `first`,
    and `extend` makes the earlier look's scan the later one's.
    """

    def __init__(self, first: int, last: int) -> None:
        first, last = int(first), int(last)
        self._begin = first
        self._shift = ((last - first) // _STEPS).bit_length()
        self._first = first >> self._shift
        steps = (last >> self._shift) - self._first + 1
        self._trials: NDArray[np.int64] = np.zeros(steps, dtype=np.int64)
        self._events: NDArray[np.int64] = np.zeros(steps, dtype=np.int64)
        self._newest_times: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._newest_events: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def extend(self, last: int) -> None:
        """Make room for the times up to `last`: the steps are those of a scan begun with it."""
        shift = ((int(last) - self._begin) // _STEPS).bit_length()
        while self._shift < shift:
            self._trials = halved(self._trials, self._first)
            self._events = halved(self._events, self._first)
            self._shift, self._first = self._shift + 1, self._first >> 1
        more = (int(last) >> self._shift) - self._first + 1 - self._trials.size
        if more > 0:
            self._trials = np.pad(self._trials, (0, more))
            self._events = np.pad(self._events, (0, more))

    def add(self, times: ArrayLike, events: ArrayLike, repeats: ArrayLike | None = None) -> None:
        """Add trials: the time of each and whether it is an event.

        `repeats` marks trials whose cluster has just been counted. They are left out of the worst
        block, where fifty calls of one request that fails would look like an outage; not out of
        the newest, where what matters is whether callers are failed now.
        """
        at, flags = np.asarray(times, dtype=np.int64), np.asarray(events, dtype=bool)
        self._add_newest(at, flags)
        if repeats is not None:
            fresh = ~np.asarray(repeats, dtype=bool)
            at, flags = at[fresh], flags[fresh]
        steps = np.clip((at >> self._shift) - self._first, 0, self._trials.size - 1)
        self._trials += np.bincount(steps, minlength=self._trials.size)
        if flags.any():
            np.add.at(self._events, steps[flags], 1)

    def _add_newest(self, at: NDArray[np.int64], flags: NDArray[np.bool_]) -> None:
        most = NEWEST_SIZES[-1]
        if self._newest_times.size == most:
            newer = at >= self._newest_times[0]
            at, flags = at[newer], flags[newer]
        at = np.concatenate([self._newest_times, at])
        flags = np.concatenate([self._newest_events, flags])
        # Of one moment the events last, so that the order of arrival does not matter.
        order = np.lexsort((flags, at))[-most:]
        self._newest_times, self._newest_events = at[order], flags[order]

    def newest_bad(self, maximum: float, level: float = NEWEST_LEVEL) -> Block | None:
        """The newest block that is above `maximum`, the surest one; None when none is.

        At a given look a shadow at the maximum has one with chance at most `level`.
        """
        return _surest_newest(self._newest_events, self._newest_times, maximum, level)

    def trials_until_newest_clears(self, maximum: float, level: float = NEWEST_LEVEL) -> int:
        """How many further trials without an event until `newest_bad` is None."""
        low, high = 0, NEWEST_SIZES[-1]
        while low < high:
            middle = (low + high) // 2
            flags = np.concatenate([self._newest_events, np.zeros(middle, dtype=bool)])
            newest = flags[-NEWEST_SIZES[-1] :]
            times = np.zeros(newest.size, dtype=np.int64)
            clear = _surest_newest(newest, times, maximum, level) is None
            low, high = (low, middle) if clear else (middle + 1, high)
        return low

    def worst_bad(self, maximum: float, level: float = WORST_LEVEL) -> Block | None:
        """The block that is most surely above `maximum`; None when none is.

        A shadow that never exceeds `maximum` ever has one with chance at most `level`, over all
        looks together: blocks stand at fixed times, those of each width are numbered through from
        the start of the window, and the i-th gets 1 / (i (i + 1)) of what its width gets. Blocks of
        one width follow each other without overlap, so a run of bad trials fills half of some block
        of up to twice its length.
        """
        worst: Block | None = None
        for shift, first, trials, events in self._widths():
            (some,) = np.nonzero(events > trials * maximum)
            if not some.size:
                continue
            number = some + 1.0
            p = _tails(events[some], trials[some], maximum) * number * (number + 1) * _WIDTHS
            least = int(np.argmin(p))
            if p[least] < (worst.p_value if worst else level):
                block = int(some[least])
                start = (first + block) << shift
                end = block + 1
                while end < events.size and events[end] > trials[end] * maximum:
                    end += 1
                # Blocks stand on a grid that begins before the first trial and ends after the last.
                worst = Block(
                    max(start, self._begin),
                    min(start + (1 << shift) - 1, int(self._newest_times[-1])),
                    self._last_event((first + end + 1) << shift),
                    int(trials[block]),
                    int(events[block]),
                    float(p[least]),
                )
        return worst

    def _last_event(self, before: int) -> int:
        """The end of the last step with an event before a time."""
        steps = (before >> self._shift) - self._first
        (found,) = np.nonzero(self._events[:steps])
        return ((self._first + int(found[-1]) + 1) << self._shift) - 1

    def in_steps(self, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Trials and events, repeats left out, in at most `most` equal steps of time."""
        for _, _, trials, events in self._widths():
            if trials.size <= most:
                return trials, events
        raise AssertionError("The last width is one block.")

    def _widths(self) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
        """For each width: its shift, the number of its first block, trials and events by block."""
        shift, first = self._shift, self._first
        trials, events = self._trials, self._events
        yield shift, first, trials, events
        while trials.size > 1:
            trials, events = halved(trials, first), halved(events, first)
            shift, first = shift + 1, first >> 1
            yield shift, first, trials, events


def halved(counts: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Counts of steps of twice the width, from those of steps numbered from `first` on (the last
    axis): a step of twice the width starts at an even number.
    """
    ends = (first & 1, (first + counts.shape[-1]) & 1)
    padded = np.pad(counts, [(0, 0)] * (counts.ndim - 1) + [ends])
    return np.asarray(padded.reshape(*counts.shape[:-1], -1, 2).sum(axis=-1))


def _surest_newest(
    events: NDArray[np.bool_], times: NDArray[np.int64], maximum: float, level: float
) -> Block | None:
    sizes = np.array([size for size in NEWEST_SIZES if size <= events.size], dtype=np.int64)
    if not sizes.size:
        return None
    counts = events[::-1].cumsum()[sizes - 1]
    p = _tails(counts, sizes, maximum) * len(NEWEST_SIZES)
    least = int(np.argmin(p))
    if p[least] >= level:
        return None
    size = int(sizes[least])
    first, last = int(times[-size]), int(times[-1])
    return Block(first, last, last, size, int(counts[least]), float(p[least]))


def _tails(
    events: NDArray[np.int64], trials: NDArray[np.int64], rate: float
) -> NDArray[np.float64]:
    """The chance of at least so many events, at most 1."""
    least = events.astype(np.float64) - 1
    # Zero events are certain; the function is not defined below zero.
    return np.where(least < 0, 1.0, scipy.special.bdtrc(np.maximum(least, 0.0), trials, rate))
