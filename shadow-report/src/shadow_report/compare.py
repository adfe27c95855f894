"""The comparison from the tables to the report: one pass over the pairs, memory that stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from shadow_report.answers.comparer import Comparer
from shadow_report.assemble import Findings, assemble
from shadow_report.evidence.database import CallGroup, Scope, Tables, open_tables
from shadow_report.evidence.services import Chosen, choose_service, groups_of, may_have_gaps
from shadow_report.noise import noise_floor
from shadow_report.report import Noise, Report
from shadow_report.settings import Comparison
from shadow_report.showcase import signatures
from shadow_report.tallies.clusters import ClusterTally
from shadow_report.tallies.judge import Clock, Judge
from shadow_report.tallies.latency import LatencyTally
from shadow_report.tallies.ledger import Ledger
from shadow_report.tallies.missing import MissingTally
from shadow_report.tallies.slices import SliceTally
from shadow_report.tallies.timeline import Timeline, microseconds
from shadow_report.tallies.worst import Groups

# Called with pairs done and pairs expected, after each batch.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Sides:
    """Who is compared, from which calls on, and what both sides recorded about themselves."""

    primary: Chosen
    shadow: Chosen
    began: datetime | None
    scope: Scope
    groups: list[CallGroup]

    def groups_of(self, role: str) -> list[CallGroup]:
        """This side's groups."""
        service = self.scope.primary if role == "primary" else self.scope.shadow
        return groups_of(self.groups, role, service)


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

    @classmethod
    def begin(cls, settings: Comparison, clock: Clock, first: datetime, last: datetime) -> Tallies:
        """Empty tallies for calls between these times."""
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
        )

    def take_in(self, tables: Tables, sides: Sides, progress: Progress, **how: bool) -> None:
        """Read the pairs once and count them."""
        done, expected = 0, sum(group.calls for group in sides.groups_of("primary"))
        counters = (
            self.ledger,
            self.timeline,
            self.missing,
            self.latency,
            self.slices,
            self.clusters,
            self.groups,
        )
        for batch in tables.pairs(sides.scope, **how):
            judged = self.judge.judge(batch)
            for counter in counters:
                counter.add(judged)
            done += len(batch)
            progress(done, expected)


def compare(uri: str, settings: Comparison, progress: Progress = lambda done, of: None) -> Report:
    """Compare what the tables at `uri` hold, and judge it.

    Raises OneLineError when the tables cannot be read. Reads only, in one snapshot.
    """
    with open_tables(uri) as tables:
        now = tables.now()
        sides = _sides(tables, settings)
        calls = sides.groups_of("primary") or sides.groups_of("shadow")
        first = min((group.first_call for group in calls), default=now)
        last = max((group.last_call for group in calls), default=now)
        began = sides.began or first
        clock = Clock(
            counted_from=microseconds(began + settings.warm_up),
            settled_before=microseconds(now - settings.settle),
        )
        tallies = Tallies.begin(settings, clock, began + settings.warm_up, last)
        duplicates = tables.duplicates(sides.scope)
        if calls:
            asks = bool(settings.slices or settings.cluster)
            deduplicate = any(duplicates.values())
            tallies.take_in(tables, sides, progress, deduplicate=deduplicate, with_requests=asks)
        found = Findings(
            settings=settings,
            sides=sides,
            tallies=tallies,
            duplicates=duplicates,
            lost={role: _lost(tables, sides, role, settings) for role in ("primary", "shadow")},
            noise=_noise(tables, sides, settings, tallies.ledger),
            signatures=signatures(tables, sides.scope, tallies, settings.rules),
            generated_at=now.astimezone(UTC),
        )
    return assemble(found)


def _sides(tables: Tables, settings: Comparison) -> Sides:
    asked = Scope(
        primary="",
        shadow="",
        since=settings.since,
        until=settings.until,
        shadow_since=settings.shadow_since,
    )
    groups = tables.calls(asked)
    primary = choose_service(groups, "primary", settings.primary)
    shadow = choose_service(groups, "shadow", settings.shadow)
    scope = replace(
        asked,
        primary=primary.service or settings.primary or "",
        shadow=shadow.service or settings.shadow or "",
    )
    began = tables.began(scope) if primary.service and shadow.service else None
    if began is not None:
        scope = replace(scope, since=began)
        # What ran before mirroring began is no part of the evidence.
        if any(group.first_call < began for group in groups):
            groups = tables.calls(scope)
    return Sides(primary, shadow, began, scope, groups)


def _lost(tables: Tables, sides: Sides, role: str, settings: Comparison) -> int:
    groups = sides.groups_of(role)
    whole_history = settings.since is None and sides.scope.since is None
    if not may_have_gaps(groups, whole_history=whole_history):
        return 0
    service = groups[0].inference_service
    return tables.lost_calls(role, service, sorted({group.recorder_id for group in groups}))


def _noise(tables: Tables, sides: Sides, settings: Comparison, ledger: Ledger) -> Noise:
    calls = sum(group.calls for group in sides.groups_of("primary"))
    share = ledger.disagreements / ledger.compared if ledger.compared else None
    alpha = settings.margins.alpha
    return noise_floor(tables, sides.scope, settings.rules, calls, share, alpha)
