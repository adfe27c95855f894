"""From a batch of rows to what became of each pair: what all counters read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.bodies import UNPARSEABLE, parse, parse_all
from shadow_report.answers.comparer import Comparer, Marks
from shadow_report.answers.outcome import (
    IS_DISAGREEMENT,
    IS_FAULT,
    OUTCOME_OF,
    Answer,
    Outcome,
)
from shadow_report.evidence.batch import (
    NO_ANSWER,
    NO_CALL,
    PRIMARY_CUT,
    PRIMARY_IS_JSON,
    SAME_REQUEST,
    SHADOW_CUT,
    SHADOW_IS_JSON,
    Batch,
)

Bools = NDArray[np.bool_]
Answers = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Classified:
    """Entry i of every array is row i of the batch.

    called: the primary was called (after the warm-up, not in flight).
    missing: it was, and there is no usable pair: no shadow call, or one with another request.
    usable: both sides took the same request; only these are classified.
    compared: both sides answered, whole and readable; only these can agree or disagree.
    """

    batch: Batch
    called: Bools
    missing: Bools
    usable: Bools
    compared: Bools
    outcomes: NDArray[np.int8]
    mended: Bools
    primary_times: NDArray[np.int64]
    primary_durations_ms: NDArray[np.float64]
    shadow_durations_ms: NDArray[np.float64]
    marks: Marks
    allowed: Bools
    """Differs only where a rule has a margin of its own, which then judges it."""
    by_margin: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]
    """By rule with a margin: the rows with a value where it holds, and those that differ there."""

    @property
    def faults(self) -> Bools:
        return np.asarray(self.usable & IS_FAULT[self.outcomes])

    @property
    def disagreements(self) -> Bools:
        return np.asarray(self.compared & IS_DISAGREEMENT[self.outcomes] & ~self.allowed)

    def slow(self, slo_ms: float) -> tuple[Bools, Bools]:
        """Which answers were slower than the SLO on the primary's and on the shadow's side."""
        with np.errstate(invalid="ignore"):
            return (
                np.asarray(self.usable & (self.primary_durations_ms > slo_ms)),
                np.asarray(self.usable & (self.shadow_durations_ms > slo_ms)),
            )


@dataclass(frozen=True, slots=True)
class Clock:
    """Microseconds since 2000-01-01 UTC, as Postgres counts."""

    counted_from: int
    """The end of the warm-up."""
    settled_before: int
    """Newer calls may still be under way to the tables."""


@dataclass(slots=True)
class SideCounts:
    """What one side did with its calls."""

    calls: int = 0
    unanswered: int = 0
    failed: int = 0
    cut: int = 0
    unparseable: int = 0


@dataclass(slots=True)
class CallCounts:
    """Rows that are not classified, and why; and both sides' counts on the way."""

    in_flight: int = 0
    warm_up: int = 0
    different_requests: int = 0
    shadow_only: int = 0
    cut_pairs: int = 0
    primary: SideCounts = field(default_factory=SideCounts)
    shadow: SideCounts = field(default_factory=SideCounts)


