"""Places in the answers, as a tree that grows with what is seen: one node per path template."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.labels import LabelTally
from shadow_report.answers.numbers import NumberColumn
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rules, Step, Tolerance, join

# Answers whose keys are data (an object per customer, say) would grow the tree without end.
MAX_PLACES = 500
# Values that stand deeper are compared as a whole.
MAX_DEPTH = 100
OTHER_PLACES = "(further paths)"


class Place:
    """One path template with its tolerance and everything that was counted there."""

    __slots__ = (
        "bools",
        "children",
        "depth",
        "faults",
        "ignored",
        "key",
        "kinds",
        "labels",
        "nulls",
        "numbers",
        "pairs",
        "path",
        "rows",
        "tolerance",
    )

    def __init__(
        self, path: str, key: int, depth: int, tolerance: Tolerance, ignored: bool
    ) -> None:
        self.path = path
        self.key = key
        self.depth = depth
        self.tolerance = tolerance
        self.ignored = ignored
        self.children: dict[Step, Place] = {}
        self.numbers = NumberColumn(tolerance)
        self.labels = LabelTally()
        self.bools = LabelTally()
        self.nulls = 0
        self.kinds: set[str] = set()
        self.faults: Counter[Outcome] = Counter()
        self.pairs = 0
        self.rows: list[NDArray[np.int64]] = []
        """Rows of the current batch in which the place was seen; one may come twice."""

    def count_pairs(self) -> None:
        """Count the current batch's rows as pairs, each once."""
        if len(self.rows) == 1 and (np.diff(self.rows[0]) > 0).all():
            self.pairs += self.rows[0].size
        elif self.rows:
            self.pairs += np.unique(np.concatenate(self.rows)).size
        self.rows.clear()


@dataclass(slots=True)
class Places:
    """The tree: makes each place when it is first seen, up to a bound."""

    rules: Rules
    root: Place
    all: list[Place]

    @classmethod
    def under(cls, rules: Rules) -> Places:
        root = Place("", 0, 0, rules.tolerance_at("", rules.tolerance), "" in rules.ignored)
        return cls(rules, root, [root])

    def child(self, place: Place, step: Step) -> Place:
        """The place one step below."""
        found = place.children.get(step)
        return self._grow(place, step) if found is None else found

    def _grow(self, place: Place, step: Step) -> Place:
        if len(self.all) > MAX_PLACES:
            # One shared place at the end: its own child whatever the step.
            return self.all[-1]
        path = OTHER_PLACES if len(self.all) == MAX_PLACES else join(place.path, step)
        tolerance = self.rules.tolerance_at(path, place.tolerance)
        ignored = place.ignored or path in self.rules.ignored
        made = Place(path, len(self.all), place.depth + 1, tolerance, ignored)
        self.all.append(made)
        place.children[step] = made
        return made
