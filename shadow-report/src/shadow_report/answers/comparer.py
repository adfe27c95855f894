"""Compares many pairs of answers at once, place by place instead of pair by pair.

A pair's answers are small and alike, so a walk through each of them would cost more than all the
comparisons. Instead the values of one place are lined up over the whole batch and compared
together; only what is unlike the rest is taken apart. Places form a tree that grows with what is
seen: one node per path template.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.bodies import UNPARSEABLE, Tensor, parse_text, shape_outcome
from shadow_report.answers.kinds import (
    UNRULED,
    Aligned,
    Ignored,
    ListKind,
    Matched,
    Patterns,
    TextKind,
    TopClass,
    Unordered,
    are_equal,
    are_probabilities,
    are_scores,
    are_vectors,
)
from shadow_report.answers.numbers import (
    LabelTally,
    NumberColumn,
    NumberTally,
    SimilarityTally,
    is_finite,
)
from shadow_report.answers.outcome import IS_DISAGREEMENT, Outcome
from shadow_report.answers.paths import NONE_CHOSEN, Progress, Rule, Rules, RulesHere, Step, join
from shadow_report.answers.similarity import Cosine, Ranking, Ranks, Text

# Marks are (place, outcome) in one number.
OUTCOMES = 32


@dataclass(frozen=True, slots=True)
class Marks:
    """All differences of a batch: `rows[i]` differs by `codes[i]` = place * OUTCOMES + outcome.

    `sizes[i]` is the largest numeric difference there (`Tolerance.sizes`), else 0.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    sizes: NDArray[np.float64]

    @property
    def places(self) -> NDArray[np.int64]:
        """The key of the place of each."""
        return self.codes // OUTCOMES

    @property
    def outcomes(self) -> NDArray[np.int64]:
        """The outcome of each."""
        return self.codes % OUTCOMES


Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Group = TypeVar("Group")


