"""The comparison from the tables to the report: one pass over the pairs, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from shadow_report.assemble import assemble
from shadow_report.evidence.database import Tables, open_tables
from shadow_report.evidence.services import holes_may_be
from shadow_report.report import Report
from shadow_report.settings import Comparison
from shadow_report.showcase import signatures
from shadow_report.sides import Sides, find_sides, from_rollout
from shadow_report.soundness import Found
from shadow_report.tallies.all import Tallies
from shadow_report.tallies.judge import Clock
from shadow_report.tallies.timeline import microseconds

# Called with pairs done and pairs expected, after each batch.
Progress = Callable[[int, int], None]


def compare(uri: str, settings: Comparison, progress: Progress = lambda done, of: None) -> Report:
    """Compare what the tables at `uri` hold, and judge it.

    Raises OneLineError when the tables cannot be read. Reads only, in one snapshot.
    """
    with open_tables(uri) as tables:
        now = tables.now()
        if settings.since_rollout:
            settings = from_rollout(tables, settings)
        sides = find_sides(tables, settings)
        duplicates = tables.duplicates(sides.scope)
        calls = sum(group.calls for group in sides.groups_of("primary"))
        tallies = _tallies(settings, sides, now, calls)
        batches = tables.pairs(
            sides.scope,
            deduplicate=any(duplicates.values()),
            with_requests=bool(settings.slices or settings.cluster),
        )
        tallies.take_in(batches, lambda done: progress(done, calls))
        found = Found(
            settings=settings,
            sides=sides,
            tallies=tallies,
            duplicates=duplicates,
            lost={role: _lost(tables, sides, role, settings) for role in ("primary", "shadow")},
            signatures=signatures(tables, sides.scope, tallies, settings.rules),
            generated_at=now.astimezone(UTC),
        )
    return assemble(found)


def _tallies(settings: Comparison, sides: Sides, now: datetime, calls: int) -> Tallies:
    groups = sides.groups_of("primary") or sides.groups_of("shadow")
    began = sides.began or min((group.first_call for group in groups), default=now)
    first = began + settings.warm_up
    last = max((group.last_call for group in groups), default=now)
    clock = Clock(
        counted_from=microseconds(first), settled_before=microseconds(now - settings.settle)
    )
    return Tallies.begin(settings, clock, first=first, last=last, calls=calls)


def _lost(tables: Tables, sides: Sides, role: str, settings: Comparison) -> int:
    groups, everything = sides.groups_of(role), settings.since is None
    if not holes_may_be(groups, from_one=everything):
        return 0
    # In a window the numbers before it are not missed.
    first = {group.recorder_id: 0 if everything else group.first_sequence for group in groups}
    return tables.lost_calls(role, groups[0].inference_service, first)
