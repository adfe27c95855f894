"""Counts over time, in equally long steps."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from shadow_report.counting.classify import Classified
from shadow_report.report import Bucket
from shadow_report.statistics.block_scan import halved
from shadow_report.wording import EPOCH

BUCKETS = 60
MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000

CALLED, PAIRED, FAULTS, DISAGREEMENTS, SLOW, UNANSWERED = range(6)


def microseconds(time: datetime) -> int:
    """Postgres's count of a time: microseconds since 2000-01-01 UTC."""
    return (time - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    return EPOCH + count * MICROSECOND


class Timeline:
    """Counts of calls, pairs, faults, disagreements and slow answers from `first` to `last`.

    A step is 1, 2, 4, 8 ... seconds long and starts at a multiple of that, so that steps can be
    joined: after `extend` it is the timeline of the longer window.
    """

    def __init__(self, first: datetime, last: datetime, slo_ms: float | None) -> None:
        self._seconds = 1
        self._first = microseconds(first) // SECOND
        self._slo_ms = slo_ms
        self._counts: NDArray[np.int64] = np.zeros((6, 1), dtype=np.int64)
        self.extend(last)

    def extend(self, last: datetime) -> None:
        """Make room for the calls up to `last`."""
        newest = microseconds(last) // SECOND
        while newest // self._seconds - self._first > BUCKETS:
            self._counts = halved(self._counts, self._first)
            self._seconds, self._first = self._seconds * 2, self._first // 2
        more = newest // self._seconds - self._first + 1 - self._counts.shape[1]
        if more > 0:
            self._counts = np.pad(self._counts, ((0, 0), (0, more)))

    def add(self, classified: Classified) -> None:
        steps = classified.primary_times // (self._seconds * SECOND) - self._first
        size = self._counts.shape[1]
        steps = np.clip(steps, 0, size - 1)
        rows = {
            CALLED: classified.called,
            PAIRED: classified.usable,
            FAULTS: classified.faults,
            DISAGREEMENTS: classified.disagreements,
            UNANSWERED: classified.unanswered,
        }
        if self._slo_ms is not None:
            slow_primary, slow_shadow = classified.slow(self._slo_ms)
            rows[SLOW] = slow_shadow & ~slow_primary
        for line, chosen in rows.items():
            self._counts[line] += np.bincount(steps[chosen], minlength=size)

    def ends(self, step: int) -> tuple[int, int]:
        """When a step begins and when it ends, as Postgres counts."""
        length = self._seconds * SECOND
        return (self._first + step) * length, (self._first + step + 1) * length

    def by_step(self, line: int) -> Counter[int]:
        """One line's counts by the number of the step, from 0 on."""
        counts = self._counts[line]
        return Counter({step: int(counts[step]) for step in np.flatnonzero(counts).tolist()})

    def report(self) -> tuple[Bucket, ...]:
        """All steps up to the last one with a call."""
        used = np.flatnonzero(self._counts[CALLED])
        return tuple(
            Bucket(
                start=from_microseconds((self._first + i) * self._seconds * SECOND),
                seconds=float(self._seconds),
                primary_calls=calls,
                pairs=pairs,
                new_faults=faults,
                unanswered=unanswered,
                disagreements=disagreements,
                slow=slow,
            )
            for i, (calls, pairs, faults, disagreements, slow, unanswered) in enumerate(
                self._counts.T[: int(used[-1]) + 1 if used.size else 0].tolist()
            )
        )
