"""A batch with what became of each of its pairs: what all tallies read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.bodies import UNPARSEABLE, parse, parse_all
from shadow_report.answers.comparer import OUTCOMES, Comparer, Marks
from shadow_report.answers.outcome import Outcome
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

    @property
    def faults(self) -> Bools:
        return np.asarray(self.usable & (self.outcomes >= Outcome.LENGTH))

    @property
    def disagreements(self) -> Bools:
        return np.asarray(
            self.compared & (self.outcomes >= Outcome.EXTRA) & (self.outcomes <= Outcome.NUMBER)
        )

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
class CallCounts:
    """Rows that are not classified, and why; and both sides' counts on the way."""

    in_flight: int = 0
    warm_up: int = 0
    different_requests: int = 0
    shadow_only: int = 0
    calls: dict[str, int] = field(default_factory=lambda: {"primary": 0, "shadow": 0})
    unanswered: dict[str, int] = field(default_factory=lambda: {"primary": 0, "shadow": 0})
    failed: dict[str, int] = field(default_factory=lambda: {"primary": 0, "shadow": 0})
    cut: dict[str, int] = field(default_factory=lambda: {"primary": 0, "shadow": 0})
    unparseable: dict[str, int] = field(default_factory=lambda: {"primary": 0, "shadow": 0})
    cut_pairs: int = 0


