"""Pairs by outcome, status, path and margin, and how the calls without a pair differ from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.kinds import Tolerance
from shadow_report.answers.outcome import Answer, Outcome
from shadow_report.answers.paths import Rules
from shadow_report.counting.classify import Classified
from shadow_report.counting.timeline import PAIRED, UNANSWERED, Timeline
from shadow_report.evidence.batch import NO_ANSWER
from shadow_report.report import MissingContrast, PairedTable, PathMargin, StatusPair
from shadow_report.statistics.agreement import kolmogorov_smirnov_p, same_shares_p
from shadow_report.statistics.samples import PairSample, Sketch, distance
from shadow_report.wording import about, instant, percent

STATUSES_SHOWN = 50
NEARLY_ALL = 0.9


class Ledger:
    """The pairs by what became of them."""

    def __init__(self) -> None:
        self.pairs = self.missing = self.compared = 0
        self.new_faults = self.disagreements = self.unanswered = self.errors_alike = 0
        self.forgiven = 0
        self._refusals: dict[int, tuple[int, str]] = {}
        """By status that both sides refused with, the least hash of a pair's id, and that id: the
        same in whatever order they come."""
        self.outcomes: Counter[Outcome] = Counter()
        self.statuses: Counter[tuple[int, int]] = Counter()
        self._failed: Counter[tuple[bool, bool]] = Counter()
        self.differing: Counter[int] = Counter()
        self.first_pair: int | None = None
        self.last_pair: int | None = None
        self._skew = PairSample(capacity=20_000)

    def add(self, classified: Classified) -> None:
        usable = classified.usable
        self.missing += int(np.count_nonzero(classified.missing))
        self.unanswered += int(np.count_nonzero(classified.unanswered))
        if not usable.any():
            return
        self.pairs += int(np.count_nonzero(usable))
        self.compared += int(np.count_nonzero(classified.compared))
        self.errors_alike += int(np.count_nonzero(classified.errors_alike))
        self.new_faults += int(np.count_nonzero(classified.faults))
        self.disagreements += int(np.count_nonzero(classified.disagreements))
        self.forgiven += int(np.count_nonzero(classified.usable & classified.allowed))
        for outcome, count in enumerate(np.bincount(classified.outcomes[usable]).tolist()):
            if count:
                self.outcomes[Outcome(outcome)] += count
        self._count_statuses(classified)
        self._count_paths(classified)
        self._note_refusals(classified)
        times = classified.primary_times[usable]
        first, last = int(times.min()), int(times.max())
        self.first_pair = first if self.first_pair is None else min(self.first_pair, first)
        self.last_pair = last if self.last_pair is None else max(self.last_pair, last)
        batch = classified.batch
        self._skew.add(
            times, batch.integers("shadow_time")[usable], batch.integers("pair_hash")[usable]
        )

    def _count_statuses(self, classified: Classified) -> None:
        primary, shadow = (
            classified.batch.integers(f"{role}_status")[classified.usable]
            for role in ("primary", "shadow")
        )
        found, counts = np.unique(primary << 32 | shadow, return_counts=True)
        for both, count in zip(found.tolist(), counts.tolist(), strict=True):
            self.statuses[both >> 32, both & 0xFFFFFFFF] += count
        p, s = ((side < Answer.CUT)[classified.usable] for side in classified.answers)
        for both, found in (
            ((False, False), ~p & ~s),
            ((False, True), ~p & s),
            ((True, False), p & ~s),
            ((True, True), p & s),
        ):
            self._failed[both] += int(np.count_nonzero(found))

    def _note_refusals(self, classified: Classified) -> None:
        batch = classified.batch
        primary, shadow = (batch.integers(f"{role}_status") for role in ("primary", "shadow"))
        alike = classified.usable & (primary == shadow) & (primary >= 400) & (primary < 500)
        hashes = batch.integers("pair_hash")
        for status in np.unique(primary[alike]).tolist():
            rows = np.flatnonzero(alike & (primary == status))
            row = int(rows[np.argmin(hashes[rows])])
            least = int(hashes[row]), batch.pair_id(row)
            self._refusals[status] = min(self._refusals.get(status, least), least)

    def refused_alike(self) -> tuple[int, int, str] | None:
        """The status that both sides answer nearly all calls with, if it is a 4xx; how many those
        are, and the id of one of them.
        """
        for status, (_, pair_id) in self._refusals.items():
            pairs = self.statuses[status, status]
            if pairs >= NEARLY_ALL * self.pairs:
                return status, pairs, pair_id
        return None

    def _count_paths(self, classified: Classified) -> None:
        marks = classified.marks
        telling = marks.outcomes >= Outcome.APPEARED
        if not telling.any():
            return
        places = marks.places[telling]
        # A place counts once per row, whatever differs there.
        once = np.unique(marks.rows[telling] << 32 | places) & 0xFFFFFFFF
        for place, count in enumerate(np.bincount(once).tolist()):
            self.differing[place] += count

    @property
    def clock_skew_ms(self) -> float | None:
        """Median of the shadow's request time minus the primary's."""
        if not self._skew.seen:
            return None
        return float(np.median(self._skew.shadow - self._skew.primary)) / 1000

    def errors(self) -> PairedTable:
        """The 2x2 table of failed answers."""
        table = self._failed
        return PairedTable(
            neither=table[False, False],
            shadow_only=table[False, True],
            primary_only=table[True, False],
            both=table[True, True],
        )

    def status_pairs(self) -> tuple[StatusPair, ...]:
        """The most frequent status pairs first."""
        ranked = sorted(self.statuses.items(), key=lambda item: (-item[1], item[0]))
        return tuple(
            StatusPair(_status(primary), _status(shadow), count)
            for (primary, shadow), count in ranked[:STATUSES_SHOWN]
        )


def _status(code: int) -> int | None:
    return None if code == NO_ANSWER else code


# With fewer missing calls every contrast is chance.
MIN_MISSING = 10
UNLIKE_BELOW = 0.001


# So many ids tell a share that is left out by the id from what is missing by chance, and so seldom
# would chance look like it: what is said then leaves every other cause out.
IDS_LOOKED_AT = 1_000
SAMPLED_BELOW = 1e-6


class MissingTally:
    """Size, status, time and id of primary calls with and without a pair."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._sizes = {True: Sketch(), False: Sketch()}
        self._statuses: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
        self._places: dict[bool, list[float]] = {True: [], False: []}
        self.missing = 0

    def add(self, classified: Classified) -> None:
        sizes = classified.batch.floats("request_size")
        statuses = classified.batch.integers("primary_status")
        self.missing += int(np.count_nonzero(classified.missing))
        # Why the others have none is known, and is told by itself.
        for is_missing, rows in ((True, classified.unanswered), (False, classified.usable)):
            self._sizes[is_missing].add(sizes[rows])
            self._statuses[is_missing].update(_counter(statuses[rows]))
            places = self._places[is_missing]
            more = np.flatnonzero(rows)[: IDS_LOOKED_AT - len(places)].tolist()
            places += [_place_of(classified.batch.pair_id(row)) for row in more]

    def report(self) -> tuple[MissingContrast, ...]:
        """One contrast per respect; none while too few calls are missing."""
        if self._sizes[True].total < MIN_MISSING or not self._sizes[False].total:
            return ()
        return (
            self._size_contrast(),
            _contrast("status", self._statuses[True], self._statuses[False], _of_status),
            _contrast(
                "time",
                self._timeline.by_step(UNANSWERED),
                self._timeline.by_step(PAIRED),
                self._of_step,
            ),
            *self._id_contrast(),
        )

    def _of_step(self, step: int) -> tuple[str, str]:
        start, end = (instant(time) for time in self._timeline.ends(step))
        return f"from {start.removesuffix(' UTC')} to {end}", "in that time"

    def _id_contrast(self) -> Iterator[MissingContrast]:
        """Whether the calls that are missing are those whose ids a RECORD_SAMPLE leaves out."""
        missing, paired = self._places[True], self._places[False]
        if len(missing) < MIN_MISSING or not paired:
            return
        share = min(missing)
        kept = sum(place < share for place in paired) / len(paired)
        chance = (1 - share) ** len(missing)
        yield MissingContrast(
            respect="id",
            missing=f"none that a RECORD_SAMPLE of {share:.2g} keeps",
            paired=f"{percent(kept)} that it keeps",
            distance=kept,
            p_value=chance,
            unlike=chance < SAMPLED_BELOW,
        )

    def _size_contrast(self) -> MissingContrast:
        missing, paired = self._sizes[True], self._sizes[False]
        gap = distance(missing, paired)
        p_value = kolmogorov_smirnov_p(gap, missing.total, paired.total)
        medians = missing.quantile(0.5), paired.quantile(0.5)
        return MissingContrast(
            respect="request size",
            missing=f"median {about(medians[0])} bytes",
            paired=f"median {about(medians[1])} bytes",
            distance=gap,
            p_value=p_value,
            # No mirror leaves out the shorter ones, or those that are longer by a little.
            unlike=p_value < UNLIKE_BELOW and medians[0] >= 2 * medians[1],
        )


