"""Findings about how the calls pair."""

from __future__ import annotations

from collections.abc import Iterator

from shadow_report.integrity.facts import Facts
from shadow_report.report import Finding
from shadow_report.wording import counted, percent

# Two clocks further apart than this cannot be told from replayed or late calls.
SKEW_MS = 1000.0


def pairing(facts: Facts) -> Iterator[Finding]:
    """How the pair ids came about, and whether they pair."""
    primary, shadow = facts.primary, facts.shadow
    if not primary.calls or not shadow.calls:
        return
    sources = primary.pair_sources.keys() | shadow.pair_sources.keys()
    foreign = sum(n for s, n in primary.pair_sources.items() if s != "x-shadow-pair-id")
    if "x-shadow-pair-id" not in sources:
        yield Finding(
            "pair-ids",
            True,
            "No call carries x-shadow-pair-id; pair ids come from "
            f"{' and '.join(sorted(sources))}, which a second gateway hop may replace "
            "and callers may repeat.",
            "Is the entry VirtualService used? It sets x-shadow-pair-id; send the traffic through "
            "its path, not straight to the InferenceService.",
        )
    elif foreign:
        yield Finding(
            "direct-calls",
            False,
            f"{foreign:,} of {counted(primary.calls, 'primary call')} came without "
            "x-shadow-pair-id.",
            "They did not pass the entry VirtualService, which mirrors; route them through it.",
        )
    if not facts.pairs:
        yield Finding(
            "no-pairs",
            True,
            f"{primary.calls:,} primary and {counted(shadow.calls, 'shadow call')}, "
            "and no pair among them.",
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
            f"{counted(facts.different_requests, 'pair')} left out: another request body on each "
            "side.",
            "Does a client repeat its request ids, or something rewrite the body of one copy?",
        )


def missing(facts: Facts) -> Iterator[Finding]:
    """Primary calls without a shadow call."""
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
            f"{unpaired:,} of {counted(facts.primary.calls, 'primary call')} without a shadow call "
            f"(coverage {percent(facts.coverage)}).",
            f"{percent(facts.mirrored_share)} of the calls should be mirrored: if it is another "
            "share (mirror-percentage), say so with --mirrored-share. Else look for a stopped "
            "shadow, calls past the entry path, large bodies, and connection limits in the "
            "DestinationRule.",
        )


def clocks(facts: Facts) -> Iterator[Finding]:
    """Stamps of the two sides that lie far apart."""
    skew = facts.clock_skew_ms
    if skew is not None and abs(skew) > SKEW_MS:
        yield Finding(
            "clock-skew",
            False,
            f"The shadow's calls are stamped {skew / 1000:,.1f} s after the primary's.",
            "Expected after a replay; otherwise set both nodes' clocks.",
        )
