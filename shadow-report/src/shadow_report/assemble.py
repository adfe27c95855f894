"""From the tallies to the report: judges the gates and gives the verdict; counts nothing."""

from __future__ import annotations

from datetime import timedelta

from shadow_report import __version__
from shadow_report.answers.figures import path_reports
from shadow_report.answers.outcome import Outcome
from shadow_report.counts import ChangeTally, Evidence, Tally
from shadow_report.gates import judge
from shadow_report.report import SCHEMA_VERSION, Integrity, Report, Signature
from shadow_report.soundness import Found, expected_pairs, integrity_of, side_of, window_of
from shadow_report.verdict import decide
from shadow_report.wording import counted


def assemble(found: Found) -> Report:
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


def _evidence(found: Found) -> Evidence:
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


def _notes(found: Found) -> tuple[str, ...]:
    settings, counts = found.settings, found.tallies.judge.counts
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
