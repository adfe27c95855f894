"""Everything that one pass over the pairs counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from shadow_report.answers.comparer import Comparer
from shadow_report.evidence.batch import Batch
from shadow_report.settings import Comparison
from shadow_report.tallies.clusters import ClusterTally
from shadow_report.tallies.judge import Clock, Judge
from shadow_report.tallies.latency import LatencyTally
from shadow_report.tallies.ledger import Ledger
from shadow_report.tallies.missing import MissingTally
from shadow_report.tallies.noise import NoiseTally
from shadow_report.tallies.slices import SliceTally
from shadow_report.tallies.timeline import Timeline
from shadow_report.tallies.worst import Groups


@dataclass(frozen=True, slots=True)
class Tallies:
    """Everything that one pass over the pairs counts."""

    judge: Judge
    comparer: Comparer
    ledger: Ledger
    timeline: Timeline
    missing: MissingTally
    latency: LatencyTally
    slices: SliceTally
    clusters: ClusterTally
    groups: Groups
    noise: NoiseTally

    @classmethod
    def begin(
        cls, settings: Comparison, clock: Clock, *, first: datetime, last: datetime, calls: int
    ) -> Tallies:
        """Empty tallies for some `calls` of the primary between these times."""
        timeline = Timeline(first, last, settings.slo_ms)
        comparer = Comparer(settings.rules)
        return cls(
            judge=Judge(comparer, clock),
            comparer=comparer,
            ledger=Ledger(),
            timeline=timeline,
            missing=MissingTally(timeline),
            latency=LatencyTally(settings.slo_ms),
            slices=SliceTally(settings.slices),
            clusters=ClusterTally(settings.cluster, settings.slo_ms),
            groups=Groups(),
            noise=NoiseTally(settings.rules, calls),
        )

    def take_in(self, batches: Iterable[Batch], progress: Callable[[int], None]) -> None:
        """Count all pairs; `progress` hears after each batch how many rows are done."""
        done = 0
        counters = (
            self.ledger,
            self.timeline,
            self.missing,
            self.latency,
            self.slices,
            self.clusters,
            self.groups,
            self.noise,
        )
        for batch in batches:
            judged = self.judge.judge(batch)
            for counter in counters:
                counter.add(judged)
            done += len(batch)
            progress(done)