@dataclass(frozen=True, slots=True)
class Column:
    """`primary[i]` and `shadow[i]` stand at one place in the pair of row `rows[i]`."""

    primary: list[Any]
    shadow: list[Any]
    rows: Rows

    def __len__(self) -> int:
        return len(self.primary)

    def take(self, chosen: list[int]) -> Column:
        """Only these entries."""
        p, s = self.primary, self.shadow
        return Column([p[i] for i in chosen], [s[i] for i in chosen], self.rows[chosen])

    def kinds(self) -> set[type]:
        """All types that occur on either side."""
        return {*map(type, self.primary), *map(type, self.shadow)}

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The length of each value on both sides."""
        return (
            np.fromiter(map(len, self.primary), dtype=np.int64, count=len(self)),
            np.fromiter(map(len, self.shadow), dtype=np.int64, count=len(self)),
        )

    def scores(self, similarity: Callable[[Any, Any], float]) -> Floats:
        """How alike both sides of each entry are; 1 for equal ones."""
        pairs = zip(self.primary, self.shadow, strict=True)
        return np.array([1.0 if p == s else similarity(p, s) for p, s in pairs], dtype=np.float64)

    def differing(self) -> list[int]:
        """The entries whose sides are not equal."""
        pairs = enumerate(zip(self.primary, self.shadow, strict=True))
        return [i for i, (p, s) in pairs if p != s]

    def each(self, value: Callable[[Any], Any]) -> Column:
        """Some value of each entry, taken from both sides."""
        return Column(list(map(value, self.primary)), list(map(value, self.shadow)), self.rows)

    def items(self, lengths: NDArray[np.int64]) -> Column:
        """The items of these lists end to end; lists i of both sides have `lengths[i]` items."""
        return Column(
            list(chain.from_iterable(self.primary)),
            list(chain.from_iterable(self.shadow)),
            np.repeat(self.rows, lengths),
        )

    def by_kinds(self) -> dict[tuple[type, type], Column]:
        """The entries by the types of their sides; int and float count as one type, float."""
        groups: dict[tuple[type, type], list[int]] = defaultdict(list)
        for i, (p, s) in enumerate(zip(self.primary, self.shadow, strict=True)):
            kind, shadow_kind = type(p), type(s)
            groups[
                float if kind is int else kind, float if shadow_kind is int else shadow_kind
            ].append(i)
        return {kinds: self.take(chosen) for kinds, chosen in groups.items()}

    def lists_by_kinds(self) -> list[Column]:
        """Lists grouped by the types of the items, so that one odd list leaves the others alone."""
        groups: dict[frozenset[type], list[int]] = defaultdict(list)
        for i, (p, s) in enumerate(zip(self.primary, self.shadow, strict=True)):
            groups[frozenset((*map(type, p), *map(type, s)))].append(i)
        return [self.take(chosen) for chosen in groups.values()]

    def values_by(
        self, group_of: Callable[[int, str], Group]
    ) -> tuple[dict[Group, Column], dict[Group, Rows], dict[Group, Rows]]:
        """The objects' values by the group of entry and key: those that both sides have, the rows
        where the shadow's object lacks the key, and the rows where only the shadow's has it.
        """
        shared: dict[Group, tuple[list[Any], list[Any], list[int]]]
        shared = defaultdict(lambda: ([], [], []))
        missing: dict[Group, list[int]] = defaultdict(list)
        extra: dict[Group, list[int]] = defaultdict(list)
        rows = self.rows.tolist()
        for i, (p, s, row) in enumerate(zip(self.primary, self.shadow, rows, strict=True)):
            for key in p if p.keys() == s.keys() else {**p, **s}:
                group = group_of(i, key)
                if key in p and key in s:
                    part = shared[group]
                    part[0].append(p[key])
                    part[1].append(s[key])
                    part[2].append(row)
                else:
                    (missing if key in p else extra)[group].append(row)
        return (
            {group: Column(p, s, np.array(rows)) for group, (p, s, rows) in shared.items()},
            {group: np.array(rows) for group, rows in missing.items()},
            {group: np.array(rows) for group, rows in extra.items()},
        )


# Answers whose keys are data (an object per customer, say) would grow the tree without end.
MAX_PLACES = 500
# Values that stand deeper are compared as a whole.
MAX_DEPTH = 100
# How alike a path and a place are where one is taken for a slip in the other, from 0 to 1.
LIKE_A_TYPO = 0.85
OTHER_PLACES = "(further paths)"
# Stands for a step that no object's key can be: a key is text, a position a number.
_PATTERNS = (None, frozenset({(-1, -1)}))


class Place:
    """One path template with its tolerance and everything that was counted there."""

    __slots__ = (
        "bools",
        "by_name",
        "children",
        "classes",
        "depth",
        "faults",
        "has_lists",
        "key",
        "kinds",
        "labels",
        "lengths",
        "nulls",
        "numbers",
        "pairs",
        "path",
        "rows",
        "rules",
        "similarities",
        "texts",
        "tops",
    )

    def __init__(self, path: str, key: int, depth: int, rules: RulesHere) -> None:
        self.path = path
        self.key = key
        self.classes = ""
        """Which classes of texts are counted here, where a rule has patterns for them."""
        self.depth = depth
        self.rules = rules
        self.children: dict[Step | tuple[Step, frozenset[Progress]], Place] = {}
        self.numbers = NumberColumn(rules.numbers)
        self.labels = LabelTally()
        self.bools = LabelTally()
        self.tops = LabelTally()
        """Which class is the largest of a list, or by name, where a rule says that this decides."""
        self.by_name: LabelTally | None = LabelTally()
        """While all objects are probabilities by name: which name has the most."""
        self.has_lists = False
        """A list was here, or what the rule for lists reads as one."""
        self.lengths = NumberTally(UNRULED)
        """Characters of texts, where a rule reads them as such."""
        self.similarities: dict[str, SimilarityTally] = {}
        """By the name of what was measured: `similarity`, `cosine`, `overlap`, `correlation`."""
        self.nulls = 0
        self.kinds: set[str] = set()
        self.faults: Counter[Outcome] = Counter()
        self.pairs = 0
        self.rows: list[NDArray[np.int64]] = []
        """Rows of the current batch in which the place was seen; one may come twice."""
        self.texts: list[NDArray[np.int64]] = []
        """The same of those in which it was compared as a text: not JSON, nor null."""

    @property
    def margin(self) -> int | None:
        """The rule whose margin holds for what differs here, numbers beside lists left out."""
        rules = self.rules
        return rules.list_margin if self.has_lists and rules.lists is not None else rules.margin

    def count_pairs(self) -> None:
        """Count the current batch's rows as pairs, each once."""
        if len(self.rows) == 1 and (np.diff(self.rows[0]) > 0).all():
            self.pairs += self.rows[0].size
        elif self.rows:
            self.pairs += np.unique(np.concatenate(self.rows)).size
        self.rows.clear()
        self.texts.clear()


