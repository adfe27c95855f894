"""From a batch of rows to what became of each pair: what all counters read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.bodies import UNPARSEABLE, parse, parse_all
from shadow_report.answers.comparer import Comparer, Marks, Seen
from shadow_report.answers.outcome import (
    ARE_COMPARED,
    IS_DISAGREEMENT,
    IS_FAULT,
    OUTCOME_OF,
    Answer,
    Outcome,
)
from shadow_report.answers.paths import Rules
from shadow_report.evidence.batch import (
    CUT_REQUEST,
    NO_ANSWER,
    NO_CALL,
    PRIMARY_BROKEN,
    PRIMARY_CUT,
    PRIMARY_IS_JSON,
    PRIMARY_LEFT,
    PRIMARY_MIRRORED,
    REDACTED_REQUEST,
    SAME_REQUEST,
    SHADOW_BROKEN,
    SHADOW_CUT,
    SHADOW_IS_JSON,
    SHADOW_LEFT,
    SHADOW_MIRRORED,
    UNMIRRORED,
    Batch,
)

Bools = NDArray[np.bool_]
Answers = NDArray[np.int8]

# What KServe and Envoy record when the caller went away.
ABANDONED_STATUS = 499


@dataclass(frozen=True, slots=True)
class Classified:
    """Entry i of every array is row i of the batch.

    called: the primary was called (after the warm-up, not in flight).
    settled: old enough to have all of its rows by now.
    missing: it was, and there is no usable pair: no shadow call, or one with another request.
    unsent: of those missing, the ones that the gateway does not mirror by its own rules.
    usable: both sides took the same request; only these are pairs.
    compared: both sides gave an answer that can agree or disagree, and the shadow's has no fault.
    unknown: the primary answered, and nobody can know whether the shadow's answer is the same.
    """

    batch: Batch
    called: Bools
    settled: Bools
    missing: Bools
    unsent: Bools
    usable: Bools
    compared: Bools
    unknown: Bools
    answers: tuple[Answers, Answers]
    """The primary's and the shadow's."""
    outcomes: NDArray[np.int8]
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
        return np.asarray(self.usable & IS_DISAGREEMENT[self.outcomes] & ~self.allowed)

    @property
    def errors_alike(self) -> Bools:
        """Equal to the caller, without an answer of the models that could agree."""
        is_equal = self.outcomes <= Outcome.WITHIN_TOLERANCE
        return np.asarray(self.usable & ~self.compared & is_equal)

    @property
    def unanswered(self) -> Bools:
        """Missing, and nothing in the rows says why: the shadow may have failed them."""
        return np.asarray(self.missing & ~self.unsent)

    @property
    def primary_times(self) -> NDArray[np.int64]:
        return self.batch.integers("primary_time")

    @property
    def primary_durations_ms(self) -> NDArray[np.float64]:
        return self.batch.floats("primary_duration_ms")

    @property
    def shadow_durations_ms(self) -> NDArray[np.float64]:
        return self.batch.floats("shadow_duration_ms")

    def slow(self, slo_ms: float) -> tuple[Bools, Bools]:
        """Which answers were slower than the SLO on the primary's and on the shadow's side."""
        with np.errstate(invalid="ignore"):
            return (
                np.asarray(self.usable & (self.primary_durations_ms > slo_ms)),
                np.asarray(self.usable & (self.shadow_durations_ms > slo_ms)),
            )

    def first_tokens_ms(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How long the first token took on the primary's and on the shadow's side; NaN where the
        answer was not streamed.
        """
        rows, figures = self.batch.generated()
        primary, shadow = np.full((2, len(self.batch)), np.nan)
        primary[rows], shadow[rows] = figures["primary_ttft_ms"], figures["shadow_ttft_ms"]
        return primary, shadow


@dataclass(frozen=True, slots=True)
class Clock:
    """Microseconds since 2000-01-01 UTC, as Postgres counts."""

    counted_from: int
    """The end of the warm-up."""
    settled_before: int
    """Newer calls may still be under way to the tables."""


