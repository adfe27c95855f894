"""Numbers at one path, gathered for a batch of pairs and compared at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.labels import MAX_CLASSES, LabelTally
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Tolerance
from shadow_report.answers.sketch import Sketch
from shadow_report.statistics.moments import Moments, PairMoments

Number = int | float

# From here on floats skip whole numbers, so both sides are compared as Python's exact ones.
FIRST_INEXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class NumberMarks:
    """What a batch showed: for each segment its row, its outcome and its largest relative size."""

    rows: NDArray[np.int64]
    outcomes: NDArray[np.int8]
    sizes: NDArray[np.float64]
    values: Counter[Outcome]


class NumberColumn:
    """The numbers of one path: segments (one per list or single value) of the current batch."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self._primary: list[Number] = []
        self._shadow: list[Number] = []
        self._rows: list[int] = []
        self._starts: list[int] = []
        self.values = 0
        self.agreeing = 0
        self.pairs = PairMoments()
        self.differences = Moments()
        self.sizes = Sketch()
        self.signed = Sketch()
        self.primary = Sketch()
        self.shadow = Sketch()
        self.absolute_sum = 0.0
        self.labels: LabelTally | None = LabelTally()
        self.distributions = True
        self.top_classes = LabelTally()

    def add(self, primary: Sequence[Number], shadow: Sequence[Number], row: int) -> None:
        """Put the numbers of one place in one pair beside each other; both sides are equally long."""
        self._rows.append(row)
        self._starts.append(len(self._primary))
        self._primary.extend(primary)
        self._shadow.extend(shadow)

    def add_one(self, primary: Number, shadow: Number, row: int) -> None:
        self._rows.append(row)
        self._starts.append(len(self._primary))
        self._primary.append(primary)
        self._shadow.append(shadow)

    def flush(self) -> NumberMarks | None:
        """Compare what was gathered since the last flush; None when that is nothing."""
        if not self._primary:
            return None
        p, s = _floats(self._primary), _floats(self._shadow)
        starts = np.array(self._starts, dtype=np.int64)
        outcomes, sizes = self._compare(p, s)
        self._describe(p, s, starts, outcomes)
        by_segment = np.maximum.reduceat(outcomes, starts)
        self._find_reordered(p, s, starts, by_segment)
        marks = NumberMarks(
            rows=np.array(self._rows, dtype=np.int64),
            outcomes=by_segment,
            sizes=np.maximum.reduceat(sizes, starts),
            values=_counts(outcomes),
        )
        for gathered in (self._primary, self._shadow, self._rows, self._starts):
            gathered.clear()
        return marks

    def _compare(
        self, p: NDArray[np.float64], s: NDArray[np.float64]
    ) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """The outcome of each value, and how large its difference is relative to the larger side."""
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(s - p)
            larger = np.maximum(np.abs(p), np.abs(s))
            within = difference <= self.tolerance.absolute + self.tolerance.relative * larger
            sizes = np.where(difference > 0, difference / np.where(larger > 0, larger, 1.0), 0.0)
        outcomes = np.where(within, np.int8(Outcome.WITHIN_TOLERANCE), np.int8(Outcome.NUMBER))
        outcomes[p == s] = Outcome.EQUAL
        self._compare_exactly(p, s, outcomes)
        finite_p, finite_s = np.isfinite(p), np.isfinite(s)
        if not (finite_p.all() and finite_s.all()):
            outcomes[finite_p & ~finite_s] = Outcome.NON_FINITE
            outcomes[~finite_p & finite_s] = Outcome.MENDED
            same = (p == s) | (np.isnan(p) & np.isnan(s))
            outcomes[~finite_p & ~finite_s & same] = Outcome.EQUAL
            outcomes[~finite_p & ~finite_s & ~same] = Outcome.NUMBER
            sizes[~(finite_p & finite_s)] = 0.0
        return outcomes, sizes

    def _compare_exactly(
        self, p: NDArray[np.float64], s: NDArray[np.float64], outcomes: NDArray[np.int8]
    ) -> None:
        """Whole numbers that floats cannot tell apart are identifiers: equal or not."""
        large = np.flatnonzero((np.abs(p) >= FIRST_INEXACT) & (np.abs(s) >= FIRST_INEXACT))
        for i in large.tolist():
            a, b = self._primary[i], self._shadow[i]
            if type(a) is int and type(b) is int:
                outcomes[i] = Outcome.EQUAL if a == b else Outcome.NUMBER

    def _describe(
        self,
        p: NDArray[np.float64],
        s: NDArray[np.float64],
        starts: NDArray[np.int64],
        outcomes: NDArray[np.int8],
    ) -> None:
        self.values += p.size
        self.agreeing += int(np.count_nonzero(outcomes <= Outcome.WITHIN_TOLERANCE))
        with np.errstate(over="ignore", invalid="ignore"):
            usable = np.isfinite(p) & np.isfinite(s) & np.isfinite(s - p)
            usable &= np.maximum(np.abs(p), np.abs(s)) < 1e150
        if not usable.all():
            p, s, starts = p[usable], s[usable], np.empty(0, dtype=np.int64)
        if not p.size:
            return
        difference = s - p
        self.pairs = self.pairs.merge(PairMoments.of(p, s))
        self.differences = self.differences.merge(Moments.of(difference))
        absolute = np.abs(difference)
        self.absolute_sum += float(absolute.sum())
        self.sizes.add(absolute)
        self.signed.add(difference)
        self.primary.add(p)
        self.shadow.add(s)
        self._count_labels(p, s)
        self._count_top_classes(p, s, starts)

    def _count_labels(self, p: NDArray[np.float64], s: NDArray[np.float64]) -> None:
        """Few different whole numbers are class numbers; their confusion is worth showing."""
        if self.labels is None:
            return
        head = slice(0, 1000)
        whole = {*map(type, self._primary[head]), *map(type, self._shadow[head])} == {int}
        if not whole or not {*map(type, self._primary), *map(type, self._shadow)} == {int}:
            self.labels = None
            return
        if np.unique(p[:4000]).size > MAX_CLASSES or np.abs([p, s]).max() >= FIRST_INEXACT:
            self.labels = None
            return
        self.labels.add(p.astype(np.int64).tolist(), s.astype(np.int64).tolist())
        if self.labels.is_text:
            self.labels = None

    def _count_top_classes(
        self, p: NDArray[np.float64], s: NDArray[np.float64], starts: NDArray[np.int64]
    ) -> None:
        """While every segment is a distribution over classes, count which class is on top."""
        if not self.distributions:
            return
        lengths = np.diff(starts, append=p.size)
        length = int(lengths[0]) if lengths.size else 0
        if length < 2 or (lengths != length).any() or p.min() < 0 or p.max() > 1:
            self.distributions = False
            return
        table = p.reshape(-1, length)
        if (np.abs(table.sum(axis=1) - 1) > 1e-3).any():
            self.distributions = False
            return
        tops = table.argmax(axis=1), s.reshape(-1, length).argmax(axis=1)
        self.top_classes.add(tops[0].tolist(), tops[1].tolist())

    def _find_reordered(
        self,
        p: NDArray[np.float64],
        s: NDArray[np.float64],
        starts: NDArray[np.int64],
        by_segment: NDArray[np.int8],
    ) -> None:
        """Turn NUMBER into ORDER where a list holds the same numbers in another order."""
        differing = by_segment == Outcome.NUMBER
        if not differing.any():
            return
        lengths = np.diff(starts, append=p.size)
        with np.errstate(invalid="ignore", over="ignore"):
            sums_p, sums_s = np.add.reduceat(p, starts), np.add.reduceat(s, starts)
            # Equal multisets have sums that differ by rounding only: a cheap first sieve.
            close = np.abs(sums_p - sums_s) <= 1e-9 * np.add.reduceat(np.abs(p), starts)
        for i in np.flatnonzero(differing & close & (lengths > 1)).tolist():
            part = slice(int(starts[i]), int(starts[i] + lengths[i]))
            if np.array_equal(np.sort(p[part]), np.sort(s[part])):
                by_segment[i] = Outcome.ORDER


def _floats(values: list[Number]) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return np.array([_float(value) for value in values])


def _float(value: Number) -> float:
    try:
        return float(value)
    except OverflowError:
        # A whole number past 1e308 is finite; the exact comparison decides about it.
        return 1.7e308 if value > 0 else -1.7e308


def _counts(outcomes: NDArray[np.int8]) -> Counter[Outcome]:
    if not outcomes.any():
        return Counter()
    counts = np.bincount(outcomes)
    return Counter({Outcome(i): int(n) for i, n in enumerate(counts.tolist()) if i > 0 and n})
