"""Numbers and labels at one path: compared a batch at a time, and counted in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.kinds import ROUNDED_SUM, Floats, Labels, Tolerance
from shadow_report.answers.outcome import Outcome
from shadow_report.statistics.samples import Moments, PairMoments, Sketch

# More classes than this are names or sentences, not labels; a confusion matrix would say nothing.
MAX_CLASSES = 50
MAX_LABEL_LENGTH = 60

Label = str | bool | int | float
Number = int | float
Outcomes = NDArray[np.int8]


class LabelTally:
    """Counts pairs of labels in bounded memory, until there are too many classes to be labels."""

    def __init__(self) -> None:
        self.values = 0
        self.agreeing = 0
        self.counts: Counter[tuple[Label, Label]] = Counter()
        self.is_text = False

    def add(self, primary: Iterable[Label], shadow: Iterable[Label]) -> None:
        """Count values that stand at the same place on both sides."""
        fresh = Counter(zip(primary, shadow, strict=True))
        for pair, count in fresh.items():
            self.values += count
            if pair[0] == pair[1]:
                self.agreeing += count
        if self.is_text or not fresh:
            return
        self.counts.update(fresh)
        classes = {label for pair in self.counts for label in pair}
        if len(classes) > MAX_CLASSES or any(
            isinstance(label, str) and len(label) > MAX_LABEL_LENGTH for label in classes
        ):
            self.is_text = True
            self.counts.clear()


class SimilarityTally:
    """How alike texts or lists are: 1 for equal ones, at least -1; bounded memory."""

    def __init__(self) -> None:
        self.values = self.below = 0
        self.sum = 0.0
        self.distances = Sketch()
        """Of 1 - similarity: nearly all are close to 1, where the difference to it tells."""

    def add(self, similarities: Floats, below: int) -> None:
        """Count a batch, so many of which are less than the rule asks for."""
        self.values += similarities.size
        self.below += below
        self.sum += float(similarities.sum())
        self.distances.add(1 - similarities)


# Squares of larger values overflow; they are compared, and left out of the description.
LARGEST_DESCRIBED = 1e150
# Looking at the first values tells nearly always that numbers are not class numbers.
FIRST_VALUES = 1000


class NumberTally:
    """Running figures in bounded memory; they describe and never decide."""

    def __init__(self, rule: Tolerance) -> None:
        self._rule = rule
        self.values = 0
        self.agreeing = 0
        self.pairs = PairMoments()
        self.differences = Moments()
        self.absolute_sum = 0.0
        self.largest = 0.0
        self.signed, self.primary, self.shadow = (Sketch() for _ in range(3))
        self.by_pair = Sketch()
        """The largest difference of each pair, without its sign."""
        self.classes: LabelTally | None = LabelTally()
        """While all values are few whole numbers: which became which."""
        self.top_classes: LabelTally | None = LabelTally()
        """While all lists are distributions over classes: which class was on top."""

    def add(
        self,
        p: NDArray[np.float64],
        s: NDArray[np.float64],
        starts: NDArray[np.int64],
        rows: NDArray[np.int64],
        outcomes: NDArray[np.int8],
    ) -> None:
        """Count a batch; segments (lists) begin at `starts`, and are of the pairs `rows`."""
        self.values += p.size
        self.agreeing += int(np.count_nonzero(outcomes <= Outcome.WITHIN_TOLERANCE))
        self._add_top_classes(p, s, starts)
        # NaN compares false, so it is left out here too.
        usable = np.maximum(np.abs(p), np.abs(s)) < LARGEST_DESCRIBED
        row_of_value = np.repeat(rows, np.diff(starts, append=p.size))
        if not usable.all():
            p, s, row_of_value = p[usable], s[usable], row_of_value[usable]
        if not p.size:
            return
        difference = self._rule.difference(p, s)
        absolute = np.abs(difference)
        self.pairs = self.pairs.merge(PairMoments.of(p, s))
        self.differences = self.differences.merge(Moments.of(difference))
        self.absolute_sum += float(absolute.sum())
        self.largest = max(self.largest, float(absolute.max()))
        by_row = np.full(int(row_of_value.max()) + 1, -1.0)
        np.maximum.at(by_row, row_of_value, absolute)
        self.by_pair.add(by_row[by_row >= 0])
        self.signed.add(difference)
        self.primary.add(p)
        self.shadow.add(s)

    def add_classes(
        self, primary: Sequence[int | float], shadow: Sequence[int | float], *, are_labels: bool
    ) -> None:
        """Count the batch as class numbers, until a value shows that they are not, or always when
        a rule says that they are.
        """
        if self.classes is None:
            return
        if are_labels:
            self.classes.add(primary, shadow)
            return
        head = {*primary[:FIRST_VALUES], *shadow[:FIRST_VALUES]}
        if (
            len(head) > MAX_CLASSES
            or {*map(type, head)} != {int}
            or {*map(type, primary), *map(type, shadow)} != {int}
        ):
            self.classes = None
            return
        self.classes.add(primary, shadow)
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
            or not (np.abs(table.sum(axis=1) - 1) <= ROUNDED_SUM).all()
        ):
            self.top_classes = None
            return
        tops = table.argmax(axis=1), s.reshape(-1, length).argmax(axis=1)
        self.top_classes.add(tops[0].tolist(), tops[1].tolist())


# From here on floats skip whole numbers, so both sides are compared as Python's exact ones.
FIRST_INEXACT = 2.0**53
# Stands for whole numbers past 1e308: they are finite, and the exact comparison decides.
HUGE = 1.7e308


@dataclass(frozen=True, slots=True)
class NumberMarks:
    """What a batch showed: for each segment its row, its gravest outcome and its largest size."""

    rows: NDArray[np.int64]
    outcomes: Outcomes
    sizes: Floats
    values: Counter[Outcome]


@dataclass(frozen=True, slots=True)
class Segments:
    """The batch's numbers end to end; segment i begins at `starts[i]` and belongs to `rows[i]`."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    exact_primary: list[Number]
    exact_shadow: list[Number]
    primary: Floats
    shadow: Floats