class Classifier:
    """Decides for each row whether it counts, and compares the answers of those that do."""

    def __init__(self, comparer: Comparer, clock: Clock) -> None:
        self._comparer = comparer
        self._clock = clock
        self.counts = CallCounts()

    def classify(self, batch: Batch) -> Classified:
        """What became of each pair of the batch."""
        status = {
            "primary": batch.integers("primary_status"),
            "shadow": batch.integers("shadow_status"),
        }
        times, flags = batch.integers("primary_time"), batch.integers("flags")
        counted = self._counted(batch, status, times)
        called = counted & (status["primary"] != NO_CALL)
        paired = called & (status["shadow"] != NO_CALL)
        usable = paired & (flags & SAME_REQUEST > 0)
        ok = {role: (codes >= 200) & (codes < 300) for role, codes in status.items()}
        cut = {"primary": flags & PRIMARY_CUT > 0, "shadow": flags & SHADOW_CUT > 0}
        self._count_sides(counted, status, ok, cut)
        self._count_pairs(counted & (status["primary"] == NO_CALL), paired, usable)
        both_ok = usable & ok["primary"] & ok["shadow"]
        uncut = ~cut["primary"] & ~cut["shadow"]
        self.counts.cut_pairs += int(np.count_nonzero(both_ok & ~uncut))

        outcomes = np.zeros(len(batch), dtype=np.int8)
        outcomes[usable & ok["primary"] & ~ok["shadow"]] = Outcome.FAILED
        outcomes[usable & ~ok["primary"] & ok["shadow"]] = Outcome.MENDED
        outcomes[usable & ~ok["primary"] & ~ok["shadow"]] = Outcome.BOTH_FAULTY
        whole = both_ok & uncut
        self._compare(batch, whole, outcomes)
        marks = self._comparer.flush()
        np.maximum.at(outcomes, marks.rows, (marks.codes % OUTCOMES).astype(np.int8))
        mended = usable & (outcomes == Outcome.MENDED)
        mended[marks.rows[marks.codes % OUTCOMES == Outcome.MENDED]] = True
        mended &= outcomes < Outcome.LENGTH
        return Classified(
            batch=batch,
            called=called,
            missing=called & ~usable,
            usable=usable,
            compared=whole & (outcomes < Outcome.LENGTH) & (outcomes != Outcome.BOTH_FAULTY),
            outcomes=outcomes,
            mended=mended,
            primary_times=times,
            primary_durations_ms=batch.floats("primary_duration_ms"),
            shadow_durations_ms=batch.floats("shadow_duration_ms"),
            marks=self._with_failures(marks, outcomes),
        )

    def _counted(
        self, batch: Batch, status: dict[str, NDArray[np.int64]], times: NDArray[np.int64]
    ) -> Bools:
        """Rows after the warm-up and not in flight."""
        shadow_times = batch.integers("shadow_time")
        newest = np.maximum(times, shadow_times)
        warm_up = newest < self._clock.counted_from
        complete = (status["primary"] > NO_ANSWER) & (status["shadow"] > NO_ANSWER)
        in_flight = ~complete & (newest >= self._clock.settled_before)
        self.counts.warm_up += int(np.count_nonzero(warm_up))
        self.counts.in_flight += int(np.count_nonzero(in_flight & ~warm_up))
        return np.asarray(~warm_up & ~in_flight)

    def _count_sides(
        self,
        counted: Bools,
        status: dict[str, NDArray[np.int64]],
        ok: dict[str, Bools],
        cut: dict[str, Bools],
    ) -> None:
        counts = self.counts
        for role, codes in status.items():
            here = counted & (codes != NO_CALL)
            counts.calls[role] += int(np.count_nonzero(here))
            counts.unanswered[role] += int(np.count_nonzero(here & (codes == NO_ANSWER)))
            counts.failed[role] += int(np.count_nonzero(here & ~ok[role]))
            counts.cut[role] += int(np.count_nonzero(here & cut[role]))

    def _count_pairs(self, shadow_only: Bools, paired: Bools, usable: Bools) -> None:
        self.counts.shadow_only += int(np.count_nonzero(shadow_only))
        self.counts.different_requests += int(np.count_nonzero(paired & ~usable))

    def _compare(self, batch: Batch, whole: Bools, outcomes: NDArray[np.int8]) -> None:
        rows, flags = np.flatnonzero(whole), batch.integers("flags")
        bodies, shadow_bodies = batch.bodies()
        are_json = (flags & PRIMARY_IS_JSON > 0) & (flags & SHADOW_IS_JSON > 0)
        # What Postgres holds as json parses for sure, and so all at once; the rest one by one.
        together = rows[are_json[rows]].tolist()
        one_by_one = rows[~are_json[rows]].tolist()
        primary = parse_all([bodies[row] for row in together], are_json=True)
        shadow = list(primary)
        # The same bytes say the same; comparing a value with itself only counts it.
        changed = [i for i, row in enumerate(together) if bodies[row] != shadow_bodies[row]]
        reparsed = parse_all([shadow_bodies[together[i]] for i in changed], are_json=True)
        for i, value in zip(changed, reparsed, strict=True):
            shadow[i] = value
        self._comparer.compare_all(primary, shadow, together)
        for row in one_by_one:
            self._compare_one(bodies[row], shadow_bodies[row], row, outcomes)

    def _compare_one(
        self, body: bytes | None, shadow_body: bytes | None, row: int, outcomes: NDArray[np.int8]
    ) -> None:
        primary, shadow = parse(body), parse(shadow_body)
        if primary is UNPARSEABLE or shadow is UNPARSEABLE:
            outcomes[row] = self._unparseable(
                primary is UNPARSEABLE, shadow is UNPARSEABLE, body == shadow_body
            )
        else:
            self._comparer.compare(primary, shadow, row)

    def _unparseable(self, primary: bool, shadow: bool, same: bool) -> Outcome:
        self.counts.unparseable["primary"] += primary
        self.counts.unparseable["shadow"] += shadow
        if primary and shadow:
            return Outcome.EQUAL if same else Outcome.TEXT
        return Outcome.UNPARSEABLE if shadow else Outcome.MENDED

    @staticmethod
    def _with_failures(marks: Marks, outcomes: NDArray[np.int8]) -> Marks:
        """The marks, and one at the root for each row whose answer as a whole is the fault."""
        whole = (outcomes >= Outcome.UNPARSEABLE) | (outcomes == Outcome.TEXT)
        rows = np.flatnonzero(whole)
        rows = rows[~np.isin(rows, marks.rows)]
        return Marks(
            np.concatenate([marks.rows, rows]),
            np.concatenate([marks.codes, outcomes[rows].astype(np.int64)]),
            np.concatenate([marks.sizes, np.zeros(rows.size)]),
        )
