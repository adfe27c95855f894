"""The pairs that the report shows, fetched whole and explained."""

from __future__ import annotations

from shadow_report.answers.bodies import parse
from shadow_report.answers.explain import first_difference
from shadow_report.answers.paths import Rules
from shadow_report.evidence.database import Scope, Tables, WholePair
from shadow_report.report import Example, Signature
from shadow_report.tallies.all import Tallies
from shadow_report.tallies.worst import Candidate, title

SHOWN = 20
# A body longer than this is cut in the report; the tables keep it whole.
BODY_CHARACTERS = 20_000


def signatures(
    tables: Tables, scope: Scope, tallies: Tallies, rules: Rules
) -> tuple[Signature, ...]:
    """The ways of differing, faults first, then by frequency, each with its examples."""
    paths = [place.path for place in tallies.comparer.places.all]
    ranked = sorted(
        tallies.groups.by_key.items(),
        key=lambda item: (not item[1].is_fault, -item[1].pairs, item[0]),
    )[:SHOWN]
    chosen = [c for _, group in ranked for c in (*group.largest, *group.typical)]
    asked = sorted({candidate.pair_id for candidate in chosen})
    whole = {pair.pair_id: pair for pair in tables.whole_pairs(scope, asked)} if asked else {}

    def examples(candidates: list[Candidate]) -> tuple[Example, ...]:
        return tuple(
            _example(whole[c.pair_id], c.size, rules) for c in candidates if c.pair_id in whole
        )

    return tuple(
        Signature(
            signature=title(key, paths),
            is_fault=group.is_fault,
            pairs=group.pairs,
            share=group.pairs / max(1, tallies.ledger.pairs),
            largest=examples(group.largest),
            typical=examples(group.typical),
        )
        for key, group in ranked
    )


def _example(pair: WholePair, size: float, rules: Rules) -> Example:
    request, request_cut = _text(pair.request)
    primary, primary_cut = _text(pair.primary_response)
    shadow, shadow_cut = _text(pair.shadow_response)
    return Example(
        pair_id=pair.pair_id,
        request_time=pair.request_time,
        what=_what(pair, rules),
        size=size or None,
        primary_status=pair.primary_status,
        shadow_status=pair.shadow_status,
        primary_duration_ms=pair.primary_duration_ms,
        shadow_duration_ms=pair.shadow_duration_ms,
        request=request,
        primary_response=primary,
        shadow_response=shadow,
        request_cut=request_cut,
        primary_cut=primary_cut,
        shadow_cut=shadow_cut,
    )


def _what(pair: WholePair, rules: Rules) -> str:
    primary, shadow = pair.primary_status, pair.shadow_status
    if primary != shadow:
        return f"status {_named(primary)} became {_named(shadow)}"
    return first_difference(parse(pair.primary_response), parse(pair.shadow_response), rules)


def _named(status: int | None) -> str:
    return "no answer" if status is None else str(status)


def _text(body: bytes | None) -> tuple[str, bool]:
    """A body as text that any output can show, and whether it was cut."""
    if body is None:
        return "", False
    # Four bytes are the most that one character takes.
    text = body[: 4 * BODY_CHARACTERS].decode("utf-8", "backslashreplace")
    is_cut = len(text) > BODY_CHARACTERS or len(body) > 4 * BODY_CHARACTERS
    return text[:BODY_CHARACTERS], is_cut
