"""How long both sides took."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shadow_report.counting.classify import Classified
from shadow_report.report import Latency, LatencyShift, PairedTable
from shadow_report.statistics.agreement import quantile_shift
from shadow_report.statistics.samples import PairSample

QUANTILES = (0.5, 0.95, 0.99)
CAVEAT = (
    "Durations are each transformer's own. A mirrored shadow may run on fewer replicas, with "
    "colder caches and other load than it would after promotion, so a shift here is not a forecast."
)


class LatencyTally:
    """Paired durations: slow answers counted, a fair sample kept for the quantiles."""

    def __init__(self, slo_ms: float | None) -> None:
        self.slo_ms = slo_ms
        self._sample = PairSample()
        self.neither = self.shadow_only = self.primary_only = self.both = 0

    def add(self, classified: Classified) -> None:
        p, s = classified.primary_durations_ms, classified.shadow_durations_ms
        measured = classified.usable & np.isfinite(p) & np.isfinite(s)
        self._sample.add(p[measured], s[measured], classified.batch.integers("pair_hash")[measured])
        if self.slo_ms is None:
            return
        slow_p, slow_s = classified.slow(self.slo_ms)
        self.both += int(np.count_nonzero(slow_p & slow_s))
        self.shadow_only += int(np.count_nonzero(slow_s & ~slow_p))
        self.primary_only += int(np.count_nonzero(slow_p & ~slow_s))
        self.neither += int(np.count_nonzero(classified.usable & ~slow_p & ~slow_s))

    def report(self, alpha: float) -> Latency:
        """The shift of each quantile with its interval, from at most 200,000 pairs."""
        p, s = self._sample.primary, self._sample.shadow
        slow = PairedTable(self.neither, self.shadow_only, self.primary_only, self.both)
        return Latency(
            pairs=self._sample.seen,
            slo_ms=self.slo_ms,
            slow=None if self.slo_ms is None else slow,
            shifts=tuple(_shift(p, s, share, alpha) for share in QUANTILES) if p.size else (),
            median_difference_ms=float(np.median(s - p)) if p.size else None,
            caveat=CAVEAT,
        )


def _shift(
    p: NDArray[np.float64], s: NDArray[np.float64], share: float, alpha: float
) -> LatencyShift:
    found = quantile_shift(p, s, share, alpha)
    interval = None if np.isnan(found.interval.lower) else found.interval
    return LatencyShift(share, found.primary, found.shadow, found.shift, interval)