ANY_TIME = Clock(counted_from=-(2**63), settled_before=2**63 - 1)


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
    """Rows that are not classified, and why; and both sides' counts on the way.

    shadow_only: shadow calls without their primary; `mirrored_only` of them came through the
    mirror, so that there was a primary call, the first and the last at those times. withheld_*:
    primary calls that a follower did not send, since their stored bodies are not what the callers
    sent.
    """

    in_flight: int = 0
    warm_up: int = 0
    different_requests: int = 0
    shadow_only: int = 0
    mirrored_only: int = 0
    mirrored_only_times: tuple[int, int] | None = None
    cut_pairs: int = 0
    abandoned: int = 0
    shadow_left: int = 0
    retried: int = 0
    unmirrored_bodies: int = 0
    past_entry: int = 0
    withheld_cut: int = 0
    withheld_redacted: int = 0
    primary: SideCounts = field(default_factory=SideCounts)
    shadow: SideCounts = field(default_factory=SideCounts)


class Classifier:
    """Decides for each row whether it counts, and compares the answers of those that do.

    `retries` has, by the hash of a pair id, the gravest outcome of the shadow's further calls with
    that id; a pair is as bad as its worst call. `is_mirrored`: the entry copied the calls to the
    shadow; else a replay or a follower sent them, from the tables.
    """

    def __init__(
        self,
        comparer: Comparer,
        rules: Rules,
        clock: Clock,
        *,
        is_mirrored: bool = True,
    ) -> None:
        self._comparer = comparer
        # Bodies of errors are compared by the same rules, and are in no figure of the answers.
        self._errors = Comparer(rules)
        self.clock = clock
        self.retries: Mapping[int, Outcome] = {}
        self._is_mirrored = is_mirrored
        self.counts = CallCounts()

    @property
    def seen(self) -> Seen:
        """What there was in all answers so far, those that are errors among them."""
        return self._comparer.seen | self._errors.seen

    def classify(self, batch: Batch) -> Classified:
        """What became of each pair of the batch."""
        flags = batch.integers("flags")
        ends = flags & PRIMARY_CUT, flags & PRIMARY_BROKEN, flags & PRIMARY_LEFT
        primary = _answers(batch.integers("primary_status"), *ends)
        ends = flags & SHADOW_CUT, flags & SHADOW_BROKEN, flags & SHADOW_LEFT
        shadow = _answers(batch.integers("shadow_status"), *ends)
        counted = self._counted(batch, primary, shadow)
        called = counted & (primary != Answer.NO_CALL)
        paired = called & (shadow != Answer.NO_CALL)
        usable = paired & (flags & SAME_REQUEST > 0)
        self._count_sides(batch, primary, shadow, counted)
        self.counts.different_requests += int(np.count_nonzero(paired & ~usable))

        self._compare(batch, usable, primary, shadow)
        marks = self._comparer.flush()
        outcomes = np.where(usable, OUTCOME_OF[primary, shadow], np.int8(Outcome.EQUAL))
        self._compare_errors(batch, usable & (primary == shadow), primary, outcomes)
        own = self._comparer.own_margins(marks)
        judged = _gravest(outcomes, marks, own < 0)
        self._apply_retries(batch, usable, judged)
        outcomes = _gravest(judged, marks, own >= 0)
        uncompared = usable & (outcomes == Outcome.NOT_COMPARED)
        # Nobody waited for one of the answers, or the primary never gave one.
        waited = ~_NOT_AWAITED[primary] & (shadow != Answer.LEFT)
        self.counts.cut_pairs += int(np.count_nonzero(uncompared & waited))
        self.counts.abandoned += int(np.count_nonzero(uncompared & ~waited))
        self.counts.shadow_left += int(
            np.count_nonzero(uncompared & ~_NOT_AWAITED[primary] & (shadow == Answer.LEFT))
        )
        return Classified(
            batch=batch,
            called=called,
            settled=np.asarray(self._newest(batch) < self.clock.settled_before),
            missing=called & ~usable,
            unsent=self._never_sent(called & ~usable, flags),
            usable=usable,
            compared=usable & _can_agree(outcomes, primary),
            unknown=uncompared & waited,
            answers=(primary, shadow),
            outcomes=outcomes,
            marks=_with_whole_answers(marks, outcomes),
            allowed=IS_DISAGREEMENT[outcomes] & ~IS_DISAGREEMENT[judged],
            by_margin=_by_margin(self._comparer.standing, marks, own),
        )

    def _counted(self, batch: Batch, primary: Answers, shadow: Answers) -> Bools:
        """Rows after the warm-up and not in flight."""
        newest = self._newest(batch)
        warm_up = newest < self.clock.counted_from
        complete = (primary > Answer.NO_ANSWER) & (shadow > Answer.NO_ANSWER)
        in_flight = ~complete & (newest >= self.clock.settled_before)
        self.counts.warm_up += int(np.count_nonzero(warm_up))
        self.counts.in_flight += int(np.count_nonzero(in_flight & ~warm_up))
        return np.asarray(~warm_up & ~in_flight)

    @staticmethod
    def _newest(batch: Batch) -> NDArray[np.int64]:
        return np.maximum(batch.integers("primary_time"), batch.integers("shadow_time"))

    def _count_sides(self, batch: Batch, primary: Answers, shadow: Answers, counted: Bools) -> None:
        flags = batch.integers("flags")
        _count(self.counts.primary, primary[counted], flags[counted] & PRIMARY_CUT > 0)
        _count(self.counts.shadow, shadow[counted], flags[counted] & SHADOW_CUT > 0)
        alone = counted & (primary == Answer.NO_CALL)
        self.counts.shadow_only += int(np.count_nonzero(alone))
        copied = alone & self._is_mirrored & (flags & SHADOW_MIRRORED > 0)
        if (times := batch.integers("shadow_time")[copied]).size:
            self.counts.mirrored_only += times.size
            ends = *(self.counts.mirrored_only_times or ()), int(times.min()), int(times.max())
            self.counts.mirrored_only_times = min(ends), max(ends)

    def _never_sent(self, missing: Bools, flags: NDArray[np.int64]) -> Bools:
        """Missing calls that the sender leaves out by its own rules: no failure of the shadow."""
        if self._is_mirrored:
            past = missing & (flags & PRIMARY_MIRRORED == 0)
            bodies = missing & ~past & (flags & UNMIRRORED > 0)
            self.counts.past_entry += int(np.count_nonzero(past))
            self.counts.unmirrored_bodies += int(np.count_nonzero(bodies))
            return np.asarray(past | bodies)
        cut, redacted = (missing & (flags & why > 0) for why in (CUT_REQUEST, REDACTED_REQUEST))
        self.counts.withheld_cut += int(np.count_nonzero(cut))
        self.counts.withheld_redacted += int(np.count_nonzero(redacted))
        return np.asarray(cut | redacted)

    def _compare(self, batch: Batch, usable: Bools, primary: Answers, shadow: Answers) -> None:
        """Hand the values to the comparer; where there are none, `primary` and `shadow` say so."""
        whole = usable & (primary == Answer.VALUES) & (shadow == Answer.VALUES)
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

    def _compare_errors(
        self, batch: Batch, alike: Bools, answers: Answers, outcomes: NDArray[np.int8]
    ) -> None:
        """Where both answers are of one class: another status, or another body of an error."""
        statuses, flags = batch.integers("primary_status"), batch.integers("flags")
        other_status = alike & (statuses != batch.integers("shadow_status"))
        outcomes[other_status] = np.maximum(outcomes[other_status], np.int8(Outcome.STATUS))
        errors = alike & ~other_status & ARE_COMPARED[answers, answers] & (answers < Answer.CUT)
        rows = np.flatnonzero(errors).tolist()
        if not rows:
            return
        bodies, shadow_bodies = batch.bodies()
        for row in rows:
            if flags[row] & (PRIMARY_CUT | SHADOW_CUT):
                outcomes[row] = Outcome.NOT_COMPARED
                continue
            one, other = parse(bodies[row]), parse(shadow_bodies[row])
            if UNPARSEABLE not in (one, other):
                # The same ones too: a rule may name what they say.
                self._errors.compare(one, other, row)
            elif bodies[row] != shadow_bodies[row]:
                outcomes[row] = Outcome.OTHER_ERROR
        marks = self._errors.flush()
        outcomes[marks.rows[marks.outcomes >= Outcome.APPEARED]] = Outcome.OTHER_ERROR

    def _apply_retries(self, batch: Batch, usable: Bools, outcomes: NDArray[np.int8]) -> None:
        if not self.retries:
            return
        for row in np.flatnonzero(usable).tolist():
            worst = self.retries.get(int(batch.scalars["pair_hash"][row]), Outcome.EQUAL)
            if worst > outcomes[row]:
                outcomes[row] = worst
                self.counts.retried += 1


