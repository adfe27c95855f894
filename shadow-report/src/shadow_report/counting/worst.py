"""Which pairs to show: grouped by what differs, the largest and most typical of each explained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers import explain
from shadow_report.answers.bodies import UNPARSEABLE, parse, readable
from shadow_report.answers.comparer import OTHER_PLACES, OUTCOMES, Place
from shadow_report.answers.outcome import Answer, Outcome
from shadow_report.answers.paths import Rules
from shadow_report.counting.classify import Classified
from shadow_report.evidence.batch import WholePair
from shadow_report.report import Difference, Example, Signature
from shadow_report.wording import around, cut

MAX_GROUPS = 100
LARGEST = 3
TYPICAL = 2
SAMPLE = 32

# What differs in a pair: the codes of its marks, and for a failed call the shadow's status.
Key = tuple[int, ...]
# Begins the key of pairs that differ at too many places, or in too many ways, to name them all;
# what follows are outcomes.
VARIOUS = -1
MOST_NAMED = 5
# Added to the status of an answer whose stream broke off.
BROKEN = 1000


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A pair that may be shown. `priority` hashes its id: the least ones are a fair sample."""

    size: float
    priority: int
    pair_id: str


@dataclass(slots=True)
class Group:
    """Pairs that differ in the same way."""

    is_fault: bool
    has_own_margin: bool = False
    """Differs only where a rule has a margin of its own."""
    pairs: int = 0
    largest: list[Candidate] = field(default_factory=list)
    sample: list[Candidate] = field(default_factory=list)

    @property
    def typical(self) -> list[Candidate]:
        """Those of a fair sample whose size is nearest to its median."""
        sizes = [candidate.size for candidate in self.sample]
        middle = float(np.median(sizes))
        return sorted(self.sample, key=lambda c: (abs(c.size - middle), c.priority))[:TYPICAL]


