"""Pairs by outcome and status, and which paths differ in how many of them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from shadow_report.answers.marks import OUTCOMES
from shadow_report.answers.outcome import Outcome
from shadow_report.evidence.batch import NO_ANSWER
from shadow_report.report import PairedTable, StatusPair
from shadow_report.statistics.pair_sample import PairSample
from shadow_report.tallies.judged import Judged

STATUSES_SHOWN = 50


class Ledger:
    """The counts that the gates rest on."""

    def __init__(self) -> None:
        self.pairs = self.missing = self.compared = 0
        self.new_faults = self.mended = self.disagreements = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.statuses: Counter[tuple[int, int]] = Counter()
        self.differing: Counter[int] = Counter()
        self.first_pair: int | None = None
        self.last_pair: int | None = None
        self._skew = PairSample(capacity=20_000)

    def add(self, judged: Judged) -> None:
        usable = judged.usable
        self.missing += int(np.count_nonzero(judged.missing))
        if not usable.any():
            return
        self.pairs += int(np.count_nonzero(usable))
        self.compared += int(np.count_nonzero(judged.compared))
        self.new_faults += int(np.count_nonzero(judged.faults))
        self.mended += int(np.count_nonzero(judged.mended))
        self.disagreements += int(np.count_nonzero(judged.disagreements))
        for outcome, count in enumerate(np.bincount(judged.outcomes[usable]).tolist()):
            if count:
                self.outcomes[Outcome(outcome)] += count
        self._count_statuses(judged)
        self._count_paths(judged)
        times = judged.primary_times[usable]
        first, last = int(times.min()), int(times.max())
        self.first_pair = first if self.first_pair is None else min(self.first_pair, first)
        self.last_pair = last if self.last_pair is None else max(self.last_pair, last)
        self._skew.add(times, judged.batch.integers("shadow_time")[usable])

    def _count_statuses(self, judged: Judged) -> None:
        primary, shadow = (
            judged.batch.integers(f"{role}_status")[judged.usable] for role in ("primary", "shadow")
        )
        found, counts = np.unique(primary << 32 | shadow, return_counts=True)
        for both, count in zip(found.tolist(), counts.tolist(), strict=True):
            self.statuses[both >> 32, both & 0xFFFFFFFF] += count

    def _count_paths(self, judged: Judged) -> None:
        marks = judged.marks
        telling = marks.codes % OUTCOMES >= Outcome.EXTRA
        if not telling.any():
            return
        places = marks.codes[telling] // OUTCOMES
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
        table = Counter[tuple[bool, bool]]()
        for (primary, shadow), count in self.statuses.items():
            table[not 200 <= primary < 300, not 200 <= shadow < 300] += count
        return PairedTable(
            neither=table[False, False],
            shadow_only=table[False, True],
            primary_only=table[True, False],
            both=table[True, True],
        )

    def status_pairs(self) -> tuple[StatusPair, ...]:
        """The most frequent status pairs first."""
        return tuple(
            StatusPair(_status(primary), _status(shadow), count)
            for (primary, shadow), count in self.statuses.most_common(STATUSES_SHOWN)
        )


def _status(code: int) -> int | None:
    return None if code == NO_ANSWER else code
