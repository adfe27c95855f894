"""What the numbers at one path look like: size and shape of the differences, and of both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.labels import MAX_CLASSES, LabelTally
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.sketch import Sketch
from shadow_report.statistics.moments import Moments, PairMoments

# Squares of larger values overflow; they are compared, and left out of the description.
LARGEST_DESCRIBED = 1e150
# Looking at the first values tells nearly always that numbers are not class numbers.
FIRST_VALUES = 1000


class NumberTally:
    """Running figures in bounded memory; they describe and never decide."""

    def __init__(self) -> None:
        self.values = 0
        self.agreeing = 0
        self.pairs = PairMoments()
        self.differences = Moments()
        self.absolute_sum = 0.0
        self.largest = 0.0
        self.signed, self.primary, self.shadow = (Sketch() for _ in range(3))
        self.classes: LabelTally | None = LabelTally()
        """While all values are few whole numbers: which became which."""
        self.top_classes: LabelTally | None = LabelTally()
        """While all lists are distributions over classes: which class was on top."""

    def add(
        self,
        p: NDArray[np.float64],
        s: NDArray[np.float64],
        starts: NDArray[np.int64],
        outcomes: NDArray[np.int8],
    ) -> None:
        """Count a batch; segments (lists) begin at `starts`."""
        self.values += p.size
        self.agreeing += int(np.count_nonzero(outcomes <= Outcome.WITHIN_TOLERANCE))
        self._add_top_classes(p, s, starts)
        # NaN compares false, so it is left out here too.
        usable = np.maximum(np.abs(p), np.abs(s)) < LARGEST_DESCRIBED
        if not usable.all():
            p, s = p[usable], s[usable]
        if not p.size:
            return
        difference = s - p
        absolute = np.abs(difference)
        self.pairs = self.pairs.merge(PairMoments.of(p, s))
        self.differences = self.differences.merge(Moments.of(difference))
        self.absolute_sum += float(absolute.sum())
        self.largest = max(self.largest, float(absolute.max()))
        self.signed.add(difference)
        self.primary.add(p)
        self.shadow.add(s)

    def add_classes(self, primary: Sequence[int | float], shadow: Sequence[int | float]) -> None:
        """Count the batch as class numbers, until a value shows that they are none."""
        if self.classes is None:
            return
        head = {*primary[:FIRST_VALUES], *shadow[:FIRST_VALUES]}
        if (
            len(head) > MAX_CLASSES
            or {*map(type, head)} != {int}
            or {*map(type, primary), *map(type, shadow)} != {int}
        ):
            self.classes = None
            return
        self.classes.add(primary, shadow)  # type: ignore[arg-type]
        if self.classes.is_text:
            self.classes = None

    def _add_top_classes(
        self, p: NDArray[np.float64], s: NDArray[np.float64], starts: NDArray[np.int64]
    ) -> None:
        if self.top_classes is None:
            return
        lengths = np.diff(starts, append=p.size)
        length = int(lengths[0])
        table = p.reshape(-1, length) if length > 1 and (lengths == length).all() else None
        # Comparisons with NaN are false, so a broken primary ends this, and a broken shadow not.
        if (
            table is None
            or not ((table >= 0) & (table <= 1)).all()
            or not (np.abs(table.sum(axis=1) - 1) <= 1e-3).all()
        ):
            self.top_classes = None
            return
        tops = table.argmax(axis=1), s.reshape(-1, length).argmax(axis=1)
        self.top_classes.add(tops[0].tolist(), tops[1].tolist())
