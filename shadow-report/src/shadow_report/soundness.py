"""What one run found out, and the parts of the report that say how sound it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shadow_report.evidence.services import calls_by, uniform_since
from shadow_report.integrity import Facts, findings
from shadow_report.report import Integrity, Side, Signature, Window
from shadow_report.settings import Comparison
from shadow_report.sides import Sides
from shadow_report.tallies.all import Tallies
from shadow_report.tallies.timeline import from_microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that one run found out, before it is judged."""

    settings: Comparison
    sides: Sides
    tallies: Tallies
    duplicates: dict[str, int]
    lost: dict[str, int]
    signatures: tuple[Signature, ...]
    generated_at: datetime


def expected_pairs(found: Found) -> int:
    """Primary calls that should have a shadow call."""
    calls = found.tallies.judge.counts.calls["primary"]
    return max(found.tallies.ledger.pairs, round(calls * found.settings.mirrored_share))


def window_of(found: Found) -> Window:
    settings, sides, tallies = found.settings, found.sides, found.tallies
    first, last = tallies.ledger.first_pair, tallies.ledger.last_pair
    hours = 0.0 if first is None or last is None else (last - first) / 3.6e9
    counts = tallies.judge.counts
    return Window(
        since=settings.since,
        until=settings.until,
        began=sides.began,
        first_pair=None if first is None else from_microseconds(first),
        last_pair=None if last is None else from_microseconds(last),
        hours=hours,
        pairs_per_hour=tallies.ledger.pairs / hours if hours > 0 else None,
        settle_seconds=settings.settle.total_seconds(),
        in_flight=counts.in_flight,
        warm_up_seconds=settings.warm_up.total_seconds(),
        warm_up_pairs=counts.warm_up,
    )


def side_of(found: Found, role: str) -> Side:
    groups, counts = found.sides.groups_of(role), found.tallies.judge.counts
    scope = found.sides.scope
    cut_requests = sum(group.cut_requests for group in groups)
    unpaired = found.tallies.ledger.missing if role == "primary" else counts.shadow_only
    return Side(
        role=role,
        service=scope.primary if role == "primary" else scope.shadow,
        calls=counts.calls[role],
        unpaired=unpaired,
        duplicates=found.duplicates.get(role, 0),
        unanswered=counts.unanswered[role],
        failed=counts.failed[role],
        lost_records=found.lost[role],
        cut_requests=cut_requests,
        cut_responses=counts.cut[role],
        unparseable=counts.unparseable[role],
        model_names=calls_by(groups, lambda group: group.model_name),
        model_versions=calls_by(groups, lambda group: group.model_version),
        protocols=calls_by(groups, lambda group: group.protocol),
        pair_sources=calls_by(groups, lambda group: group.pair_source),
        recorders=len({group.recorder_id for group in groups}),
        first_call=min((group.first_call for group in groups), default=None),
        last_call=max((group.last_call for group in groups), default=None),
        delivery_lag_seconds=max((g.delivery_lag_seconds for g in groups), default=None),
    )


def integrity_of(found: Found) -> Integrity:
    settings, ledger, counts = found.settings, found.tallies.ledger, found.tallies.judge.counts
    expected = expected_pairs(found)
    coverage = ledger.pairs / expected if expected else None
    missing = found.tallies.missing.report()
    facts = Facts(
        primary=side_of(found, "primary"),
        shadow=side_of(found, "shadow"),
        other_primaries=found.sides.primary.others,
        other_shadows=found.sides.shadow.others,
        pairs=ledger.pairs,
        different_requests=counts.different_requests,
        cut_pairs=counts.cut_pairs,
        in_flight=counts.in_flight,
        warm_up=counts.warm_up,
        uniform_since=uniform_since(found.sides.groups, settings.primary, settings.shadow),
        settle_seconds=settings.settle.total_seconds(),
        clock_skew_ms=ledger.clock_skew_ms,
        coverage=coverage,
        mirrored_share=settings.mirrored_share,
        min_coverage=settings.margins.min_coverage,
        missing=missing if settings.mirrored_share == 1 else (),
    )
    return Integrity(
        primary_calls=counts.calls["primary"],
        paired=ledger.pairs,
        expected_share=settings.mirrored_share,
        coverage=coverage,
        different_requests=counts.different_requests,
        clock_skew_ms=ledger.clock_skew_ms,
        missing=missing,
        findings=findings(facts),
    )