class Classifier:
    """Decides for each row whether it counts, and compares the answers of those that do."""

    def __init__(self, comparer: Comparer, clock: Clock) -> None:
        self._comparer = comparer
        self._clock = clock
        self.counts = CallCounts()

    def classify(self, batch: Batch) -> Classified:
        """What became of each pair of the batch."""
        flags, times = batch.integers("flags"), batch.integers("primary_time")
        primary = _answers(batch.integers("primary_status"), flags & PRIMARY_CUT > 0)
        shadow = _answers(batch.integers("shadow_status"), flags & SHADOW_CUT > 0)
        counted = self._counted(batch, primary, shadow)
        called = counted & (primary != Answer.NO_CALL)
        paired = called & (shadow != Answer.NO_CALL)
        usable = paired & (flags & SAME_REQUEST > 0)
        _count(self.counts.primary, primary[counted], flags[counted] & PRIMARY_CUT > 0)
        _count(self.counts.shadow, shadow[counted], flags[counted] & SHADOW_CUT > 0)
        self.counts.shadow_only += int(np.count_nonzero(counted & (primary == Answer.NO_CALL)))
        self.counts.different_requests += int(np.count_nonzero(paired & ~usable))
        both_sound = usable & (primary > Answer.FAILED) & (shadow > Answer.FAILED)
        whole = both_sound & (primary == Answer.VALUES) & (shadow == Answer.VALUES)
        self.counts.cut_pairs += int(np.count_nonzero(both_sound & ~whole))

        self._compare(batch, whole, primary, shadow)
        marks = self._comparer.flush()
        outcomes = np.where(usable, OUTCOME_OF[primary, shadow], np.int8(Outcome.EQUAL))
        own = self._comparer.own_margins(marks)
        judged = _gravest(outcomes, marks, own < 0)
        outcomes = _gravest(judged, marks, own >= 0)
        mended = usable & (outcomes == Outcome.MENDED)
        mended[marks.rows[marks.outcomes == Outcome.MENDED]] = True
        return Classified(
            batch=batch,
            called=called,
            missing=called & ~usable,
            usable=usable,
            compared=whole & ~IS_FAULT[outcomes],
            outcomes=outcomes,
            mended=mended & ~IS_FAULT[outcomes],
            primary_times=times,
            primary_durations_ms=batch.floats("primary_duration_ms"),
            shadow_durations_ms=batch.floats("shadow_duration_ms"),
            marks=_with_whole_answers(marks, outcomes),
            allowed=IS_DISAGREEMENT[outcomes] & ~IS_DISAGREEMENT[judged],
            by_margin=_by_margin(self._comparer.standing, marks, own),
        )

    def _counted(self, batch: Batch, primary: Answers, shadow: Answers) -> Bools:
        """Rows after the warm-up and not in flight."""
        newest = np.maximum(batch.integers("primary_time"), batch.integers("shadow_time"))
        warm_up = newest < self._clock.counted_from
        complete = (primary > Answer.NONE) & (shadow > Answer.NONE)
        in_flight = ~complete & (newest >= self._clock.settled_before)
        self.counts.warm_up += int(np.count_nonzero(warm_up))
        self.counts.in_flight += int(np.count_nonzero(in_flight & ~warm_up))
        return np.asarray(~warm_up & ~in_flight)

    def _compare(self, batch: Batch, whole: Bools, primary: Answers, shadow: Answers) -> None:
        """Hand the values to the comparer; where there are none, `primary` and `shadow` say so."""
        rows, flags = np.flatnonzero(whole), batch.integers("flags")
        bodies, shadow_bodies = batch.bodies()
        are_json = (flags & PRIMARY_IS_JSON > 0) & (flags & SHADOW_IS_JSON > 0)
        # What Postgres holds as json parses for sure, and so all at once; the rest one by one.
        together = rows[are_json[rows]].tolist()
        values = parse_all([bodies[row] for row in together], are_json=True)
        shadow_values = list(values)
        # The same bytes say the same; comparing a value with itself only counts it.
        changed = [i for i, row in enumerate(together) if bodies[row] != shadow_bodies[row]]
        reparsed = parse_all([shadow_bodies[together[i]] for i in changed], are_json=True)
        for i, value in zip(changed, reparsed, strict=True):
            shadow_values[i] = value
        self._comparer.compare_all(values, shadow_values, together)
        for row in rows[~are_json[rows]].tolist():
            one, other = parse(bodies[row]), parse(shadow_bodies[row])
            if one is not UNPARSEABLE and other is not UNPARSEABLE:
                self._comparer.compare(one, other, row)
                continue
            self.counts.primary.unparseable += one is UNPARSEABLE
            self.counts.shadow.unparseable += other is UNPARSEABLE
            if bodies[row] != shadow_bodies[row]:
                primary[row] = Answer.UNPARSEABLE if one is UNPARSEABLE else Answer.VALUES
                shadow[row] = Answer.UNPARSEABLE if other is UNPARSEABLE else Answer.VALUES


def _answers(status: NDArray[np.int64], cut: Bools) -> Answers:
    """One side's answers; VALUES stands for all that is whole, until it is parsed."""
    answers = np.full(status.size, Answer.FAILED, dtype=np.int8)
    sound = (status >= 200) & (status < 300)
    answers[sound] = np.where(cut[sound], np.int8(Answer.CUT), np.int8(Answer.VALUES))
    answers[status == NO_ANSWER] = Answer.NONE
    answers[status == NO_CALL] = Answer.NO_CALL
    return answers


def _count(counts: SideCounts, answers: Answers, cut: Bools) -> None:
    called = answers != Answer.NO_CALL
    counts.calls += int(np.count_nonzero(called))
    counts.unanswered += int(np.count_nonzero(answers == Answer.NONE))
    counts.failed += int(np.count_nonzero(called & (answers <= Answer.FAILED)))
    counts.cut += int(np.count_nonzero(called & cut))


def _gravest(outcomes: NDArray[np.int8], marks: Marks, counted: Bools) -> NDArray[np.int8]:
    """The outcomes of the rows with those of the marks that count."""
    gravest = outcomes.copy()
    np.maximum.at(gravest, marks.rows[counted], marks.outcomes[counted].astype(np.int8))
    return gravest


def _by_margin(
    standing: dict[int, NDArray[np.int64]], marks: Marks, own: NDArray[np.int64]
) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    differing = {
        rule: np.unique(marks.rows[own == rule]) for rule in np.unique(own[own >= 0]).tolist()
    }
    none = marks.rows[:0]
    found = {}
    for rule in standing.keys() | differing.keys():
        rows = differing.get(rule, none)
        found[rule] = np.union1d(standing.get(rule, none), rows), rows
    return found


def _with_whole_answers(marks: Marks, outcomes: NDArray[np.int8]) -> Marks:
    """The marks, and one at the root for each row whose answer as a whole is what differs."""
    rows = np.flatnonzero((outcomes >= Outcome.UNPARSEABLE) | (outcomes == Outcome.TEXT))
    rows = rows[~np.isin(rows, marks.rows)]
    return Marks(
        np.concatenate([marks.rows, rows]),
        np.concatenate([marks.codes, outcomes[rows].astype(np.int64)]),
        np.concatenate([marks.sizes, np.zeros(rows.size)]),
    )
