"""The comparison from the tables to the report: one pass over the pairs, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from shadow_report import __version__
from shadow_report.answers.figures import path_reports
from shadow_report.answers.outcome import Outcome
from shadow_report.counting import Counters
from shadow_report.counting.classify import Clock
from shadow_report.counting.timeline import from_microseconds, microseconds
from shadow_report.counting.worst import signatures
from shadow_report.evidence.database import Tables, open_tables
from shadow_report.evidence.services import (
    Sides,
    calls_by,
    find_sides,
    from_rollout,
    may_have_gaps,
    uniform_since,
)
from shadow_report.judging.gates import ChangeTally, Evidence, Tally, judge
from shadow_report.judging.integrity import Facts, findings
from shadow_report.judging.verdict import decide
from shadow_report.report import SCHEMA_VERSION, Integrity, Report, Side, Signature, Window
from shadow_report.settings import Comparison
from shadow_report.wording import counted

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
        found = Observations(
            settings=settings,
            sides=sides,
            tallies=tallies,
            duplicates=duplicates,
            lost={role: _lost(tables, sides, role, settings) for role in ("primary", "shadow")},
            signatures=signatures(
                tallies.groups,
                [place.path for place in tallies.comparer.places.all],
                tallies.ledger.pairs,
                settings.rules,
                partial(tables.whole_pairs, sides.scope),
            ),
            generated_at=now.astimezone(UTC),
        )
    return assemble(found)


def _tallies(settings: Comparison, sides: Sides, now: datetime, calls: int) -> Counters:
    groups = sides.groups_of("primary") or sides.groups_of("shadow")
    began = sides.began or min((group.first_call for group in groups), default=now)
    first = began + settings.warm_up
    last = max((group.last_call for group in groups), default=now)
    clock = Clock(
        counted_from=microseconds(first), settled_before=microseconds(now - settings.settle)
    )
    return Counters.begin(settings, clock, first=first, last=last, calls=calls)


def _lost(tables: Tables, sides: Sides, role: str, settings: Comparison) -> int:
    groups, everything = sides.groups_of(role), settings.since is None
    if not may_have_gaps(groups, from_one=everything):
        return 0
    # In a window the numbers before it are not missed.
    first = {group.recorder_id: 0 if everything else group.first_sequence for group in groups}
    return tables.lost_calls(role, groups[0].inference_service, first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """All that one run found out, before it is judged."""

    settings: Comparison
    sides: Sides
    tallies: Counters
    duplicates: dict[str, int]
    lost: dict[str, int]
    signatures: tuple[Signature, ...]
    generated_at: datetime


def expected_pairs(found: Observations) -> int:
    """Primary calls that should have a shadow call."""
    calls = found.tallies.classifier.counts.calls["primary"]
    return max(found.tallies.ledger.pairs, round(calls * found.settings.mirrored_share))


def window_of(found: Observations) -> Window:
    settings, sides, tallies = found.settings, found.sides, found.tallies
    first, last = tallies.ledger.first_pair, tallies.ledger.last_pair
    hours = 0.0 if first is None or last is None else (last - first) / 3.6e9
    counts = tallies.classifier.counts
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


def side_of(found: Observations, role: str) -> Side:
    groups, counts = found.sides.groups_of(role), found.tallies.classifier.counts
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


def integrity_of(found: Observations) -> Integrity:
    settings, ledger, counts = found.settings, found.tallies.ledger, found.tallies.classifier.counts
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


def assemble(found: Observations) -> Report:
    """The report, with gates and verdict."""
    settings, tallies, ledger = found.settings, found.tallies, found.tallies.ledger
    window = window_of(found)
    integrity = integrity_of(found)
    gates = judge(_evidence(found), settings.margins)
    verdict = decide(
        gates,
        settings.margins,
        problems=[f"{f.what} {f.remedy}" for f in integrity.findings if f.unsound],
        duration=timedelta(hours=window.hours),
        pairs_per_second=None if window.pairs_per_hour is None else window.pairs_per_hour / 3600,
        details=_details(found.signatures, integrity),
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
        primary=side_of(found, "primary"),
        shadow=side_of(found, "shadow"),
        integrity=integrity,
        outcomes={o.title: ledger.outcomes[o] for o in Outcome if ledger.outcomes[o]},
        errors=ledger.errors(),
        statuses=ledger.status_pairs(),
        new_faults=ledger.new_faults,
        disagreements=ledger.disagreements,
        paths=path_reports(tallies.comparer.places.all, ledger.differing, settings.margins.alpha),
        latency=tallies.latency.report(settings.margins.alpha),
        noise=tallies.noise.report(
            ledger.disagreements / ledger.compared if ledger.compared else None,
            settings.margins.alpha,
        ),
        clusters=tallies.clusters.report(),
        slices=tallies.slices.report(settings.margins.alpha),
        signatures=found.signatures,
        timeline=tallies.timeline.report(),
        notes=_notes(found),
    )


def _evidence(found: Observations) -> Evidence:
    ledger, clusters, latency = found.tallies.ledger, found.tallies.clusters, found.tallies.latency
    expected = expected_pairs(found)
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


def _details(signatures: tuple[Signature, ...], integrity: Integrity) -> dict[str, str]:
    """For the reasons: the most frequent fault and disagreement, and what may mend the coverage."""
    details = {f.code: f.remedy for f in integrity.findings if f.code == "coverage"}
    for signature in signatures:
        gate = "faults" if signature.is_fault else "disagreement"
        pairs = counted(signature.pairs, "pair")
        details.setdefault(gate, f"Most often {signature.signature} ({pairs}).")
    return details


def _notes(found: Observations) -> tuple[str, ...]:
    settings, counts = found.settings, found.tallies.classifier.counts
    notes = [
        "The verdict is about this window's traffic; other days may bring other requests.",
    ]
    if counts.warm_up:
        notes.append(f"{counted(counts.warm_up, 'pair')} of the warm-up left out.")
    if settings.mirrored_share < 1:
        notes.append(
            f"Coverage is judged against a mirrored share of {settings.mirrored_share:g}, as told."
        )
    if settings.rules.ignored:
        notes.append(f"Not compared: {', '.join(sorted(settings.rules.ignored))}.")
    if found.tallies.latency.slo_ms is None:
        notes.append("Without --slo-ms no answer is too slow for the verdict.")
    return tuple(notes)
