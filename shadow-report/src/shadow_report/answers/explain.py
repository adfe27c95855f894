"""What differs between two answers, value by value: the reference for the fast comparer."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Any

import numpy as np

from shadow_report.answers.bodies import UNPARSEABLE, Tensor, parse_text, shape_outcome
from shadow_report.answers.comparer import MAX_DEPTH
from shadow_report.answers.kinds import (
    Labels,
    Matched,
    Patterns,
    Tolerance,
    TopClass,
    Unordered,
    are_equal,
    are_scores,
    are_vectors,
)
from shadow_report.answers.numbers import FIRST_INEXACT, Number, nearest_float
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import NONE_CHOSEN, Progress, Rules, RulesHere, join
from shadow_report.answers.similarity import Cosine, Ranking
from shadow_report.wording import around, cut, part_at

VALUE_CHARACTERS = 60
AROUND_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Within:
    """The objects of which one has a key and the other has not, and where they stand."""

    path: str
    key: str
    objects: tuple[dict[str, Any], dict[str, Any]]

    def texts(self, limit: int) -> tuple[str, str]:
        """Both as text from shortly before the key on, or before where it would stand."""
        whole = next(found for found in self.objects if self.key in found)
        before = set(takewhile(lambda key: key != self.key, whole))

        def text(found: dict[str, Any]) -> str:
            ends = (position for position, key in enumerate(found, 1) if key in before)
            head = dict(islice(found.items(), max(ends, default=0)))
            return part_at(_as_text(found), len(_as_text(head)) - 1, limit)

        first, second = map(text, self.objects)
        return first, second


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs: `template` collapses list positions, `path` keeps them.

    what: in words, where "this became that" would not tell.
    has_own_margin: the margin of a rule holds there, whose gate judges it, unless it is a fault.
    within: where one side lacks it, what both have instead.
    """

    template: str
    path: str
    outcome: Outcome
    primary: Any
    shadow: Any
    what: str = ""
    has_own_margin: bool = False
    within: Within | None = None

    @property
    def gravity(self) -> tuple[bool, Outcome]:
        """What a rule's own margin allows comes after what the whole verdict judges."""
        is_judged = self.outcome.is_fault or not self.has_own_margin
        return self.outcome >= Outcome.APPEARED and is_judged, self.outcome


@dataclass(frozen=True, slots=True)
class _At:
    """A place in both answers, and what the rules say there."""

    rules: RulesHere
    answers: tuple[Any, Any]
    template: str = ""
    path: str = ""
    depth: int = 0

    @property
    def of_list(self) -> _At:
        """What the rule for lists finds here."""
        return replace(self, rules=self.rules.of_list)

    def key(self, key: str, chosen: frozenset[Progress] = NONE_CHOSEN) -> _At:
        rules = self.rules.below(key, chosen)
        template, path = join(self.template, key), join(self.path, key)
        return _At(rules, self.answers, template, path, self.depth + 1)

    def item(self, position: int, chosen: frozenset[Progress]) -> _At:
        rules, template = self.rules.below(None, chosen), self.list_template(chosen)
        return _At(rules, self.answers, template, join(self.path, position), self.depth + 1)

    def list_template(self, chosen: frozenset[Progress]) -> str:
        return f"{self.template}{self.rules.label(chosen)}"

    def choices(self, p: Any, s: Any) -> dict[str | int, frozenset[Progress]]:
        return self.rules.choices((p, s), self.answers) if self.rules.chooses else {}

    def classes(self, patterns: Patterns) -> _At:
        name = patterns.title
        template, path = f"{self.template} ({name})", f"{self.path} ({name})"
        return replace(self, rules=self.rules.of_patterns(), template=template, path=path)

    def differs(
        self, outcome: Outcome, p: Any, s: Any, what: str = "", within: Within | None = None
    ) -> Iterator[Difference]:
        if not self.rules.is_ignored:
            outcome, own = self.rules.outcome(outcome), self.rules.margin is not None
            yield Difference(self.template, self.path, outcome, p, s, what, own, within)

    def judged(self, name: str, score: float, least: float, p: Any, s: Any) -> Iterator[Difference]:
        """A measure of how alike two values are, against the least that is asked for; behind the
        values themselves where these are short texts.
        """
        outcome = Outcome.SIMILARITY if score < least else Outcome.WITHIN_TOLERANCE
        if p != s:
            what = f"{name} {score:.4g}, asked for {least:g}"
            if type(p) is str and max(len(p), len(s)) <= VALUE_CHARACTERS:
                what = f"{_short(p)} became {_short(s)}, {what}"
            yield from self.differs(outcome, p, s, what)


