"""What the batches add up to: counters of bounded size, one per question of the report.

Pure: arrays in, figures out. Each has an `add` that takes a batch and a `report` or properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from shadow_report.answers.comparer import Comparer, Seen
from shadow_report.answers.outcome import Outcome
from shadow_report.counting.classify import ANY_TIME, Classifier, Clock
from shadow_report.counting.generated import DifferingSample, GeneratedTally
from shadow_report.counting.latency import LatencyTally
from shadow_report.counting.ledger import Ledger, MarginTally, MissingTally
from shadow_report.counting.noise import NoiseTally
from shadow_report.counting.slices import SliceTally
from shadow_report.counting.timeline import Timeline, microseconds
from shadow_report.counting.trials import TrialTally
from shadow_report.counting.worst import Groups
from shadow_report.evidence.batch import Batch
from shadow_report.settings import Comparison


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that one pass over the pairs counts."""

    classifier: Classifier
    further: Classifier
    """Compares the shadow's further calls with a pair id, which are in no other figure."""
    comparer: Comparer
    ledger: Ledger
    margins: MarginTally
    timeline: Timeline
    missing: MissingTally
    latency: LatencyTally
    generated: GeneratedTally
    differing: DifferingSample
    slices: SliceTally
    trials: TrialTally
    groups: Groups
    noise: NoiseTally

    @classmethod
    def begin(
        cls,
        settings: Comparison,
        clock: Clock,
        *,
        first: datetime,
        last: datetime,
        calls: int,
        is_mirrored: bool,
    ) -> Counters:
        """Empty tallies for some `calls` of the primary between these times.

        is_mirrored: the entry copied the calls to the shadow; else a replay or follower sent them.
        """
        timeline = Timeline(first, last, settings.slo_ms)
        comparer = Comparer(settings.rules)
        return cls(
            classifier=Classifier(comparer, settings.rules, clock, is_mirrored=is_mirrored),
            further=Classifier(Comparer(settings.rules), settings.rules, ANY_TIME),
            comparer=comparer,
            ledger=Ledger(),
            margins=MarginTally(settings.rules),
            timeline=timeline,
            missing=MissingTally(timeline),
            latency=LatencyTally(settings.slo_ms),
            generated=GeneratedTally(settings.rules),
            differing=DifferingSample(settings.judge_sample),
            slices=SliceTally(settings.slices),
            trials=TrialTally(settings, microseconds(first), microseconds(last)),
            groups=Groups(),
            noise=NoiseTally(settings.rules, calls),
        )

    def take_in_further(self, batches: Iterable[Batch]) -> None:
        """Let pairs be as bad as the gravest of these further shadow calls with their ids.

        They replace those of the last time, and come before their pairs are taken in.
        """
        worst: dict[int, Outcome] = {}
        for batch in batches:
            found = self.further.classify(batch)
            hashes = batch.integers("pair_hash")[found.usable].tolist()
            for pair, outcome in zip(hashes, found.outcomes[found.usable].tolist(), strict=True):
                worst[pair] = max(worst.get(pair, Outcome.EQUAL), Outcome(outcome))
        self.classifier.retries = worst

    def take_in(self, batches: Iterable[Batch], progress: Callable[[int], None]) -> None:
        """Count all pairs; `progress` hears after each batch how many rows are done."""
        done = 0
        counters = (
            self.ledger,
            self.margins,
            self.timeline,
            self.missing,
            self.latency,
            self.generated,
            self.differing,
            self.slices,
            self.trials,
            self.groups,
            self.noise,
        )
        for batch in batches:
            classified = self.classifier.classify(batch)
            for counter in counters:
                counter.add(classified)
            done += len(batch)
            progress(done)

    def extend(self, last: datetime, calls: int) -> None:
        """Make room for the calls up to `last`, now so many: as if begun for those."""
        self.timeline.extend(last)
        self.trials.extend(microseconds(last))
        self.noise.extend(calls)

    @property
    def seen(self) -> Seen:
        """What there was in all answers that were compared with the shadow's."""
        return self.classifier.seen | self.further.seen

    def unmatched_rules(self, seen: Seen) -> tuple[str, ...]:
        """The options by path that named nothing in this window, as they are given.

        seen: what there was in all answers compared by the rules.
        """
        return (*self.comparer.unmatched(seen), *self.slices.unmatched(), *self.trials.unmatched())