class Places:
    """The tree: makes each place when it is first seen, up to a bound."""

    def __init__(self, rules: Rules) -> None:
        self.root = Place("", 0, 0, rules.at_root())
        self.all = [self.root]
        self._further: dict[tuple[RulesHere, int], Place] = {}

    def child(self, place: Place, step: Step, chosen: frozenset[Progress] = NONE_CHOSEN) -> Place:
        """The place one step below; `chosen`: the rules that single out this key or position."""
        found = place.children.get((step, chosen) if chosen else step)
        return self._grow(place, step, chosen) if found is None else found

    def of_patterns(self, place: Place, patterns: Patterns) -> Place:
        """The place that counts of which class the texts of a place are."""
        found = place.children.get(_PATTERNS)
        if found is None:
            path = f"{place.path} ({patterns.title})"
            found = Place(path, len(self.all), place.depth + 1, place.rules.of_patterns())
            found.classes = patterns.title
            place.children[_PATTERNS] = found
            self.all.append(found)
        return found

    def _grow(self, place: Place, step: Step, chosen: frozenset[Progress]) -> Place:
        rules, depth = place.rules.below(step, chosen), place.depth + 1
        if len(self.all) < MAX_PLACES:
            path = (
                f"{place.path}{place.rules.label(chosen)}"
                if step is None
                else join(place.path, step)
            )
            made = Place(path, len(self.all), depth, rules)
            place.children[(step, chosen) if chosen else step] = made
        elif (rules, depth) in self._further:
            # Past the bound, places share one node unless the rules tell them apart.
            return self._further[rules, depth]
        else:
            made = self._further[rules, depth] = Place(OTHER_PLACES, len(self.all), depth, rules)
        self.all.append(made)
        return made