def first_difference(primary: object, shadow: object, rules: Rules) -> Difference | None:
    """The gravest difference that no rule's own margin allows, or else that it does; of equally
    grave ones the first. None without any, or where an answer is not JSON.
    """
    if primary is UNPARSEABLE or shadow is UNPARSEABLE:
        return None
    return max(differences(primary, shadow, rules), key=lambda d: d.gravity, default=None)


def in_words(found: Difference) -> str:
    """The same as text: `predictions[0]: 6.6 became 9.9`."""
    return f"{found.path or 'answer'}{_in_words(found)}"


def values_around(found: Difference) -> tuple[str, str, str]:
    """Both values as text from shortly before their first difference on, behind their path; of a
    key that one side lacks, the objects that it would stand in.
    """
    if found.within is not None:
        return found.within.path, *found.within.texts(AROUND_CHARACTERS)
    values = _as_text(found.primary), _as_text(found.shadow)
    return found.path, *around(*values, AROUND_CHARACTERS)


def _in_words(found: Difference) -> str:
    if found.what:
        return f": {found.what}"
    if found.outcome is Outcome.MISSING:
        return f" is missing; it was {_short(found.primary)}"
    if found.outcome is Outcome.EXTRA:
        return f" is new: {_short(found.shadow)}"
    if found.outcome is Outcome.LENGTH and isinstance(found.primary, list):
        return f": {len(found.primary)} values became {len(found.shadow)}"
    return f": {_short(found.primary)} became {_short(found.shadow)}"


def differences(primary: object, shadow: object, rules: Rules) -> Iterator[Difference]:
    """Every difference of two values as `bodies.parse` returns them, also within tolerance."""
    yield from _walk(_At(rules.at_root(), (primary, shadow)), primary, shadow)


def _walk(at: _At, p: Any, s: Any) -> Iterator[Difference]:
    if at.rules.is_ignored:
        return
    if _is_number(p) and _is_number(s):
        outcome = compare_numbers(p, s, at.rules.tolerance)
        if outcome is Outcome.NUMBER and isinstance(at.rules.numbers, Labels):
            outcome = Outcome.LABEL
        if outcome is not Outcome.EQUAL:
            yield from at.differs(outcome, p, s)
    elif type(p) is not type(s):
        if not (_is_hollow(p) and _is_hollow(s)):
            yield from at.differs(_other_type(p, s), p, s)
    else:
        yield from _same_type(at, p, s)


def _same_type(at: _At, p: Any, s: Any) -> Iterator[Difference]:
    kind = type(p)
    if kind is Tensor:
        yield from _tensors(at, p, s)
    elif kind in (dict, list) and at.depth >= MAX_DEPTH:
        yield from _whole(at, p, s)
    elif kind is dict:
        yield from _objects(at, p, s)
    elif kind is list:
        yield from _lists(at, p, s)
    elif kind is str and at.rules.reads_text:
        yield from _texts(at, p, s)
    elif p != s:
        yield from at.differs(Outcome.LABEL, p, s)


def _whole(at: _At, p: Any, s: Any) -> Iterator[Difference]:
    """Too deep to walk: equal or not."""
    if type(p) is list and at.rules.below(None).is_ignored:
        if len(p) != len(s):
            yield from at.differs(Outcome.LENGTH, p, s)
        return
    if not are_equal(p, s):
        is_longer = type(p) is list and len(p) != len(s)
        yield from at.differs(Outcome.LENGTH if is_longer else Outcome.TEXT, p, s)