def _place_of(pair_id: str) -> float:
    """Where from 0 to 1 the id lies: a transformer records it where its RECORD_SAMPLE is above
    that (its recording/ids.py).
    """
    return int.from_bytes(sha256(pair_id.encode()).digest()[:8], "big") / 2**64


def _of_status(status: int) -> tuple[str, str]:
    return f"status {status}", f"status {status}"


def _contrast(
    respect: str,
    missing: Counter[int],
    paired: Counter[int],
    named: Callable[[int], tuple[str, str]],
) -> MissingContrast:
    """`named` says what is of a key, for the missing calls and then for the others."""
    keys = sorted(missing.keys() | paired.keys())
    table = np.array([[side[key] for key in keys] for side in (missing, paired)], dtype=float)
    shares = table / table.sum(axis=1, keepdims=True)
    p_value = same_shares_p(table)
    most = int(np.argmax(shares[0] - shares[1]))
    of_missing, of_paired = named(keys[most])
    return MissingContrast(
        respect=respect,
        missing=f"{percent(shares[0][most])} {of_missing}",
        paired=f"{percent(shares[1][most])} {of_paired}",
        distance=float(np.abs(shares[0] - shares[1]).sum() / 2),
        p_value=p_value,
        unlike=p_value < UNLIKE_BELOW,
    )


def _counter(values: NDArray[np.int64]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


class MarginTally:
    """By rule with a margin: in how many pairs its place stands, and in how many it differs."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._pairs: Counter[int] = Counter()
        self._differing: Counter[int] = Counter()

    def add(self, classified: Classified) -> None:
        for rule, (standing, differing) in classified.by_margin.items():
            self._pairs[rule] += standing.size
            self._differing[rule] += differing.size

    @property
    def pairs(self) -> Mapping[int, int]:
        """By rule, the pairs in which its place stands: what its margin counts among."""
        return self._pairs

    def report(self) -> tuple[PathMargin, ...]:
        """One per gate, in their order; a rule that named nothing has no pairs."""
        rules = ((i, self._rules.by_path[i]) for i in self._rules.margins)
        return tuple(
            PathMargin(
                path=rule.spelling,
                place=rule.place,
                gate=rule.gate,
                margin=rule.margin,
                pairs=self._pairs[i],
                differing_pairs=self._differing[i],
                any_number=isinstance(rule.how, Tolerance)
                and math.isinf(rule.how.absolute + rule.how.relative),
            )
            for i, rule in rules
            if rule.margin is not None
        )
