"""What is wrong with the evidence, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shadow_report.report import Finding, MissingContrast, Side
from shadow_report.wording import percent

# Two clocks further apart than this cannot be told from replayed or late calls.
SKEW_MS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the findings are drawn from."""

    primary: Side
    shadow: Side
    other_primaries: tuple[str, ...]
    other_shadows: tuple[str, ...]
    pairs: int
    """Pairs with the same request on both sides."""
    different_requests: int
    cut_pairs: int
    in_flight: int
    settle_seconds: float
    clock_skew_ms: float | None
    coverage: float | None
    mirrored_share: float
    min_coverage: float
    missing: tuple[MissingContrast, ...]


def findings(facts: Facts) -> tuple[Finding, ...]:
    """All that is unsound first, then what a reader should know."""
    found = [
        *_absent(facts),
        *_services(facts),
        *_pairing(facts),
        *_versions(facts),
        *_bodies(facts),
        *_losses(facts),
        *_clocks(facts),
        *_missing(facts),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.unsound))


def _absent(facts: Facts) -> Iterator[Finding]:
    if not facts.primary.calls and not facts.shadow.calls:
        yield Finding(
            "no-calls",
            True,
            "There is not one call in the window.",
            "Send traffic, widen the window (--since, --last), and check that the transformers' "
            "POSTGRES_URI is this database.",
        )
    elif not facts.shadow.calls:
        yield Finding(
            "no-shadow-calls",
            True,
            f"The primary recorded {facts.primary.calls:,} calls and the shadow none.",
            "Is mirroring on? Check the mirror section of the entry VirtualService, that calls go "
            "through it, and that the shadow runs with SHADOW_ROLE=shadow.",
        )
    elif not facts.primary.calls:
        yield Finding(
            "no-primary-calls",
            True,
            f"The shadow recorded {facts.shadow.calls:,} calls and the primary none.",
            "Does the primary run with SHADOW_ROLE=primary and this database's POSTGRES_URI?",
        )


def _services(facts: Facts) -> Iterator[Finding]:
    for side, others in (
        (facts.primary, facts.other_primaries),
        (facts.shadow, facts.other_shadows),
    ):
        if others:
            yield Finding(
                "several-services",
                True,
                f"Several services recorded as {side.role}: {', '.join((side.service, *others))}.",
                f"Choose one with --{side.role}, or a window in which only one ran.",
            )


def _pairing(facts: Facts) -> Iterator[Finding]:
    primary, shadow = facts.primary, facts.shadow
    if not primary.calls or not shadow.calls:
        return
    sources = primary.pair_sources.keys() | shadow.pair_sources.keys()
    foreign = sum(n for s, n in primary.pair_sources.items() if s != "x-shadow-pair-id")
    if "x-shadow-pair-id" not in sources:
        yield Finding(
            "pair-ids",
            True,
            f"No call carries x-shadow-pair-id; pair ids come from {' and '.join(sorted(sources))}, "
            "which a second gateway hop may replace and callers may repeat.",
            "Is the entry VirtualService used? It sets x-shadow-pair-id; send the traffic through "
            "its path, not straight to the InferenceService.",
        )
    elif foreign:
        yield Finding(
            "direct-calls",
            False,
            f"{foreign:,} of {primary.calls:,} primary calls came without x-shadow-pair-id.",
            "They did not pass the entry VirtualService and are not mirrored; route them through it.",
        )
    if not facts.pairs:
        yield Finding(
            "no-pairs",
            True,
            f"{primary.calls:,} primary and {shadow.calls:,} shadow calls, and no pair among them.",
            "Both copies must carry the same x-shadow-pair-id: is the header set by the entry "
            "VirtualService, before the mirror, and not overwritten by a later one?",
        )
    if facts.different_requests:
        beyond = facts.different_requests > (1 - facts.min_coverage) * (
            facts.pairs + facts.different_requests
        )
        yield Finding(
            "different-requests",
            beyond,
            f"{facts.different_requests:,} pairs have another request body on each side; "
            "they are left out.",
            "Does a client repeat its request ids, or something rewrite the body of one copy?",
        )