def _texts(at: _At, p: str, s: str) -> Iterator[Difference]:
    rules = at.rules
    if isinstance(rules.lists, Cosine):
        vector, other_vector = rules.lists.vector(p), rules.lists.vector(s)
        if vector is not None and other_vector is not None:
            yield from _lists(at, vector, other_vector)
            return
    if rules.is_json:
        content, other = parse_text(p), parse_text(s)
        if content is not UNPARSEABLE and other is not UNPARSEABLE:
            yield from _walk(at, content, other)
            return
        if content is not other:
            broken = other is UNPARSEABLE
            yield from at.differs(Outcome.UNPARSEABLE if broken else Outcome.APPEARED, p, s)
            return
    yield from _by_text_rules(at, p, s)


def _by_text_rules(at: _At, p: str, s: str) -> Iterator[Difference]:
    rules = at.rules
    if rules.patterns is not None:
        label, other_label = rules.patterns.label(p), rules.patterns.label(s)
        if label != other_label:
            what = f"{label} became {other_label}"
            yield from at.classes(rules.patterns).differs(Outcome.LABEL, p, s, what)
    if rules.text is not None:
        similarity = 1.0 if p == s else rules.text.similarity(p, s)
        yield from at.judged("similarity", similarity, rules.text.least, p, s)
    elif rules.patterns is None and p != s:
        yield from at.differs(Outcome.LABEL, p, s)


def _other_type(p: object, s: object) -> Outcome:
    if s is None and _is_number(p):
        return Outcome.NON_FINITE
    return Outcome.APPEARED if p is None and _is_number(s) else Outcome.TYPE


def _objects(at: _At, p: dict[str, Any], s: dict[str, Any]) -> Iterator[Difference]:
    if isinstance(rule := at.rules.lists, TopClass):
        scores, others = (
            {name: value for name, value in side.items() if not at.key(name).rules.is_ignored}
            for side in (p, s)
        )
        if at.rules.are_classes(scores, others):
            yield from _top_classes(at, rule, scores, others)
            return
    yield from _fields(at, p, s)


def _fields(at: _At, p: dict[str, Any], s: dict[str, Any]) -> Iterator[Difference]:
    choices = at.choices(p, s)
    for key in {**p, **s}:
        below = at.key(key, choices.get(key, NONE_CHOSEN))
        if key in p and key in s:
            yield from _walk(below, p[key], s[key])
        else:
            outcome = Outcome.MISSING if key in p else Outcome.EXTRA
            within = Within(at.path, key, (p, s))
            yield from below.differs(outcome, p.get(key), s.get(key), within=within)


def _tensors(at: _At, p: Tensor, s: Tensor) -> Iterator[Difference]:
    if p.datatype != s.datatype:
        yield from at.key("datatype").differs(Outcome.TYPE, p.datatype, s.datatype)
    if (outcome := shape_outcome(p.shape, s.shape)) is not Outcome.EQUAL:
        yield from at.key("shape").differs(outcome, p.shape, s.shape)
    data = at.key("data")
    if data.rules.lists is not None:
        yield from _walk(data, p.vectors(), s.vectors())
    else:
        yield from _walk(data, p.data, s.data)
    yield from _fields(at, p.rest, s.rest)


def _lists(at: _At, p: list[Any], s: list[Any]) -> Iterator[Difference]:
    rule = at.rules.lists
    if isinstance(rule, Unordered | Matched) and p and s:
        p, s, only_p, only_s = rule.align(p, s)
        if only_p or only_s:
            what = f"{len(only_p)} of the primary's items and {len(only_s)} of the shadow's alone"
            yield from at.of_list.differs(Outcome.ITEMS, only_p, only_s, what)
    elif isinstance(rule, Ranking) and p and s and (ranks := rule.ranks(p, s)) is not None:
        if ranks.overlap >= rule.overlap and ranks.correlation < rule.correlation:
            what = f"rank correlation {ranks.correlation:.4g}, asked for {rule.correlation:g}"
            yield from at.of_list.differs(Outcome.ORDER, p, s, what)
        elif min(ranks) < 1:
            yield from at.of_list.judged("overlap", ranks.overlap, rule.overlap, p, s)
        return
    elif isinstance(rule, TopClass) and are_scores(p, s):
        yield from _top_classes(at, rule, p, s)
        return
    elif isinstance(rule, Cosine) and are_vectors(p, s):
        cosine = 1.0 if p == s else rule.similarity(p, s)
        yield from at.of_list.judged("cosine", cosine, rule.least, p, s)
        return
    yield from _items_by_position(at, p, s)


