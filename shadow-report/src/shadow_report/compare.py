"""One comparison: a single pass over the pairs in bounded memory, then the judged report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from shadow_report.answers.paths import RequestField
from shadow_report.assemble import Ask, Observed
from shadow_report.counting import Counters
from shadow_report.counting.classify import Clock
from shadow_report.counting.noise import replayed_floor
from shadow_report.counting.timeline import microseconds
from shadow_report.counting.worst import Among, signatures
from shadow_report.evidence.database import (
    CallGroup,
    LostCalls,
    Scope,
    Tables,
    open_tables,
)
from shadow_report.evidence.services import Sides, find_sides, from_rollout, may_have_gaps
from shadow_report.evidence.watermark import is_mirrored, settled_watermark
from shadow_report.judging.verdict import Verdict, gravest
from shadow_report.report import (
    SCHEMA_VERSION,
    NewestCall,
    Noise,
    Refused,
    Report,
    SideBySide,
    Signature,
)
from shadow_report.rules import read_rules
from shadow_report.settings import Comparison
from shadow_report.wording import cut, one_line

# Called with pairs done and pairs expected, after each batch.
Progress = Callable[[int, int], None]


def compare(
    uri: str,
    settings: Comparison,
    progress: Progress = lambda done, of: None,
    ask: Ask | None = None,
) -> Report:
    """Compare what the tables at `uri` hold, and judge it.

    ask: gives another model's opinion of the sampled pairs that differ.

    Raises OneLineError when the tables cannot be read. Reads only, in one snapshot where the server
    has one, and else up to what is settled.
    """
    with open_tables(uri) as tables:
        observed = observe(tables, settings, progress)
    return observed.asked(ask).report()


def compare_candidates(
    uri: str,
    settings: Comparison,
    progress: Progress = lambda done, of: None,
    ask: Ask | None = None,
) -> SideBySide:
    """Compare each of the candidates with the primary in one snapshot, and judge it at its share of
    alpha. Asks and raises as `compare` does.
    """
    with open_tables(uri) as tables:
        observed = [observe(tables, each, progress) for each in settings.each_candidate()]
    reports = [each.asked(ask).report() for each in observed]
    return side_by_side(reports, settings.margins.alpha)


def side_by_side(reports: Sequence[Report], alpha: float) -> SideBySide:
    """These candidates' reports as one; `alpha` is what they shared."""
    return SideBySide(
        schema_version=SCHEMA_VERSION,
        verdict=gravest(Verdict(report.verdict) for report in reports).value,
        reasons=tuple(
            f"{report.shadow.service}: {report.verdict}. {reason}"
            for report in reports
            for reason in report.reasons[:1]
        ),
        pairs=sum(report.pairs for report in reports),
        alpha=alpha,
        candidates=tuple(reports),
    )


def observe(tables: Tables, settings: Comparison, progress: Progress) -> Observed:
    """All that a comparison reads and counts, in one pass."""
    now = tables.now()
    if not tables.has_snapshot():
        # What is settled no longer changes, so that all questions are about the same calls.
        settled = now - settings.settle
        settings = replace(settings, until=min(settings.until or settled, settled))
    if settings.since_rollout:
        settings = from_rollout(tables, settings)
    sides = find_sides(tables, settings)
    settings = with_rules_of_protocol(settings, sides.compared)
    duplicates = tables.duplicates(sides.scope)
    calls = sum(group.calls for group in sides.groups_of("primary"))
    counters = begin_counters(
        settings,
        sides,
        settled_watermark(tables, sides, settings, now),
    )
    if duplicates.joined:
        counters.take_in_further(tables.further_shadow_calls(sides.scope, duplicates))
    batches = tables.pairs(
        sides.scope,
        duplicates,
        with_requests=reads_requests(settings),
        followed=not is_mirrored(sides, settings),
    )
    counters.take_in(batches, lambda done: progress(done, calls))
    asked = counters.differing.pair_ids
    return Observed(
        settings=settings,
        sides=sides,
        counters=counters,
        duplicates=duplicates,
        lost={role: lost_records(tables, sides, role, settings) for role in ("primary", "shadow")},
        signatures=explained(tables, sides.scope, counters, settings),
        refused=refused(tables, sides.scope, counters),
        sampled=tuple(tables.whole_pairs(sides.scope, asked)) if asked else (),
        replayed=replayed_floor(tables.with_itself(sides.scope), settings.rules),
        newest=newest_calls(tables, sides),
        generated_at=now.astimezone(UTC),
    )