_NOT_AWAITED = np.isin(list(Answer), [Answer.ABANDONED, Answer.LEFT, Answer.NO_ANSWER])
_ERRORS = np.isin(
    list(Answer), [Answer.SERVER_ERROR, Answer.CLIENT_ERROR, Answer.BROKEN, Answer.NO_ANSWER]
)
"""By answer, for whole arrays of them."""


def _answers(
    status: NDArray[np.int64],
    cut: NDArray[np.int64],
    broken: NDArray[np.int64],
    left: NDArray[np.int64],
) -> Answers:
    """One side's answers; VALUES stands for all that is whole, until it is parsed.

    cut, broken, left: not zero where the body is stored cut, and where a stream ended so.
    """
    answers = np.full(status.size, Answer.SERVER_ERROR, dtype=np.int8)
    sound = (status >= 200) & (status < 300)
    answers[sound] = Answer.VALUES
    for answer, found in ((Answer.CUT, cut), (Answer.LEFT, left), (Answer.BROKEN, broken)):
        if found.any():
            answers[sound & (found > 0)] = answer
    answers[(status >= 300) & (status < 400)] = Answer.REDIRECT
    answers[(status >= 400) & (status < 500)] = Answer.CLIENT_ERROR
    answers[status == ABANDONED_STATUS] = Answer.ABANDONED
    answers[status == NO_ANSWER] = Answer.NO_ANSWER
    answers[status == NO_CALL] = Answer.NO_CALL
    return answers