def _top_classes(
    at: _At, rule: TopClass, p: list[Any] | dict[str, Any], s: list[Any] | dict[str, Any]
) -> Iterator[Difference]:
    if (top := rule.label(p)) != (other := rule.label(s)):
        what = f"top class {_short(top)} became {_short(other)}"
        yield from at.of_list.differs(Outcome.LABEL, top, other, what)


def _items_by_position(at: _At, p: list[Any], s: list[Any]) -> Iterator[Difference]:
    if len(p) != len(s):
        yield from at.differs(Outcome.LENGTH, p, s)
        return
    choices = at.choices(p, s)
    positions: dict[frozenset[Progress], list[int]] = defaultdict(list)
    for i in range(len(p)):
        positions[choices.get(i, NONE_CHOSEN)].append(i)
    for chosen, here in positions.items():
        yield from _items(at, chosen, {i: (p[i], s[i]) for i in here})


def _items(
    at: _At, chosen: frozenset[Progress], items: dict[int, tuple[Any, Any]]
) -> Iterator[Difference]:
    """Items of two lists by their positions, all chosen by the same rules."""
    found = [
        difference for i, (a, b) in items.items() for difference in _walk(at.item(i, chosen), a, b)
    ]
    worst = max((difference.outcome for difference in found), default=Outcome.EQUAL)
    p, s = [a for a, _ in items.values()], [b for _, b in items.values()]
    rules, template = at.rules.below(None, chosen), at.list_template(chosen)
    if worst in {Outcome.NUMBER, Outcome.LABEL} and _is_reordered(p, s, rules.reads_text):
        own = rules.margin is not None
        yield Difference(template, at.path, Outcome.ORDER, p, s, has_own_margin=own)
    else:
        yield from found


def _is_reordered(p: list[Any], s: list[Any], reads_text: bool) -> bool:
    """Whether both have the same numbers or names; texts that a rule reads are not names."""
    plain = {*map(type, p), *map(type, s)}
    if plain <= {int, float}:
        return all(map(math.isfinite, map(nearest_float, p))) and sorted(p) == sorted(s)
    return (plain == {bool} or (plain == {str} and not reads_text)) and Counter(p) == Counter(s)


def compare_numbers(p: Number, s: Number, tolerance: Tolerance) -> Outcome:
    """The outcome of two numbers: equal by value, within tolerance, or not; NaN is not finite."""
    a, b = nearest_float(p), nearest_float(s)
    if math.isfinite(a) and math.isfinite(b):
        if type(p) is int and type(s) is int and min(abs(p), abs(s)) >= FIRST_INEXACT:
            return Outcome.EQUAL if p == s else Outcome.NUMBER
        if a == b:
            return Outcome.EQUAL
        with np.errstate(over="ignore"):
            difference = abs(tolerance.difference(np.array([a]), np.array([b])))
            within = difference <= tolerance.allowed(np.array([max(abs(a), abs(b))]))
        return Outcome.WITHIN_TOLERANCE if within[0] else Outcome.NUMBER
    if math.isfinite(a):
        return Outcome.NON_FINITE
    if math.isfinite(b):
        return Outcome.APPEARED
    return Outcome.EQUAL if a == b or (math.isnan(a) and math.isnan(b)) else Outcome.NUMBER


def _is_hollow(value: object) -> bool:
    """Null or a number that is not finite: neither says anything, and KServe turns one into it."""
    return value is None or (type(value) is float and not math.isfinite(value))


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def _short(value: object) -> str:
    return cut(_as_text(value), VALUE_CHARACTERS)


def _as_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return type(value).__name__