class Groups:
    """Counts each way of differing and keeps a few pairs of each, in bounded memory."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Group] = {}
        self.differing: Counter[Key] = Counter()
        """Pairs by each difference that they have, alone or with others: a key of one."""

    def add(self, classified: Classified) -> None:
        """Count the faults and disagreements of a batch."""
        counted = classified.faults | classified.disagreements | classified.allowed
        if not counted.any():
            return
        priorities = classified.batch.integers("pair_hash")
        sizes = _sizes(classified, counted)
        shown: dict[Key, list[int]] = defaultdict(list)
        for key, rows in _rows_by_key(classified, counted).items():
            of_statuses = _is_of_statuses(key)
            for difference in [key] if of_statuses else [(code,) for code in key]:
                self.differing[difference] += len(rows)
            shown[_various(key) if len(key) > MOST_NAMED and not of_statuses else key] += rows
        for key, rows in shown.items():
            self._add(key, np.array(rows), sizes, priorities, classified)

    def _add(
        self,
        key: Key,
        rows: NDArray[np.int64],
        sizes: NDArray[np.float64],
        priorities: NDArray[np.int64],
        classified: Classified,
    ) -> None:
        if key not in self.by_key and len(self.by_key) >= MAX_GROUPS:
            key = _various(key)
        is_fault = Outcome(classified.outcomes[rows[0]]).is_fault
        group = self.by_key.setdefault(key, Group(is_fault, bool(classified.allowed[rows[0]])))
        group.pairs += rows.size

        def candidates(order: NDArray[np.int64], count: int) -> list[Candidate]:
            return [
                Candidate(float(sizes[row]), int(priorities[row]), classified.batch.pair_id(row))
                for row in rows[order[:count]].tolist()
            ]

        by_size = np.lexsort((priorities[rows], -sizes[rows]))
        group.largest += candidates(by_size, LARGEST)
        group.largest = sorted(group.largest, key=lambda c: (-c.size, c.priority))[:LARGEST]
        group.sample += candidates(np.argsort(priorities[rows]), SAMPLE)
        group.sample = sorted(group.sample, key=lambda c: c.priority)[:SAMPLE]


def _sizes(classified: Classified, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """By row, the size of its gravest difference that has one; of several the largest."""
    marks = classified.marks
    sized = np.flatnonzero((marks.sizes > 0) & counted[marks.rows])
    sized = sized[np.lexsort((marks.sizes[sized], marks.outcomes[sized]))]
    sizes = np.zeros(len(classified.batch))
    sizes[marks.rows[sized]] = marks.sizes[sized]  # of several for one row the last holds
    return sizes


def _rows_by_key(classified: Classified, counted: NDArray[np.bool_]) -> dict[Key, list[int]]:
    marks = classified.marks
    telling = counted[marks.rows] & (marks.outcomes >= Outcome.APPEARED)
    rows, codes = marks.rows[telling], marks.codes[telling]
    statuses = classified.batch.integers("shadow_status")
    primary_statuses = classified.batch.integers("primary_status")
    primary, shadow = (side == Answer.BROKEN for side in classified.answers)
    statuses, primary_statuses = statuses + BROKEN * shadow, primary_statuses + BROKEN * primary
    by_row: dict[int, set[int]] = defaultdict(set)
    for row, code in zip(rows.tolist(), codes.tolist(), strict=True):
        by_row[row].add(code)
    by_key: dict[Key, list[int]] = defaultdict(list)
    for row, found in by_row.items():
        key = tuple(sorted(found))
        # Statuses stand behind the outcome as negative numbers, which no mark is.
        if key == (int(Outcome.FAILED),):
            key = (int(Outcome.FAILED), -int(statuses[row]))
        elif key == (int(Outcome.STATUS),):
            key = (int(Outcome.STATUS), -int(primary_statuses[row]), -int(statuses[row]))
        by_key[key].append(row)
    return by_key


def _various(key: Key) -> Key:
    return (VARIOUS, *sorted({code % OUTCOMES for code in key}))


def _is_of_statuses(key: Key) -> bool:
    return len(key) > 1 and key[1] <= 0


def _gravest_first(key: Key) -> list[int]:
    """The marks of a key that is neither of statuses nor of various places."""
    return sorted(key, key=lambda code: (-(code % OUTCOMES), code))


def _gravity(key: Key) -> int:
    """The gravest outcome of a key, whatever it holds besides."""
    if key[0] == VARIOUS:
        return max(key[1:])
    return max(code % OUTCOMES for code in key if code > 0)


def in_words(key: Key, places: Sequence[Place]) -> str:
    """The same as a clause: `predictions[*] is another number`, `the shadow failed with 500`."""
    if key[0] == VARIOUS:
        found = " and ".join(Outcome(outcome).title for outcome in key[1:])
        return f"answers differ in many places ({found})"
    if key[0] == Outcome.FAILED and _is_of_statuses(key):
        if -key[1] > BROKEN:
            return f"the shadow's stream broke off after {-key[1] - BROKEN}"
        return f"the shadow failed with {-key[1]}" if key[1] else "the shadow did not answer"
    if key[0] == Outcome.STATUS and _is_of_statuses(key):
        return f"the {title(key, places)}"
    return " and ".join(_clause(places[code // OUTCOMES], code) for code in _gravest_first(key))


def _clause(place: Place, code: int) -> str:
    outcome = Outcome(code % OUTCOMES)
    if not (place.classes and outcome is Outcome.LABEL):
        return f"{place.path or 'the answer'} {outcome.phrase}"
    path = place.path.removesuffix(f" ({place.classes})")
    return f"{path} is of another class ({place.classes})"


def title(key: Key, places: Sequence[Place]) -> str:
    """How a group is called: `predictions[*]: number`, `failed with 500`."""
    if key[0] == VARIOUS:
        return f"various places: {' + '.join(Outcome(outcome).title for outcome in key[1:])}"
    if key[0] == Outcome.FAILED and _is_of_statuses(key):
        if -key[1] > BROKEN:
            return f"{-key[1] - BROKEN}, and the stream broke off"
        return f"failed with {-key[1]}" if key[1] else "not answered"
    if key[0] == Outcome.STATUS and _is_of_statuses(key):
        return f"status {_named(-key[1] or None)} became {_named(-key[2] or None)}"
    parts = []
    for code in _gravest_first(key):
        path, outcome = places[code // OUTCOMES].path, Outcome(code % OUTCOMES)
        parts.append(f"{path}: {outcome.title}" if path else f"answer: {outcome.title}")
    return " + ".join(parts)


SHOWN = 20
# A body longer than this is cut in the report; the tables keep it whole.
BODY_CHARACTERS = 20_000
ERROR_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Among:
    """The trials of the gates that judge pairs, `by_margin` by rule; `unit` is that of faults."""

    faults: int
    unit: Literal["pair", "call"]
    disagreement: int
    by_margin: Mapping[int, int]

    def of(self, key: Key, group: Group, places: Sequence[Place]) -> int:
        """Those of the gate that judges this group."""
        if group.is_fault:
            return self.faults
        if group.has_own_margin and key[0] != VARIOUS:
            margins = {places[code // OUTCOMES].rules.margin for code in key}
            rule = margins.pop()
            # Where several margins judge it, it is one of all pairs that can differ.
            if rule is not None and not margins:
                return self.by_margin[rule]
        return self.disagreement


def differences(groups: Groups, places: Sequence[Place]) -> tuple[Difference, ...]:
    """How many pairs differ in each way that the whole verdict judges, the most frequent first.

    A pair counts in each of its ways, so that a place has the figure that it has among the paths.
    """

    def judged(key: Key) -> bool:
        code = key[0]
        has_own = not _is_of_statuses(key) and places[code // OUTCOMES].rules.margin is not None
        return Outcome(code % OUTCOMES).is_fault or not has_own

    ranked = sorted(groups.differing.items(), key=lambda item: (-item[1], -_gravity(item[0]), item))
    return tuple(
        Difference(
            in_words(key, places),
            Outcome(key[0] % OUTCOMES).is_fault,
            _gravity(key),
            pairs,
            one_sided=_one_sided(key, places),
        )
        for key, pairs in ranked
        if judged(key)
    )


def _one_sided(key: Key, places: Sequence[Place]) -> str:
    """The path of a field that one side lacks; empty for all other differences."""
    path = "" if _is_of_statuses(key) else places[key[0] // OUTCOMES].path
    lacks = _gravity(key) in (Outcome.MISSING, Outcome.EXTRA)
    return path if lacks and path != OTHER_PLACES else ""


def signatures(
    groups: Groups,
    places: Sequence[Place],
    rules: Rules,
    fetch: Callable[[Sequence[str]], list[WholePair]],
    *,
    among: Among,
) -> tuple[Signature, ...]:
    """The ways of differing, faults first, then by frequency, each with its examples.

    places: by their keys. fetch: gives whole pairs by their ids. among: what they are shares of.
    """
    ranked = sorted(
        groups.by_key.items(),
        key=lambda item: (not item[1].is_fault, item[1].has_own_margin, -item[1].pairs, item[0]),
    )[:SHOWN]
    chosen = [c for _, group in ranked for c in (*group.largest, *group.typical)]
    asked = sorted({candidate.pair_id for candidate in chosen})
    whole = {pair.pair_id: pair for pair in fetch(asked)} if asked else {}

    def examples(candidates: list[Candidate]) -> tuple[Example, ...]:
        return tuple(
            _example(whole[c.pair_id], c.size, rules) for c in candidates if c.pair_id in whole
        )

    def signature(key: Key, group: Group) -> Signature:
        of = among.of(key, group, places)
        return Signature(
            signature=title(key, places),
            in_words=in_words(key, places),
            is_fault=group.is_fault,
            pairs=group.pairs,
            share=group.pairs / max(1, of),
            of=of,
            unit=among.unit if group.is_fault else "pair",
            largest=examples(group.largest),
            typical=examples(group.typical),
            has_own_margin=group.has_own_margin,
            gravity=_gravity(key),
            any_value=Outcome(_gravity(key)).is_of_values,
        )

    return tuple(signature(key, group) for key, group in ranked)


def _example(pair: WholePair, size: float, rules: Rules) -> Example:
    request, request_cut = _text(pair.request)
    primary, primary_cut = _text(pair.primary_response)
    shadow, shadow_cut = _text(pair.shadow_response)
    what, found = _what(pair, rules)
    place, *values = "", "", ""
    if found is not None:
        place, *values = explain.values_around(found)
    elif pair.primary_status == pair.shadow_status:
        values = [*around(primary, shadow, explain.AROUND_CHARACTERS)]
    return Example(
        pair_id=pair.pair_id,
        request_time=pair.request_time,
        what=what,
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
        place=place,
        primary_value=values[0],
        shadow_value=values[1],
        primary_error=cut(pair.primary_error or "", ERROR_CHARACTERS),
        shadow_error=cut(pair.shadow_error or "", ERROR_CHARACTERS),
    )


def _what(pair: WholePair, rules: Rules) -> tuple[str, explain.Difference | None]:
    """What differs in words, and the value that does, if it is one."""
    primary, shadow = pair.primary_status, pair.shadow_status
    if pair.primary_broken != pair.shadow_broken:
        return f"the {'primary' if pair.primary_broken else 'shadow'}'s stream broke off", None
    if primary != shadow:
        return f"status {_named(primary)} became {_named(shadow)}", None
    answer, other = parse(pair.primary_response), parse(pair.shadow_response)
    if (found := explain.first_difference(answer, other, rules)) is not None:
        return explain.in_words(found), found
    if other is UNPARSEABLE:
        return "the answer is not JSON", None
    if answer is UNPARSEABLE:
        return "the primary's is not JSON", None
    return "a further call of this pair is worse", None


def _named(status: int | None) -> str:
    if status is None:
        return "no answer"
    return str(status) if status < BROKEN else f"{status - BROKEN} (the stream broke off)"


def _text(body: bytes | None) -> tuple[str, bool]:
    """A body as text that any output can show, and whether it was cut."""
    if body is None:
        return "", False
    body = readable(body)
    # Four bytes are the most that one character takes.
    text = body[: 4 * BODY_CHARACTERS].decode("utf-8", "backslashreplace")
    is_cut = len(text) > BODY_CHARACTERS or len(body) > 4 * BODY_CHARACTERS
    return text[:BODY_CHARACTERS], is_cut
