"""Compares many pairs of answers at once, place by place instead of pair by pair.

A pair's answers are small and alike, so a walk through each of them would cost more than all the
comparisons. Instead the values of one place are lined up over the whole batch and compared
together; only what is unlike the rest is taken apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from shadow_report.answers.column import Column, Rows
from shadow_report.answers.marks import OUTCOMES, Marks
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rules
from shadow_report.answers.place import MAX_DEPTH, Place, Places
from shadow_report.answers.tensors import Tensor

_NUMBERS = {int, float}
_LABELS: list[set[type]] = [{str}, {bool}]
_KIND_OF = {str: "text", bool: "boolean", float: "number", dict: "object", list: "list"}
_KIND_OF |= {type(None): "null", Tensor: "tensor"}


class Comparer:
    """Compares parsed answers: gathers pairs until the flush, and keeps none of them after it."""

    def __init__(self, rules: Rules) -> None:
        self.places = Places.under(rules)
        self._primary: list[Any] = []
        self._shadow: list[Any] = []
        self._rows: list[int] = []
        self._marks: list[Marks] = []
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
        self._column(self.places.root, Column(self._primary, self._shadow, rows))
        self._primary, self._shadow, self._rows = [], [], []
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

    def _mark(self, place: Place, outcome: Outcome, rows: Rows) -> None:
        if rows.size and not place.ignored:
            place.faults[outcome] += rows.size
            codes = np.full(rows.size, place.key * OUTCOMES + outcome, dtype=np.int64)
            self._marks.append(Marks(rows, codes, np.zeros(rows.size)))

    def _column(self, place: Place, column: Column) -> None:
        if place.ignored or not column:
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
        tally = place.labels if type(column.primary[0]) is str else place.bools
        tally.add(column.primary, column.shadow)
        self._mark(place, Outcome.LABEL, column.rows[column.differing()])

    def _objects(self, place: Place, column: Column) -> None:
        if place.depth >= MAX_DEPTH:
            self._whole(place, column)
            return
        keys = {*map(tuple, column.primary), *map(tuple, column.shadow)}
        if len(keys) > 1:
            self._unlike_objects(place, column)
            return
        for key in keys.pop():
            self._column(self.places.child(place, key), column.each(itemgetter(key)))

    def _unlike_objects(self, place: Place, column: Column) -> None:
        """Objects whose keys are not all the same in the same order."""
        shared, missing, extra = column.values_by(lambda key: self.places.child(place, key))
        for child, part in shared.items():
            self._column(child, part)
        for outcome, found in ((Outcome.MISSING, missing), (Outcome.EXTRA, extra)):
            for child, rows in found.items():
                self._mark(child, outcome, rows)

    def _lists(self, place: Place, column: Column) -> None:
        lengths, shadow_lengths = column.lengths()
        if (other := lengths != shadow_lengths).any() or not lengths.all():
            self._mark(place, Outcome.LENGTH, column.rows[other])
            kept = np.flatnonzero(~other & (lengths > 0))
            column, lengths = column.take(kept.tolist()), lengths[kept]
        child = self.places.child(place, None)
        if child.ignored or not column:
            return
        if place.depth >= MAX_DEPTH:
            self._whole(place, column)
            return
        items = column.items(lengths)
        kinds = items.kinds()
        if kinds <= _NUMBERS:
            child.rows.append(column.rows)
            child.numbers.add(items.primary, items.shadow, column.rows, lengths)
        elif kinds in _LABELS:
            self._label_lists(child, column, items)
        elif len(kinds) > 1 and len(parts := column.lists_by_kinds()) > 1:
            for part in parts:
                self._lists(place, part)
        else:
            self._column(child, items)

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
        for field, outcome in (("datatype", Outcome.TYPE), ("shape", Outcome.LENGTH)):
            differing = column.each(attrgetter(field)).differing()
            if differing:
                self._mark(self.places.child(place, field), outcome, column.rows[differing])
        self._column(self.places.child(place, "data"), column.each(attrgetter("data")))
        rest = column.each(attrgetter("rest"))
        if any(rest.primary) or any(rest.shadow):
            self._objects(place, rest)

    def _other_kind(self, place: Place, column: Column, kind: type, shadow_kind: type) -> None:
        """One side's type is not the other's. KServe writes NaN as null, so null is NaN there."""
        place.kinds.update((_KIND_OF[kind], _KIND_OF[shadow_kind]))
        none = type(None)
        outcome = Outcome.TYPE
        if kind is float and shadow_kind is none:
            outcome = Outcome.NON_FINITE
        elif kind is none and shadow_kind is float:
            outcome = Outcome.MENDED
        self._mark(place, outcome, column.rows)

    def _whole(self, place: Place, column: Column) -> None:
        """Too deep to walk: equal or not."""
        try:
            differing = column.differing()
        except RecursionError:
            differing = list(range(len(column)))
        self._mark(place, Outcome.TEXT, column.rows[differing])
