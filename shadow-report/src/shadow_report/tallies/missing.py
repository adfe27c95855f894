"""Whether the primary calls without a shadow call are like the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov

from shadow_report.answers.sketch import Sketch, distance
from shadow_report.report import MissingContrast
from shadow_report.tallies.judged import Judged
from shadow_report.tallies.timeline import Timeline

# With fewer missing calls every contrast is chance.
MIN_MISSING = 10
UNLIKE_BELOW = 0.001


class MissingTally:
    """Size, status and time of primary calls with and without a pair."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._sizes = {True: Sketch(), False: Sketch()}
        self._statuses: dict[bool, Counter[Hashable]] = {True: Counter(), False: Counter()}
        self._times: dict[bool, Counter[Hashable]] = {True: Counter(), False: Counter()}
        self.missing = 0

    def add(self, judged: Judged) -> None:
        sizes = judged.batch.floats("request_size")
        statuses = judged.batch.integers("primary_status")
        steps = self._timeline.places(judged.primary_times)
        self.missing += int(np.count_nonzero(judged.missing))
        for is_missing, rows in ((True, judged.missing), (False, judged.usable)):
            self._sizes[is_missing].add(sizes[rows])
            self._statuses[is_missing].update(_counter(statuses[rows]))
            self._times[is_missing].update(_counter(steps[rows]))

    def report(self) -> tuple[MissingContrast, ...]:
        """One contrast per respect; none while too few calls are missing."""
        if self.missing < MIN_MISSING or not self._sizes[False].total:
            return ()
        return (
            self._size_contrast(),
            _contrast("status", self._statuses[True], self._statuses[False]),
            _contrast("hour", self._times[True], self._times[False]),
        )

    def _size_contrast(self) -> MissingContrast:
        missing, paired = self._sizes[True], self._sizes[False]
        gap = distance(missing, paired)
        n, m = missing.total, paired.total
        # The asymptotic law of Kolmogorov and Smirnov.
        p_value = float(kolmogorov(gap * math.sqrt(n * m / (n + m))))
        return MissingContrast(
            respect="request size",
            missing=f"median {missing.quantile(0.5):,.0f} bytes",
            paired=f"median {paired.quantile(0.5):,.0f} bytes",
            distance=gap,
            p_value=p_value,
            unlike=p_value < UNLIKE_BELOW,
        )


def _contrast(
    respect: str, missing: Counter[Hashable], paired: Counter[Hashable]
) -> MissingContrast:
    keys = sorted(missing.keys() | paired.keys(), key=str)
    table = np.array([[side[key] for key in keys] for side in (missing, paired)], dtype=float)
    shares = table / table.sum(axis=1, keepdims=True)
    p_value = _same_shares_p(table)
    most = int(np.argmax(shares[0] - shares[1]))
    what = f"status {keys[most]}" if respect == "status" else f"step {keys[most]} of the timeline"
    return MissingContrast(
        respect=respect,
        missing=f"{shares[0][most]:.0%} {what}",
        paired=f"{shares[1][most]:.0%} {what}",
        distance=float(np.abs(shares[0] - shares[1]).sum() / 2),
        p_value=p_value,
        unlike=p_value < UNLIKE_BELOW,
    )


def _same_shares_p(table: NDArray[np.float64]) -> float:
    """Pearson's chi-squared test that both rows have the same shares; 1 for a single column."""
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float((np.square(table - expected) / expected).sum())
    return float(chdtrc(table.shape[1] - 1, statistic))


def _counter(values: NDArray[np.int64]) -> dict[Hashable, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
