"""From the tallies to the report: the gates are judged, the verdict is given, nothing is counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from shadow_report import __version__
from shadow_report.answers.figures import path_reports
from shadow_report.answers.outcome import Outcome
from shadow_report.counts import ChangeTally, Evidence, Tally
from shadow_report.evidence.services import calls_by
from shadow_report.gates import judge
from shadow_report.integrity import Facts, findings
from shadow_report.report import (
    SCHEMA_VERSION,
    Integrity,
    Noise,
    Report,
    Side,
    Signature,
    Window,
)
from shadow_report.settings import Comparison
from shadow_report.tallies.timeline import from_microseconds
from shadow_report.verdict import decide

if TYPE_CHECKING:
    from shadow_report.compare import Sides, Tallies


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that one run found out, before it is judged."""

    settings: Comparison
    sides: Sides
    tallies: Tallies
    duplicates: dict[str, int]
    lost: dict[str, int]
    noise: Noise
    signatures: tuple[Signature, ...]
    generated_at: datetime


def assemble(found: Findings) -> Report:
    """The report, with gates and verdict."""
    settings, tallies, ledger = found.settings, found.tallies, found.tallies.ledger
    window = _window(found)
    integrity = _integrity(found)
    gates = judge(_evidence(found), settings.margins)
    verdict = decide(
        gates,
        settings.margins,
        problems=[f"{f.what} {f.remedy}" for f in integrity.findings if f.unsound],
        duration=timedelta(hours=window.hours),
        pairs_per_second=None if window.pairs_per_hour is None else window.pairs_per_hour / 3600,
        details=_details(found.signatures),
    )
    return Report(
        schema_version=SCHEMA_VERSION,
        verdict=verdict.outcome.value,
        reasons=verdict.reasons,
        pairs=ledger.pairs,
        gates=verdict.gates,
        more_pairs=verdict.more_pairs,
        eta_seconds=None if verdict.eta is None else verdict.eta.total_seconds(),
        tool_version=__version__,
        generated_at=found.generated_at,
        settings=settings.as_plain(),
        settings_sha256=settings.sha256(),
        window=window,
        primary=_side(found, "primary"),
        shadow=_side(found, "shadow"),
        integrity=integrity,
        outcomes={o.title: ledger.outcomes[o] for o in Outcome if ledger.outcomes[o]},
        errors=ledger.errors(),
        statuses=ledger.status_pairs(),
        new_faults=ledger.new_faults,
        disagreements=ledger.disagreements,
        paths=path_reports(tallies.comparer.places.all, ledger.differing, settings.margins.alpha),
        latency=tallies.latency.report(settings.margins.alpha),
        noise=found.noise,
        clusters=tallies.clusters.report(),
        slices=tallies.slices.report(settings.margins.alpha),
        signatures=found.signatures,
        timeline=tallies.timeline.report(),
        notes=_notes(found),
    )


def _expected(found: Findings) -> int:
    """Primary calls that should have a shadow call."""
    calls = found.tallies.judge.counts.calls["primary"]
    return max(found.tallies.ledger.pairs, round(calls * found.settings.mirrored_share))


def _evidence(found: Findings) -> Evidence:
    ledger, clusters, latency = found.tallies.ledger, found.tallies.clusters, found.tallies.latency
    expected = _expected(found)
    slow = None
    if found.settings.slo_ms is not None:
        worth = clusters.effective(clusters.slow)
        slow = ChangeTally(latency.shadow_only, latency.primary_only, ledger.pairs, worth)
    return Evidence(
        missing=Tally(expected - ledger.pairs, expected),
        faults=ChangeTally(
            ledger.new_faults, ledger.mended, ledger.pairs, clusters.effective(clusters.faults)
        ),
        disagreement=Tally(
            ledger.disagreements, ledger.compared, clusters.effective(clusters.disagreements)
        ),
        slow=slow,
    )


def _window(found: Findings) -> Window:
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


def _side(found: Findings, role: str) -> Side:
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


def _integrity(found: Findings) -> Integrity:
    settings, ledger, counts = found.settings, found.tallies.ledger, found.tallies.judge.counts
    expected = _expected(found)
    coverage = ledger.pairs / expected if expected else None
    missing = found.tallies.missing.report()
    facts = Facts(
        primary=_side(found, "primary"),
        shadow=_side(found, "shadow"),
        other_primaries=found.sides.primary.others,
        other_shadows=found.sides.shadow.others,
        pairs=ledger.pairs,
        different_requests=counts.different_requests,
        cut_pairs=counts.cut_pairs,
        in_flight=counts.in_flight,
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


def _details(signatures: tuple[Signature, ...]) -> dict[str, str]:
    """The most frequent fault and disagreement by name, for the reasons."""
    details: dict[str, str] = {}
    for signature in signatures:
        gate = "faults" if signature.is_fault else "disagreement"
        details.setdefault(gate, f"Most often {signature.signature} ({signature.pairs:,} pairs).")
    return details


def _notes(found: Findings) -> tuple[str, ...]:
    settings, counts = found.settings, found.tallies.judge.counts
    notes = [
        "The verdict is about this window's traffic; other days may bring other requests.",
    ]
    if counts.warm_up:
        notes.append(f"{counts.warm_up:,} pairs of the warm-up are left out.")
    if settings.mirrored_share < 1:
        notes.append(
            f"Coverage is judged against a mirrored share of {settings.mirrored_share:g}, as told."
        )
    if settings.rules.ignored:
        notes.append(f"Not compared: {', '.join(sorted(settings.rules.ignored))}.")
    if found.tallies.latency.slo_ms is None:
        notes.append("Without --slo-ms no answer is too slow for the verdict.")
    return tuple(notes)