def _versions(facts: Facts) -> Iterator[Finding]:
    for side in (facts.primary, facts.shadow):
        if len(side.model_versions) > 1:
            listed = ", ".join(f"{name} ({n:,} calls)" for name, n in side.model_versions.items())
            yield Finding(
                "several-versions",
                True,
                f"The {side.role} changed its model version in the window: {listed}.",
                "Choose a window with one version (--since the rollout's end).",
            )
        if len(side.model_names) > 1:
            yield Finding(
                "several-models",
                True,
                f"The {side.role} served several models: {', '.join(side.model_names)}.",
                "Record one model per service, or choose a window in which one was called.",
            )
    ours, theirs = set(facts.primary.model_names), set(facts.shadow.model_names)
    if ours and theirs and len(ours) == len(theirs) == 1 and ours != theirs:
        yield Finding(
            "model-names",
            False,
            f"The primary serves model {ours.pop()}, the shadow {theirs.pop()}.",
            "Callers address a model by its name; give the shadow the primary's before promoting.",
        )


def _bodies(facts: Facts) -> Iterator[Finding]:
    if facts.cut_pairs:
        beyond = facts.cut_pairs > (1 - facts.min_coverage) * max(1, facts.pairs)
        yield Finding(
            "cut-bodies",
            beyond,
            f"{facts.cut_pairs:,} of {facts.pairs:,} pairs have a response that was stored cut; "
            "their answers are not compared.",
            "Raise RECORD_MAX_BODY_BYTES on both transformers.",
        )
    both = min(facts.primary.unparseable, facts.shadow.unparseable)
    if both > (1 - facts.min_coverage) * max(1, facts.pairs):
        yield Finding(
            "unparseable",
            True,
            f"{facts.primary.unparseable:,} answers of the primary are neither JSON nor v2 tensors, "
            "so they can only be compared byte for byte.",
            "Compare JSON answers, or let the model answer in JSON.",
        )


def _losses(facts: Facts) -> Iterator[Finding]:
    for side in (facts.primary, facts.shadow):
        if side.lost_records:
            beyond = side.lost_records > (1 - facts.min_coverage) * (side.calls + side.lost_records)
            yield Finding(
                "lost-records",
                beyond,
                f"{side.lost_records:,} records of the {side.role} are lost (inference_gaps).",
                "Was the spool full or its disk failing? Raise SPOOL_MAX_BYTES and look at "
                'prediction_db_records_total{outcome="dropped"}.',
            )
        if side.duplicates:
            beyond = side.duplicates > (1 - facts.min_coverage) * (side.calls + side.duplicates)
            yield Finding(
                "duplicates",
                beyond,
                f"{side.duplicates:,} calls of the {side.role} repeat a pair id; only the first "
                "of each counts.",
                "Is a retry policy on, or does a client repeat its ids? Set retries to 0 on the "
                "entry route.",
            )
        if side.unanswered:
            yield Finding(
                "unanswered",
                False,
                f"{side.unanswered:,} calls of the {side.role} have no response record; "
                "they count as failed.",
                "Did the process die in the middle of them?",
            )
    if facts.in_flight:
        yield Finding(
            "in-flight",
            False,
            f"{facts.in_flight:,} calls of the last {facts.settle_seconds:g} s are incomplete; "
            "they are left out.",
            "Look again once they have arrived.",
        )


def _clocks(facts: Facts) -> Iterator[Finding]:
    skew = facts.clock_skew_ms
    if skew is not None and abs(skew) > SKEW_MS:
        yield Finding(
            "clock-skew",
            False,
            f"The shadow's calls are stamped {skew / 1000:,.1f} s after the primary's.",
            "Expected after a replay; otherwise set both nodes' clocks.",
        )


def _missing(facts: Facts) -> Iterator[Finding]:
    unlike = [contrast for contrast in facts.missing if contrast.unlike]
    for contrast in unlike:
        remedies = {
            "request size": "Bodies over the proxy's buffer are never mirrored; look at the "
            "content-length guard and the gateway's buffer limit.",
            "hour": "Was the shadow or its connection limit down for a while?",
            "status": "Are some calls answered before they reach the mirror?",
        }
        yield Finding(
            "missing-unlike",
            False,
            f"Calls without a shadow are unlike the others in {contrast.respect}: "
            f"{contrast.missing} against {contrast.paired}.",
            remedies[contrast.respect],
        )
    if facts.coverage is not None and facts.coverage < facts.min_coverage and facts.pairs:
        unpaired = facts.primary.unpaired
        yield Finding(
            "coverage",
            False,
            f"{unpaired:,} of {facts.primary.calls:,} primary calls have no shadow call "
            f"(coverage {percent(facts.coverage)} of the {percent(facts.mirrored_share)} expected).",
            "Does the mirror take a share of the traffic (mirrorPercentage)? Say so with "
            "--mirrored-share. Else look for a stopped shadow, calls past the entry path, large "
            "bodies, and connection limits in the DestinationRule.",
        )
