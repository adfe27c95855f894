"""How far the pairs repeat each other: pairs of one user or session are not independent."""

from __future__ import annotations

import zlib

import numpy as np

from shadow_report.report import Clusters
from shadow_report.request_field import RequestField, request_parts
from shadow_report.statistics.clusters import ClusterBuckets, design_effect, effective_trials
from shadow_report.tallies.judged import Judged


class ClusterTally:
    """Pairs by cluster, for each gate that counts pairs; constant memory."""

    def __init__(self, field: RequestField | None, slo_ms: float | None) -> None:
        self._field = field
        self._slo_ms = slo_ms
        self.faults, self.disagreements, self.slow = (ClusterBuckets() for _ in range(3))

    def add(self, judged: Judged) -> None:
        """Count a batch that was read with its requests."""
        if self._field is None:
            return
        keys = np.zeros(len(judged.batch), dtype=np.int64)
        for row in np.flatnonzero(judged.usable).tolist():
            value = self._field.read(*request_parts(*judged.batch.request(row)))
            keys[row] = zlib.crc32(value.encode())
        usable, compared = judged.usable, judged.compared
        self.faults.add(keys[usable], 1, judged.faults[usable])
        self.disagreements.add(keys[compared], 1, judged.disagreements[compared])
        if self._slo_ms is not None:
            slow_primary, slow_shadow = judged.slow(self._slo_ms)
            self.slow.add(keys[usable], 1, (slow_shadow & ~slow_primary)[usable])

    def effective(self, buckets: ClusterBuckets) -> float | None:
        """What the pairs are worth in independent ones; None when no clusters were asked for."""
        counts = buckets.counts()
        return effective_trials(counts) if self._field and counts.trials else None

    def report(self) -> Clusters | None:
        """The design effect on the rate of new faults."""
        counts = self.faults.counts()
        if self._field is None or not counts.trials:
            return None
        return Clusters(self._field.name, counts.clusters, counts.trials, design_effect(counts))
