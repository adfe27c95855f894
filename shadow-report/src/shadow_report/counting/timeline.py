"""Counts over time, in equally long steps."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from shadow_report.counting.classify import Classified
from shadow_report.report import Bucket
from shadow_report.wording import EPOCH

BUCKETS = 60
MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Postgres's count of a time: microseconds since 2000-01-01 UTC."""
    return (time - EPOCH) // MICROSECOND


def from_microseconds(count: int) -> datetime:
    return EPOCH + count * MICROSECOND


class Timeline:
    """Counts of calls, pairs, faults, disagreements and slow answers from `first` to `last`."""

    def __init__(self, first: datetime, last: datetime, slo_ms: float | None) -> None:
        self._start = microseconds(first)
        self.seconds = max(1.0, np.ceil((last - first).total_seconds() / BUCKETS))
        self._slo_ms = slo_ms
        self._counts: NDArray[np.int64] = np.zeros((5, BUCKETS + 1), dtype=np.int64)

    def add(self, classified: Classified) -> None:
        places = self.places(classified.primary_times)
        rows = [classified.called, classified.usable, classified.faults, classified.disagreements]
        if self._slo_ms is not None:
            slow_primary, slow_shadow = classified.slow(self._slo_ms)
            rows.append(slow_shadow & ~slow_primary)
        for line, chosen in enumerate(rows):
            self._counts[line] += np.bincount(places[chosen], minlength=BUCKETS + 1)

    def places(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The step that each time falls into; times outside fall into the outermost."""
        steps = (times - self._start) // int(self.seconds * 1e6)
        return np.asarray(np.clip(steps, 0, BUCKETS), dtype=np.int64)

    def report(self) -> tuple[Bucket, ...]:
        """All steps up to the last one with a call."""
        used = np.flatnonzero(self._counts[0])
        return tuple(
            Bucket(
                start=from_microseconds(self._start + round(i * self.seconds * 1e6)),
                seconds=self.seconds,
                primary_calls=calls,
                pairs=pairs,
                new_faults=faults,
                disagreements=disagreements,
                slow=slow,
            )
            for i, (calls, pairs, faults, disagreements, slow) in enumerate(
                self._counts.T[: int(used[-1]) + 1 if used.size else 0].tolist()
            )
        )