def _can_agree(outcomes: NDArray[np.int8], primary: Answers) -> Bools:
    """Pairs that are evidence of agreement or of disagreement.

    That both sides fail or refuse alike is equal to the caller, and says nothing of the models'
    answers.
    """
    agrees = (outcomes <= Outcome.WITHIN_TOLERANCE) & ~_ERRORS[primary]
    return np.asarray(agrees | IS_DISAGREEMENT[outcomes])


def _count(counts: SideCounts, answers: Answers, cut: Bools) -> None:
    called = answers != Answer.NO_CALL
    counts.calls += int(np.count_nonzero(called))
    counts.unanswered += int(np.count_nonzero(answers == Answer.NO_ANSWER))
    counts.failed += int(np.count_nonzero(called & (answers < Answer.CUT)))
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
    differs = (outcomes >= Outcome.APPEARED) & (outcomes < Outcome.NO_CALL)
    marked = np.zeros(outcomes.size, dtype=bool)
    marked[marks.rows[marks.outcomes == outcomes[marks.rows]]] = True
    rows = np.flatnonzero(differs & ~marked)
    return Marks(
        np.concatenate([marks.rows, rows]),
        np.concatenate([marks.codes, outcomes[rows].astype(np.int64)]),
        np.concatenate([marks.sizes, np.zeros(rows.size)]),
    )