class NumberColumn:
    """The numbers of one path: a segment for each list or single value of the current batch."""

    def __init__(self, rule: Tolerance | Labels) -> None:
        self._are_labels = isinstance(rule, Labels)
        self._tolerance = rule if isinstance(rule, Tolerance) else Tolerance()
        self.tally = NumberTally(self._tolerance)
        self._chunks: list[
            tuple[list[Number], list[Number], NDArray[np.int64], NDArray[np.int64]]
        ] = []

    def add(
        self,
        primary: list[Number],
        shadow: list[Number],
        rows: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> None:
        """Put numbers side by side: segment i has `lengths[i]` > 0 of them and is of `rows[i]`."""
        self._chunks.append((primary, shadow, rows, lengths))

    def flush(self) -> NumberMarks | None:
        """Compare what was gathered since the last flush; None when that is nothing."""
        if not self._chunks:
            return None
        segments = self._segments()
        outcomes, sizes = _compare(segments, self._tolerance)
        self.tally.add(segments.primary, segments.shadow, segments.starts, segments.rows, outcomes)
        self.tally.add_classes(
            segments.exact_primary, segments.exact_shadow, are_labels=self._are_labels
        )
        by_segment = np.maximum.reduceat(outcomes, segments.starts)
        _find_reordered(segments, by_segment)
        if self._are_labels:
            for found in (outcomes, by_segment):
                found[found == Outcome.NUMBER] = Outcome.LABEL
        return NumberMarks(
            rows=segments.rows,
            outcomes=by_segment,
            sizes=np.maximum.reduceat(sizes, segments.starts),
            values=_counts(outcomes),
        )

    def _segments(self) -> Segments:
        """What was gathered, and an empty column again."""
        chunks, self._chunks = self._chunks, []
        primaries, shadows, rows, lengths = zip(*chunks, strict=True)
        primary, shadow = list(chain.from_iterable(primaries)), list(chain.from_iterable(shadows))
        sizes = np.concatenate(lengths)
        return Segments(
            rows=np.concatenate(rows),
            starts=np.cumsum(sizes) - sizes,
            exact_primary=primary,
            exact_shadow=shadow,
            primary=_floats(primary),
            shadow=_floats(shadow),
        )


def _compare(segments: Segments, tolerance: Tolerance) -> tuple[Outcomes, Floats]:
    """The outcome of each value, and how large its difference is to the tolerance."""
    p, s = segments.primary, segments.shadow
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(tolerance.difference(p, s))
        larger = np.maximum(np.abs(p), np.abs(s))
        within = difference <= tolerance.allowed(larger)
        sizes = tolerance.sizes(difference, larger)
    outcomes = np.where(within, np.int8(Outcome.WITHIN_TOLERANCE), np.int8(Outcome.NUMBER))
    outcomes[p == s] = Outcome.EQUAL
    _compare_exactly(segments, outcomes)
    finite_p, finite_s = np.isfinite(p), np.isfinite(s)
    if not (finite_p.all() and finite_s.all()):
        same = (p == s) | (np.isnan(p) & np.isnan(s))
        outcomes[finite_p & ~finite_s] = Outcome.NON_FINITE
        outcomes[~finite_p & finite_s] = Outcome.APPEARED
        outcomes[~finite_p & ~finite_s & same] = Outcome.EQUAL
        outcomes[~finite_p & ~finite_s & ~same] = Outcome.NUMBER
        sizes[~(finite_p & finite_s)] = 0.0
    return outcomes, sizes


def _compare_exactly(segments: Segments, outcomes: Outcomes) -> None:
    """Whole numbers that floats cannot tell apart are identifiers: equal or not."""
    both_large = np.minimum(np.abs(segments.primary), np.abs(segments.shadow)) >= FIRST_INEXACT
    for i in np.flatnonzero(both_large).tolist():
        p, s = segments.exact_primary[i], segments.exact_shadow[i]
        if type(p) is int and type(s) is int:
            outcomes[i] = Outcome.EQUAL if p == s else Outcome.NUMBER


def _find_reordered(segments: Segments, by_segment: Outcomes) -> None:
    """Turn NUMBER into ORDER where a list holds the same numbers in another order."""
    p, s, starts = segments.primary, segments.shadow, segments.starts
    lengths = np.diff(starts, append=p.size)
    differing = (by_segment == Outcome.NUMBER) & (lengths > 1)
    if not differing.any():
        return
    with np.errstate(invalid="ignore", over="ignore"):
        sums_p, sums_s = np.add.reduceat(p, starts), np.add.reduceat(s, starts)
        # The same numbers have sums that differ by rounding only: a cheap first sieve, which those
        # whose sums are beyond all floats pass.
        far = np.abs(sums_p - sums_s) > 1e-9 * np.add.reduceat(np.abs(p), starts)
    finite = np.logical_and.reduceat(np.isfinite(p), starts)
    for i in np.flatnonzero(differing & finite & ~far).tolist():
        part = slice(int(starts[i]), int(starts[i] + lengths[i]))
        if sorted(segments.exact_primary[part]) == sorted(segments.exact_shadow[part]):
            by_segment[i] = Outcome.ORDER


def _floats(values: list[Number]) -> Floats:
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:
        return np.array([nearest_float(value) for value in values])


def nearest_float(value: Number) -> float:
    """The float nearest to a number; finite whenever the number is."""
    try:
        return float(value)
    except OverflowError:
        return HUGE if value > 0 else -HUGE


def is_finite(value: Number) -> bool:
    """Whether it is a number of any size, and not NaN or infinite."""
    return type(value) is int or math.isfinite(value)


def _counts(outcomes: Outcomes) -> Counter[Outcome]:
    if not outcomes.any():
        return Counter()
    counts = np.bincount(outcomes)
    return Counter({Outcome(i): int(n) for i, n in enumerate(counts.tolist()) if i > 0 and n})