def newest_calls(tables: Tables, sides: Sides) -> dict[str, NewestCall]:
    """By role without a call in the window, the newest one in the tables."""
    absent = [role for role in ("primary", "shadow") if not sides.groups_of(role)]
    return {role: newest for role in absent if (newest := tables.newest_call(role)) is not None}


def reads_requests(settings: Comparison) -> bool:
    """Whether the counters ask for the requests' bodies and headers."""
    return bool(settings.slices) or isinstance(settings.cluster, RequestField)


def explained(
    tables: Tables, scope: Scope, counters: Counters, settings: Comparison
) -> tuple[Signature, ...]:
    """The ways in which pairs differ, with examples from the tables."""
    return signatures(
        counters.groups,
        counters.comparer.places.all,
        settings.rules,
        partial(tables.whole_pairs, scope),
        among=Among(
            faults=counters.trials.gates["faults"].trials,
            unit=counters.trials.unit,
            disagreement=counters.trials.gates["disagreement"].trials,
            by_margin=counters.margins.pairs,
        ),
    )


REFUSAL_CHARACTERS = 200


def refused(tables: Tables, scope: Scope, counters: Counters) -> Refused | None:
    """What both sides answer nearly all calls with, where that is one 4xx."""
    if (found := counters.ledger.refused_alike()) is None:
        return None
    status, pairs, pair_id = found
    for pair in tables.whole_pairs(scope, [pair_id]):
        body = (pair.primary_response or b"")[: 4 * REFUSAL_CHARACTERS].decode("utf-8", "replace")
        path = urlsplit(pair.predict_url or "").path
        return Refused(status, pairs, path, cut(one_line(body), REFUSAL_CHARACTERS))
    return None


def with_rules_of_protocol(settings: Comparison, groups: Sequence[CallGroup]) -> Comparison:
    """The same comparison, by the rules for the calls' protocol where no file of rules was named;
    those that were given come after them.
    """
    given = settings.rules
    if given.is_of_file or {group.protocol for group in groups} != {"openai"}:
        return settings
    # Each generated answer has an id of its own: without rules no two would ever agree.
    by_path = (*read_rules(Path("openai")).by_path, *given.by_path)
    return replace(settings, rules=replace(given, by_path=by_path), rules_by_protocol=True)


def noise_floor(uri: str, settings: Comparison) -> Noise | None:
    """How often the primary differs from itself on calls that were sent to it once more.

    None when none was. OneLineError when the tables cannot be read.
    """
    with open_tables(uri) as tables:
        scope = Scope(settings.primary or "", "", settings.since, settings.until)
        settings = with_rules_of_protocol(settings, tables.calls(scope))
        found = replayed_floor(tables.with_itself(scope), settings.rules)
    return None if found is None else found.report(None, settings.margins.alpha)


def begin_counters(settings: Comparison, sides: Sides, settled_before: datetime) -> Counters:
    """Empty tallies for the calls of these groups."""
    first, last, calls = extent(sides, settings, settled_before)
    clock = Clock(counted_from=microseconds(first), settled_before=microseconds(settled_before))
    return Counters.begin(
        settings,
        clock,
        first=first,
        last=last,
        calls=calls,
        is_mirrored=is_mirrored(sides, settings),
    )


def extent(
    sides: Sides, settings: Comparison, settled_before: datetime
) -> tuple[datetime, datetime, int]:
    """From when to when calls are counted, and how many the primary has."""
    groups = sides.groups_of("primary") or sides.groups_of("shadow")
    began = sides.began or min((g.first_call for g in groups), default=settled_before)
    first = began + settings.warm_up
    last = max((group.last_call for group in groups), default=settled_before)
    return first, max(first, last), sum(group.calls for group in sides.groups_of("primary"))


def lost_records(tables: Tables, sides: Sides, role: str, settings: Comparison) -> LostCalls:
    """The calls that this side's recorders numbered and that are not in the tables."""
    groups, everything = sides.groups_of(role), settings.since is None
    if not may_have_gaps(groups, from_one=everything):
        return LostCalls()
    # In a window the numbers before and after it are not missed.
    numbers: dict[UUID, tuple[int, int]] = {}
    for group in groups:
        first, last = numbers.get(group.recorder_id, (group.first_sequence, group.last_sequence))
        first = 0 if everything else min(first, group.first_sequence)
        numbers[group.recorder_id] = first, max(last, group.last_sequence)
    return tables.lost_calls(role, groups[0].inference_service, numbers)