_NUMBERS = {int, float}
_KIND_OF = {str: "text", bool: "boolean", float: "number", dict: "object", list: "list"}
_KIND_OF |= {type(None): "null", Tensor: "tensor"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What there was in the answers compared: by their numbers the rules that named something, and
    those of them that found there what they are for; and the paths of all places.
    """

    named: frozenset[int] = frozenset()
    met: frozenset[int] = frozenset()
    paths: frozenset[str] = frozenset()

    def __or__(self, other: Seen) -> Seen:
        return Seen(self.named | other.named, self.met | other.met, self.paths | other.paths)


NOTHING_SEEN = Seen()


class Comparer:
    """Compares parsed answers: gathers pairs until the flush, and keeps none of them after it."""

    def __init__(self, rules: Rules) -> None:
        self.places = Places(rules)
        self._rules = rules
        self._roots: dict[int, tuple[Any, Any]] = {}
        """By row, the answers of the current batch as wholes, where a filter may ask for them."""
        self._primary: list[Any] = []
        self._shadow: list[Any] = []
        self._rows: list[int] = []
        self._marks: list[Marks] = []
        self._margins = rules.margins
        self.standing: dict[int, Rows] = {}
        """By rule with a margin, the rows of the last batch that have a value where it holds."""
        self._same_kind: dict[type, Callable[[Place, Column], None]] = {
            dict: self._objects,
            list: self._lists,
            int: self._numbers,
            float: self._numbers,
            str: self._labels,
            bool: self._labels,
            type(None): self._nulls,
            Tensor: self._tensors,
        }

    def compare_all(self, primary: list[Any], shadow: list[Any], rows: list[int]) -> None:
        """Take in many values as `bodies.parse` returns them, of one row each."""
        self._primary.extend(primary)
        self._shadow.extend(shadow)
        self._rows.extend(rows)

    def compare(self, primary: Any, shadow: Any, row: int) -> None:
        """Take in two values as `bodies.parse` returns them."""
        self._primary.append(primary)
        self._shadow.append(shadow)
        self._rows.append(row)

    def flush(self) -> Marks:
        """Compare all pairs since the last flush: all that differs, also within tolerance."""
        rows = np.array(self._rows, dtype=np.int64)
        if self._rules.has_filters:
            answers = zip(self._primary, self._shadow, strict=True)
            self._roots = dict(zip(self._rows, answers, strict=True))
        self._column(self.places.root, Column(self._primary, self._shadow, rows))
        self._roots = {}
        self._primary, self._shadow, self._rows = [], [], []
        self.standing = self._standing()
        for place in self.places.all:
            place.count_pairs()
            if (found := place.numbers.flush()) is not None:
                place.faults.update(found.values)
                differing = found.outcomes > Outcome.EQUAL
                codes = found.outcomes[differing].astype(np.int64) + place.key * OUTCOMES
                self._marks.append(Marks(found.rows[differing], codes, found.sizes[differing]))
        marks, self._marks = self._marks, []
        if not marks:
            return Marks(rows[:0], rows[:0], np.empty(0))
        return Marks(
            np.concatenate([mark.rows for mark in marks]),
            np.concatenate([mark.codes for mark in marks]),
            np.concatenate([mark.sizes for mark in marks]),
        )

    def own_margins(self, marks: Marks) -> Rows:
        """By mark, the rule whose margin is asked of it; -1 where the whole answer's is.

        A new fault is never a matter of a margin of its own, nor is what has one without a gate.
        """
        if not self._margins:
            return np.full(marks.rows.size, -1)
        gates: dict[int | None, int] = {rule: rule for rule in self._margins}
        places = self.places.all
        of_values = np.array([gates.get(p.rules.margin, -1) for p in places])
        margins = np.array([gates.get(p.margin, -1) for p in places])
        is_number = marks.outcomes == Outcome.NUMBER
        found = np.where(is_number, of_values[marks.places], margins[marks.places])
        return np.where(IS_DISAGREEMENT[marks.outcomes], found, -1)

    @property
    def seen(self) -> Seen:
        """What there was in all that was compared so far."""
        places = self.places.all
        named = {(place, rule) for place in places for rule in place.rules.named}
        met = {place.rules.list_rule for place in places if place.has_lists}
        met |= {rule for place, rule in named if not self._misses_lists(place, rule)}
        return Seen(
            frozenset(rule for _, rule in named),
            frozenset(rule for rule in met if rule is not None),
            frozenset(place.path for place in places),
        )

    @staticmethod
    def _misses_lists(place: Place, rule: int) -> bool:
        """Whether the rule holds for lists alone, and both sides have something else here."""
        return rule == place.rules.list_rule and place.pairs > 0 and not place.kinds

    def unmatched(self, elsewhere: Seen = NOTHING_SEEN) -> tuple[str, ...]:
        """The rules that named nothing of what was compared, with the place that each may mean, and
        those for lists that met none; no rule while nothing was compared. elsewhere: what other
        comparers saw by the same rules.
        """
        if not self.places.root.pairs:
            return ()
        seen = self.seen | elsewhere
        rules = enumerate(self._rules.by_path)
        return tuple(
            rule.name + (_no_list(rule) if i in seen.named else _nearest(rule, seen.paths))
            for i, rule in rules
            if i not in seen.met and not rule.is_preset
        )

    def ignored(self, elsewhere: Seen = NOTHING_SEEN) -> tuple[str, ...]:
        """The paths that were left out, of those that named something, here or `elsewhere`."""
        rules = [self._rules.by_path[i] for i in sorted((self.seen | elsewhere).named)]
        return tuple(rule.spelling for rule in rules if isinstance(rule.how, Ignored))

    def _standing(self) -> dict[int, Rows]:
        found: dict[int, list[Rows]] = {rule: [] for rule in self._margins}
        for place in self.places.all if found else ():
            if (rule := place.margin) in found:
                of_texts = isinstance(self._rules.by_path[rule].how, TextKind)
                found[rule] += place.texts if of_texts else place.rows
        return {rule: np.unique(np.concatenate(rows)) for rule, rows in found.items() if rows}

    def _mark(
        self, place: Place, outcome: Outcome, rows: Rows, sizes: Floats | None = None
    ) -> None:
        if rows.size and not place.rules.is_ignored:
            outcome = place.rules.outcome(outcome)
            place.faults[outcome] += rows.size
            codes = np.full(rows.size, place.key * OUTCOMES + outcome, dtype=np.int64)
            self._marks.append(Marks(rows, codes, np.zeros(rows.size) if sizes is None else sizes))

    def _column(self, place: Place, column: Column) -> None:
        if place.rules.is_ignored or not column:
            return
        place.rows.append(column.rows)
        kinds = column.kinds()
        if len(kinds) == 1 or kinds == _NUMBERS:
            self._same_kind[kinds.pop()](place, column)
            return
        for (kind, shadow_kind), part in column.by_kinds().items():
            if kind is shadow_kind:
                self._same_kind[kind](place, part)
            else:
                self._other_kind(place, part, kind, shadow_kind)

    @staticmethod
    def _numbers(place: Place, column: Column) -> None:
        ones = np.ones(len(column), dtype=np.int64)
        place.numbers.add(column.primary, column.shadow, column.rows, ones)

    @staticmethod
    def _nulls(place: Place, column: Column) -> None:
        place.nulls += len(column)

    def _labels(self, place: Place, column: Column) -> None:
        if place.rules.reads_text and type(column.primary[0]) is str:
            self._texts(place, column)
            return
        tally = place.labels if type(column.primary[0]) is str else place.bools
        self._names(place, tally, column)

    def _names(self, place: Place, tally: LabelTally, column: Column) -> None:
        tally.add(column.primary, column.shadow)
        self._mark(place, Outcome.LABEL, column.rows[column.differing()])

    def _objects(self, place: Place, column: Column) -> None:
        if place.depth >= MAX_DEPTH:
            self._whole(place, column)
            return
        if isinstance(place.rules.lists, TopClass):
            column = self._by_top_name(place, place.rules.lists, column)
        elif place.by_name is not None:
            self._count_by_name(place, place.by_name, column)
        if column:
            self._fields(place, column)

    def _by_top_name(self, place: Place, rule: TopClass, column: Column) -> Column:
        """Compare numbers by name as which of them is the largest; returns the other objects."""
        names = {*chain(*column.primary, *column.shadow)} if place.rules.open else set()
        ignored = {name for name in names if place.rules.below(name).is_ignored}
        for name in ignored:
            self.places.child(place, name)  # so that what ignores it has an effect
        scores = column.each(lambda of: {k: v for k, v in of.items() if k not in ignored})
        place.has_lists |= any(place.rules.are_classes(p, p) for p in scores.primary)
        pairs = enumerate(zip(scores.primary, scores.shadow, strict=True))
        ruled = [i for i, (p, s) in pairs if place.rules.are_classes(p, s)]
        self._tops(place, rule, scores.take(ruled))
        return column.take(sorted({*range(len(column))} - {*ruled}))

    @staticmethod
    def _count_by_name(place: Place, tally: LabelTally, column: Column) -> None:
        if not all(map(are_probabilities, column.primary)):
            place.by_name = None
            return
        pairs = enumerate(zip(column.primary, column.shadow, strict=True))
        whole = [i for i, (p, s) in pairs if p.keys() == s.keys() and are_scores(s, s)]
        tops = column.take(whole).each(TopClass.label)
        tally.add(tops.primary, tops.shadow)

    def _tops(self, place: Place, rule: TopClass, scores: Column) -> None:
        if scores:
            self._names(place, place.tops, scores.each(rule.label))

    def _fields(self, place: Place, column: Column) -> None:
        keys = {*map(tuple, column.primary), *map(tuple, column.shadow)}
        if len(keys) > 1 or place.rules.chooses:
            self._unlike_objects(place, column)
            return
        for key in keys.pop():
            self._column(self.places.child(place, key), column.each(itemgetter(key)))

    def _unlike_objects(self, place: Place, column: Column) -> None:
        """Objects whose keys are not all the same in the same order, or are chosen by value."""
        entries = zip(column.primary, column.shadow, column.rows.tolist(), strict=True)
        choices = place.rules.chooses and [self._choices(place, *entry) for entry in entries]

        def child_of(entry: int, key: str) -> Place:
            chosen = choices[entry].get(key, NONE_CHOSEN) if choices else NONE_CHOSEN
            return self.places.child(place, key, chosen)

        shared, missing, extra = column.values_by(child_of)
        for child, part in shared.items():
            self._column(child, part)
        for outcome, found in ((Outcome.MISSING, missing), (Outcome.EXTRA, extra)):
            for child, rows in found.items():
                self._mark(child, outcome, rows)

    def _lists(self, place: Place, column: Column) -> None:
        place.has_lists = True
        if (rule := place.rules.lists) is not None:
            column = self._by_list_rule(place, rule, column)
        lengths, shadow_lengths = column.lengths()
        if (other := lengths != shadow_lengths).any() or not lengths.all():
            self._mark(place, Outcome.LENGTH, column.rows[other])
            kept = np.flatnonzero(~other & (lengths > 0))
            column, lengths = column.take(kept.tolist()), lengths[kept]
        if not column:
            return
        if place.depth >= MAX_DEPTH:
            if not place.rules.below(None).is_ignored:
                self._whole(place, column)
        elif place.rules.chooses:
            for child, part in self._by_choice(place, column):
                self._items(child, part)
        else:
            self._items(self.places.child(place, None), column)

    def _items(self, child: Place, column: Column) -> None:
        """The items of lists that are not empty and as long on both sides."""
        if child.rules.is_ignored:
            return
        lengths, _ = column.lengths()
        items = column.items(lengths)
        kinds = items.kinds()
        if kinds <= _NUMBERS:
            child.rows.append(column.rows)
            child.numbers.add(items.primary, items.shadow, column.rows, lengths)
        elif kinds == {bool} or (kinds == {str} and not child.rules.reads_text):
            self._label_lists(child, column, items)
        elif len(kinds) > 1 and len(parts := column.lists_by_kinds()) > 1:
            for part in parts:
                self._items(child, part)
        else:
            self._column(child, items)

    def _by_choice(self, place: Place, column: Column) -> Iterator[tuple[Place, Column]]:
        """The lists cut into the positions that the same rules choose, by the place of these."""
        parts: dict[Place, tuple[list[Any], list[Any], list[int]]]
        parts = defaultdict(lambda: ([], [], []))
        # Without filters, what is chosen depends on the length alone.
        by_length: dict[int, list[tuple[Place, list[int]]]] = {}
        for p, s, row in zip(column.primary, column.shadow, column.rows.tolist(), strict=True):
            cut = None if self._roots else by_length.get(len(p))
            if cut is None:
                choices = self._choices(place, p, s, row)
                positions: dict[Place, list[int]] = defaultdict(list)
                for position in range(len(p)):
                    chosen = choices.get(position, NONE_CHOSEN)
                    positions[self.places.child(place, None, chosen)].append(position)
                cut = [part for part in positions.items() if not part[0].rules.is_ignored]
                by_length[len(p)] = cut
            for child, here in cut:
                primary, shadow, rows = parts[child]
                primary.append([p[i] for i in here])
                shadow.append([s[i] for i in here])
                rows.append(row)
        for child, (primary, shadow, rows) in parts.items():
            yield child, Column(primary, shadow, np.array(rows))

    def _choices(
        self, place: Place, p: Any, s: Any, row: int
    ) -> dict[str | int, frozenset[Progress]]:
        """Which keys or positions of two lists or objects some rules choose, on either side."""
        return place.rules.choices((p, s), self._roots.get(row, (None, None)))

    def _label_lists(self, child: Place, column: Column, items: Column) -> None:
        child.rows.append(column.rows)
        tally = child.labels if type(items.primary[0]) is str else child.bools
        tally.add(items.primary, items.shadow)
        changed: list[int] = []
        reordered: list[int] = []
        for i in column.differing():
            p, s = column.primary[i], column.shadow[i]
            is_reordered = len(p) > 1 and Counter(p) == Counter(s)
            (reordered if is_reordered else changed).append(i)
        self._mark(child, Outcome.LABEL, column.rows[changed])
        self._mark(child, Outcome.ORDER, column.rows[reordered])

    def _tensors(self, place: Place, column: Column) -> None:
        differing = column.each(attrgetter("datatype")).differing()
        if differing or place.rules.open:
            child = self.places.child(place, "datatype")
            self._mark(child, Outcome.TYPE, column.rows[differing])
        shapes = column.each(attrgetter("shape"))
        differing = shapes.differing()
        if differing or place.rules.open:
            child = self.places.child(place, "shape")
            by_outcome: dict[Outcome, list[int]] = defaultdict(list)
            for i in differing:
                by_outcome[shape_outcome(shapes.primary[i], shapes.shadow[i])].append(i)
            for outcome, entries in by_outcome.items():
                self._mark(child, outcome, column.rows[entries])
        child = self.places.child(place, "data")
        by_list = child.rules.lists is not None
        self._column(child, column.each(Tensor.vectors if by_list else attrgetter("data")))
        rest = column.each(attrgetter("rest"))
        if any(rest.primary) or any(rest.shadow):
            self._fields(place, rest)

    def _texts(self, place: Place, column: Column) -> None:
        """Texts under a rule that reads them."""
        rules = place.rules
        if isinstance(rules.lists, Cosine):
            column = self._encoded(place, rules.lists, column)
        if rules.is_json and column:
            column = self._content(place, column)
        if not column:
            return
        if (patterns := rules.patterns) is not None:
            child = self.places.of_patterns(place, patterns)
            child.rows.append(column.rows)
            self._names(child, child.labels, column.each(patterns.label))
        if (text := rules.text) is not None:
            place.texts.append(column.rows)
            similarities = column.scores(text.similarity)
            below = np.flatnonzero(similarities < text.least)
            self._score(place, "similarity", similarities, below, column.rows)
            self._within(place, column.rows[column.differing()], column.rows[below])
            if isinstance(text, Text):
                ones = np.zeros(len(column), dtype=np.int8)
                p, s = (np.asarray(side, dtype=np.float64) for side in column.lengths())
                place.lengths.add(p, s, np.arange(len(column)), column.rows, ones)
        elif patterns is None:
            self._names(place, place.labels, column)

    def _encoded(self, place: Place, rule: Cosine, column: Column) -> Column:
        """Compare texts that encode vectors as what they encode; returns those that do not."""
        vectors = column.each(rule.vector)
        pairs = enumerate(zip(vectors.primary, vectors.shadow, strict=True))
        encoded = [i for i, (p, s) in pairs if p is not None and s is not None]
        if encoded:
            self._lists(place, vectors.take(encoded))
        return column.take(sorted({*range(len(column))} - {*encoded}))

    def _content(self, place: Place, column: Column) -> Column:
        """Compare texts that are JSON as what they say; returns those that neither side has so."""
        contents = column.each(parse_text)
        known: dict[tuple[bool, bool], list[int]] = defaultdict(list)
        for i, (p, s) in enumerate(zip(contents.primary, contents.shadow, strict=True)):
            known[p is not UNPARSEABLE, s is not UNPARSEABLE].append(i)
        self._mark(place, Outcome.UNPARSEABLE, column.rows[known[True, False]])
        self._mark(place, Outcome.APPEARED, column.rows[known[False, True]])
        self._column(place, contents.take(known[True, True]))
        return column.take(known[False, False])

    def _by_list_rule(self, place: Place, rule: ListKind, column: Column) -> Column:
        """Apply the rule for lists here; returns what is left to be compared item by item.

        An empty list where the other side has items is never left to the rule: it is a fault.
        """
        if isinstance(rule, Unordered | Matched):
            return self._aligned(place, rule, column)
        pairs = list(enumerate(zip(column.primary, column.shadow, strict=True)))
        if isinstance(rule, Ranking):
            ranks = {i: rule.ranks(p, s) for i, (p, s) in pairs if p and s}
            ruled = [i for i in ranks if ranks[i] is not None]
            self._rankings(place, rule, [r for r in ranks.values() if r], column.rows[ruled])
        elif isinstance(rule, TopClass):
            ruled = [i for i, (p, s) in pairs if are_scores(p, s)]
            self._tops(place, rule, column.take(ruled))
        else:
            ruled = [i for i, (p, s) in pairs if are_vectors(p, s)]
            self._cosines(place, rule, column.take(ruled))
        return column.take(sorted({i for i, _ in pairs} - {*ruled}))

    def _aligned(self, place: Place, rule: Unordered | Matched, column: Column) -> Column:
        found = [
            rule.align(p, s) if p and s else Aligned(p, s, [], [])
            for p, s in zip(column.primary, column.shadow, strict=True)
        ]
        alone = [i for i, lists in enumerate(found) if lists.only_primary or lists.only_shadow]
        self._mark(place, Outcome.ITEMS, column.rows[alone])
        return Column(
            [lists.primary for lists in found], [lists.shadow for lists in found], column.rows
        )

    def _rankings(self, place: Place, rule: Ranking, ranks: list[Ranks], rows: Rows) -> None:
        table = np.array(ranks, dtype=np.float64).reshape(-1, 2)
        overlaps, correlations = table[:, 0], table[:, 1]
        few = np.flatnonzero(overlaps < rule.overlap)
        apart = np.flatnonzero(correlations < rule.correlation)
        self._score(place, "overlap", overlaps, few, rows)
        self._score(place, "correlation", correlations, apart, rows, outcome=Outcome.ORDER)
        differing = np.flatnonzero((table < 1).any(axis=1))
        self._within(place, rows[differing], np.concatenate([rows[few], rows[apart]]))

    def _cosines(self, place: Place, rule: Cosine, column: Column) -> None:
        cosines = column.scores(rule.similarity)
        below = np.flatnonzero(cosines < rule.least)
        self._score(place, "cosine", cosines, below, column.rows)
        self._within(place, column.rows[column.differing()], column.rows[below])

    def _score(
        self,
        place: Place,
        name: str,
        scores: Floats,
        below: Rows,
        rows: Rows,
        *,
        outcome: Outcome = Outcome.SIMILARITY,
    ) -> None:
        """Count how alike values are, and mark those that are less alike than they may be."""
        if scores.size:
            place.similarities.setdefault(name, SimilarityTally()).add(scores, below.size)
            self._mark(place, outcome, rows[below], 1 - scores[below])

    def _within(self, place: Place, differing: Rows, beyond: Rows) -> None:
        """Mark the rows that differ, and no more than the rule allows."""
        self._mark(place, Outcome.WITHIN_TOLERANCE, np.setdiff1d(differing, beyond))

    def _other_kind(self, place: Place, column: Column, kind: type, shadow_kind: type) -> None:
        """One side's type is not the other's. KServe writes NaN as null, so null is NaN there."""
        place.kinds.update((_KIND_OF[kind], _KIND_OF[shadow_kind]))
        outcome, rows = Outcome.TYPE, column.rows
        if {kind, shadow_kind} == {float, type(None)}:
            numbers = column.primary if kind is float else column.shadow
            rows = rows[[is_finite(number) for number in numbers]]
            outcome = Outcome.NON_FINITE if kind is float else Outcome.APPEARED
            place.nulls += len(column) - rows.size
        self._mark(place, outcome, rows)

    def _whole(self, place: Place, column: Column) -> None:
        """Too deep to walk: equal or not."""
        pairs = enumerate(zip(column.primary, column.shadow, strict=True))
        differing = [i for i, (p, s) in pairs if not are_equal(p, s)]
        self._mark(place, Outcome.TEXT, column.rows[differing])


def _no_list(rule: Rule) -> str:
    by_name = isinstance(rule.how, TopClass)
    none = "neither a list nor several numbers by name" if by_name else "no list"
    but = "" if rule.margin is None else "; its margin holds"
    return f" ({rule.kind}, and {none} there{but})"


def _nearest(rule: Rule, places: Iterable[str]) -> str:
    """The place that the rule's path may mean, as a question."""
    near = get_close_matches(rule.spelling, sorted(filter(None, places)), n=1, cutoff=LIKE_A_TYPO)
    return f" (did you mean {near[0]}?)" if near else ""
