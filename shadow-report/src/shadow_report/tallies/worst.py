"""Which pairs to show: grouped by what differs, the largest and the most typical of each group."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.marks import OUTCOMES
from shadow_report.answers.outcome import Outcome
from shadow_report.tallies.judged import Judged

MAX_GROUPS = 100
LARGEST = 3
TYPICAL = 2
SAMPLE = 32

# What differs in a pair: the codes of its marks, and for a failed call the shadow's status.
Key = tuple[int, ...]
OTHER: Key = (-1,)


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A pair that may be shown. `priority` hashes its id: the least ones are a fair sample."""

    size: float
    priority: int
    pair_id: str


@dataclass(slots=True)
class Group:
    """Pairs that differ in the same way."""

    is_fault: bool
    pairs: int = 0
    largest: list[Candidate] = field(default_factory=list)
    sample: list[Candidate] = field(default_factory=list)

    @property
    def typical(self) -> list[Candidate]:
        """Those of a fair sample whose size is nearest to its median."""
        sizes = [candidate.size for candidate in self.sample]
        middle = float(np.median(sizes))
        return sorted(self.sample, key=lambda c: (abs(c.size - middle), c.priority))[:TYPICAL]


class Groups:
    """Counts each way of differing and keeps a few pairs of each, in bounded memory."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Group] = {}

    def add(self, judged: Judged) -> None:
        """Count the faults and disagreements of a batch."""
        counted = judged.faults | judged.disagreements
        if not counted.any():
            return
        priorities = judged.batch.integers("pair_hash")
        sizes = np.zeros(len(judged.batch))
        np.maximum.at(sizes, judged.marks.rows, judged.marks.sizes)
        for key, rows in _rows_by_key(judged, counted).items():
            self._add(key, np.array(rows), sizes, priorities, judged)

    def _add(
        self,
        key: Key,
        rows: NDArray[np.int64],
        sizes: NDArray[np.float64],
        priorities: NDArray[np.int64],
        judged: Judged,
    ) -> None:
        if key not in self.by_key and len(self.by_key) >= MAX_GROUPS:
            key = OTHER
        is_fault = bool(judged.outcomes[rows[0]] >= Outcome.LENGTH)
        group = self.by_key.setdefault(key, Group(is_fault))
        group.pairs += rows.size

        def candidates(order: NDArray[np.int64], count: int) -> list[Candidate]:
            return [
                Candidate(float(sizes[row]), int(priorities[row]), judged.batch.pair_id(row))
                for row in rows[order[:count]].tolist()
            ]

        by_size = np.lexsort((priorities[rows], -sizes[rows]))
        group.largest += candidates(by_size, LARGEST)
        group.largest = sorted(group.largest, key=lambda c: (-c.size, c.priority))[:LARGEST]
        group.sample += candidates(np.argsort(priorities[rows]), SAMPLE)
        group.sample = sorted(group.sample, key=lambda c: c.priority)[:SAMPLE]


def _rows_by_key(judged: Judged, counted: NDArray[np.bool_]) -> dict[Key, list[int]]:
    marks = judged.marks
    telling = counted[marks.rows] & (marks.codes % OUTCOMES >= Outcome.EXTRA)
    rows, codes = marks.rows[telling], marks.codes[telling]
    statuses = judged.batch.integers("shadow_status")
    by_row: dict[int, set[int]] = defaultdict(set)
    for row, code in zip(rows.tolist(), codes.tolist(), strict=True):
        by_row[row].add(code)
    by_key: dict[Key, list[int]] = defaultdict(list)
    for row, found in by_row.items():
        key = tuple(sorted(found))
        if key == (int(Outcome.FAILED),):
            key = (int(Outcome.FAILED), int(statuses[row]))
        by_key[key].append(row)
    return by_key


def title(key: Key, paths: list[str]) -> str:
    """How a group is called: `predictions[*]: number`, `failed with 500`."""
    if key == OTHER:
        return "other differences"
    if len(key) == 2 and key[0] == Outcome.FAILED:
        return f"failed with {key[1]}" if key[1] else "not answered"
    parts = []
    for code in key:
        path, outcome = paths[code // OUTCOMES], Outcome(code % OUTCOMES)
        parts.append(f"{path}: {outcome.title}" if path else f"answer: {outcome.title}")
    return " + ".join(parts)
