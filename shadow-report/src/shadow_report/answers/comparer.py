"""Compares answers pair by pair, and gathers numbers so that a whole batch is compared at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.numbers import Number
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rules
from shadow_report.answers.place import MAX_DEPTH, Place, Places
from shadow_report.answers.tensors import Tensor

_NUMBER_TYPES = frozenset({int, float})
_TEXT_TYPES = {str}
_LABEL_TYPES: list[set[type]] = [{str}, {bool}]
_KIND_OF = {str: "text", bool: "boolean", int: "number", float: "number", dict: "object"}
_KIND_OF |= {list: "list", type(None): "null", Tensor: "tensor"}

# Marks are (place, outcome) in one number.
OUTCOMES = 16


@dataclass(frozen=True, slots=True)
class Marks:
    """All differences of a batch: `rows[i]` differs by `codes[i]` = place * OUTCOMES + outcome.

    `sizes[i]` is the largest numeric difference there, relative to the larger side, else 0.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    sizes: NDArray[np.float64]


class Comparer:
    """Compares parsed answers; `compare` each pair of a batch, then `flush` for what differs.

    Rows must come in ascending order. Equal values cost a walk over one document; nothing of a
    pair is kept after the flush.
    """

    def __init__(self, rules: Rules) -> None:
        self.places = Places.under(rules)
        self._rows: list[int] = []
        self._codes: list[int] = []
        self._same_type: dict[type, Callable[[Place, Any, Any, int], None]] = {
            dict: self._objects,
            list: self._lists,
            int: self._number,
            float: self._number,
            str: self._text,
            bool: self._flag,
            type(None): self._null,
            Tensor: self._tensors,
        }

    def compare(self, primary: Any, shadow: Any, row: int) -> None:
        """Compare two values as `bodies.parse` returns them."""
        self._value(self.places.root, primary, shadow, row)

    def flush(self) -> Marks:
        """Everything that differs in the rows since the last flush, also within tolerance."""
        rows = [np.array(self._rows, dtype=np.int64)]
        codes = [np.array(self._codes, dtype=np.int64)]
        sizes = [np.zeros(len(self._rows))]
        self._rows.clear()
        self._codes.clear()
        for place in self.places.all:
            place.last_row = -1
            place.labels.flush()
            place.bools.flush()
            marks = place.numbers.flush()
            if marks is None:
                continue
            place.faults.update(marks.values)
            differing = marks.outcomes > Outcome.EQUAL
            rows.append(marks.rows[differing])
            codes.append(marks.outcomes[differing].astype(np.int64) + place.key * OUTCOMES)
            sizes.append(marks.sizes[differing])
        return Marks(np.concatenate(rows), np.concatenate(codes), np.concatenate(sizes))

    def _mark(self, place: Place, outcome: Outcome, row: int) -> None:
        place.faults[outcome] += 1
        self._rows.append(row)
        self._codes.append(place.key * OUTCOMES + outcome)

    def _value(self, place: Place, p: Any, s: Any, row: int) -> None:
        if place.ignored:
            return
        if place.last_row != row:
            place.last_row = row
            place.pairs += 1
        kind, shadow_kind = type(p), type(s)
        if kind is shadow_kind:
            self._same_type[kind](place, p, s, row)
        elif kind in _NUMBER_TYPES and shadow_kind in _NUMBER_TYPES:
            place.numbers.add_one(p, s, row)
        else:
            self._other_type(place, p, s, row)

    @staticmethod
    def _number(place: Place, p: Number, s: Number, row: int) -> None:
        place.numbers.add_one(p, s, row)

    @staticmethod
    def _null(place: Place, _p: None, _s: None, _row: int) -> None:
        place.nulls += 1

    def _text(self, place: Place, p: str, s: str, row: int) -> None:
        place.labels.add_one(p, s)
        if p != s:
            self._mark(place, Outcome.LABEL, row)

    def _flag(self, place: Place, p: bool, s: bool, row: int) -> None:
        place.bools.add_one(p, s)
        if p is not s:
            self._mark(place, Outcome.LABEL, row)

    def _objects(self, place: Place, p: dict[str, Any], s: dict[str, Any], row: int) -> None:
        if place.depth >= MAX_DEPTH:
            self._whole(place, p, s, row)
            return
        children = place.children
        for key, value in p.items():
            child = children.get(key) or self.places.child(place, key)
            if key in s:
                self._value(child, value, s[key], row)
            elif not child.ignored:
                self._mark(child, Outcome.MISSING, row)
        if p.keys() != s.keys():
            for key in s.keys() - p.keys():
                child = self.places.child(place, key)
                if not child.ignored:
                    self._mark(child, Outcome.EXTRA, row)

    def _lists(self, place: Place, p: list[Any], s: list[Any], row: int) -> None:
        if len(p) != len(s):
            self._mark(place, Outcome.LENGTH, row)
            return
        if place.depth >= MAX_DEPTH:
            self._whole(place, p, s, row)
            return
        if not p:
            return
        child = place.children.get(None) or self.places.child(place, None)
        if child.ignored:
            return
        types = {*map(type, p), *map(type, s)}
        if types <= _NUMBER_TYPES:
            child.numbers.add(p, s, row)
        elif types in _LABEL_TYPES:
            column = child.labels if types == _TEXT_TYPES else child.bools
            column.add(p, s)
            if p != s:
                reordered = len(p) > 1 and Counter(p) == Counter(s)
                self._mark(child, Outcome.ORDER if reordered else Outcome.LABEL, row)
        else:
            for a, b in zip(p, s, strict=True):
                self._value(child, a, b, row)
            return
        if child.last_row != row:
            child.last_row = row
            child.pairs += 1

    def _tensors(self, place: Place, p: Tensor, s: Tensor, row: int) -> None:
        child = self.places.child
        if p.datatype != s.datatype and not (at := child(place, "datatype")).ignored:
            self._mark(at, Outcome.TYPE, row)
        if p.shape != s.shape and not (at := child(place, "shape")).ignored:
            self._mark(at, Outcome.LENGTH, row)
        self._value(child(place, "data"), p.data, s.data, row)
        if p.rest or s.rest:
            self._objects(place, p.rest, s.rest, row)

    def _other_type(self, place: Place, p: Any, s: Any, row: int) -> None:
        """Neither both numbers nor of one type. KServe writes NaN as null, so null is NaN there."""
        place.kinds.update((_KIND_OF[type(p)], _KIND_OF[type(s)]))
        if s is None and type(p) in _NUMBER_TYPES:
            self._mark(place, Outcome.NON_FINITE, row)
        elif p is None and type(s) in _NUMBER_TYPES:
            self._mark(place, Outcome.MENDED, row)
        else:
            self._mark(place, Outcome.TYPE, row)

    def _whole(self, place: Place, p: Any, s: Any, row: int) -> None:
        try:
            equal = p == s
        except RecursionError:
            equal = False
        if not equal:
            self._mark(place, Outcome.TEXT, row)


def place_and_outcome(code: int) -> tuple[int, Outcome]:
    """The parts of a mark's code: the place's key and the outcome."""
    return code // OUTCOMES, Outcome(code % OUTCOMES)
