"""Generated answers: refusals, tool calls, ends, tokens, and how fast they came, side by side."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.bodies import parse
from shadow_report.answers.generated import refusals_of, said
from shadow_report.answers.outcome import Answer
from shadow_report.answers.paths import Rules
from shadow_report.counting.classify import Classified
from shadow_report.report import Drift, Flip, Generated, PairedTable, Shift
from shadow_report.statistics.agreement import quantile_shift
from shadow_report.statistics.samples import Moments, PairSample
from shadow_report.statistics.sequences import mean_interval

QUANTILES = (0.05, 0.5, 0.95)
FLIPS_SHOWN = 20
SAMPLE = 50_000

Floats = NDArray[np.float64]


class DriftTally:
    """One figure of both sides' answers: a fair sample for its quantiles, moments for its mean."""

    def __init__(self) -> None:
        self._sample = PairSample(SAMPLE)
        self._differences = Moments()
        self._nonzero = 0

    def add(self, primary: Floats, shadow: Floats, hashes: NDArray[np.int64]) -> None:
        """Count the pairs of which both figures are known, which NaN ones are not.

        hashes: of their pair ids, by which the sample is chosen.
        """
        known = np.isfinite(primary) & np.isfinite(shadow)
        p, s = primary[known], shadow[known]
        self._sample.add(p, s, hashes[known])
        self._differences = self._differences.merge(Moments.of(s - p))
        self._nonzero += int(np.count_nonzero(s != p))

    def report(self, name: str, unit: str, alpha: float) -> Drift | None:
        """None when it is known of no pair."""
        p, s = self._sample.primary, self._sample.shadow
        if not p.size:
            return None
        mean = mean_interval(self._differences, alpha, self._nonzero)
        return Drift(
            name=name,
            unit=unit,
            pairs=self._sample.seen,
            shifts=tuple(_shift(p, s, share, alpha) for share in QUANTILES),
            mean_difference=self._differences.mean,
            mean_interval=None if np.isnan(mean.lower) else mean,
        )


def _shift(p: Floats, s: Floats, share: float, alpha: float) -> Shift:
    found = quantile_shift(p, s, share, alpha)
    interval = None if np.isnan(found.interval.lower) else found.interval
    return Shift(share, found.primary, found.shadow, found.shift, interval)


class GeneratedTally:
    """The pairs whose answers were generated, by what both sides said and how it came."""

    def __init__(self, rules: Rules) -> None:
        self._refusals = refusals_of(rules)
        self._texts = self._same_words = self._left = 0
        self._tables: dict[str, Counter[tuple[bool, bool]]] = {
            name: Counter() for name in ("refusals", "tool_calls", "broken")
        }
        self._finish_reasons: Counter[tuple[str, str]] = Counter()
        self._drifts = {name: DriftTally() for name, _ in DRIFTS}

    def add(self, classified: Classified) -> None:
        rows, figures = classified.batch.generated()
        chosen = classified.usable[rows]
        rows, figures = rows[chosen], figures[chosen]
        if not rows.size:
            return
        primary, shadow = (side[rows] for side in classified.answers)
        self._left += int(np.count_nonzero((primary == Answer.LEFT) | (shadow == Answer.LEFT)))
        broken = zip(
            (primary == Answer.BROKEN).tolist(), (shadow == Answer.BROKEN).tolist(), strict=True
        )
        self._tables["broken"].update(broken)
        whole = (primary == Answer.VALUES) & (shadow == Answer.VALUES)
        self._add_figures(classified, rows[whole], figures[whole])
        bodies, shadow_bodies = classified.batch.bodies()
        for row in rows[whole].tolist():
            self._add_texts(bodies[row], shadow_bodies[row])

    def _add_texts(self, primary: bytes | None, shadow: bytes | None) -> None:
        one, other = (said(parse(body), self._refusals) for body in (primary, shadow))
        if one is None or other is None:
            return
        self._texts += 1
        self._same_words += one.words == other.words
        self._tables["refusals"][one.refuses, other.refuses] += 1
        self._tables["tool_calls"][one.calls_tools, other.calls_tools] += 1
        self._finish_reasons[one.finish_reason, other.finish_reason] += 1

    def _add_figures(
        self, classified: Classified, rows: NDArray[np.int64], figures: NDArray[np.void]
    ) -> None:
        sides: list[tuple[Floats, ...]] = []
        durations = classified.primary_durations_ms, classified.shadow_durations_ms
        for role, duration in zip(("primary", "shadow"), durations, strict=True):
            first = figures[f"{role}_ttft_ms"].astype(np.float64)
            read, written = (
                np.where((n := figures[f"{role}_{what}_tokens"]) >= 0, n, np.nan).astype(np.float64)
                for what in ("prompt", "completion")
            )
            left_ms = duration[rows] - first
            # The first token is there when the rest begins.
            per_second = np.full(rows.size, np.nan)
            many = (written > 1) & (left_ms > 0)
            per_second[many] = 1000 * (written[many] - 1) / left_ms[many]
            sides.append((first, per_second, written, read))
        hashes = classified.batch.integers("pair_hash")[rows]
        for (name, _), primary, shadow in zip(DRIFTS, *sides, strict=True):
            self._drifts[name].add(primary, shadow, hashes)

    def report(self, alpha: float) -> Generated | None:
        """None without a generated answer."""
        seen = self._tables["broken"].total()
        if not seen:
            return None
        tables = {name: _table(counts) for name, counts in self._tables.items()}
        drifts = [self._drifts[name].report(name, unit, alpha) for name, unit in DRIFTS]
        return Generated(
            pairs=seen,
            texts=self._texts,
            same_words=self._same_words,
            finish_reasons=tuple(
                Flip(primary, shadow, pairs)
                for (primary, shadow), pairs in self._finish_reasons.most_common(FLIPS_SHOWN)
            ),
            left=self._left,
            drifts=tuple(drift for drift in drifts if drift is not None),
            **tables,
        )


class DifferingSample:
    """A fair sample, by the least hashes, of the pairs that differ and have two whole answers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[int, str]] = []

    def add(self, classified: Classified) -> None:
        if not self._size:
            return
        primary, shadow = classified.answers
        differ = classified.disagreements | classified.allowed
        rows = np.flatnonzero(differ & (primary == Answer.VALUES) & (shadow == Answer.VALUES))
        hashes = classified.batch.integers("pair_hash")[rows]
        for i in np.argsort(hashes, kind="stable")[: self._size].tolist():
            self._kept.append((int(hashes[i]), classified.batch.pair_id(int(rows[i]))))
        self._kept = sorted(self._kept)[: self._size]

    @property
    def pair_ids(self) -> list[str]:
        return [pair_id for _, pair_id in self._kept]


# In this order in the report: the figure's name, and its unit.
DRIFTS = (
    ("first token", "ms"),
    ("tokens per second", ""),
    ("tokens out", ""),
    ("tokens in", ""),
)


def _table(counts: Counter[tuple[bool, bool]]) -> PairedTable:
    return PairedTable(
        neither=counts[False, False],
        shadow_only=counts[False, True],
        primary_only=counts[True, False],
        both=counts[True, True],
    )
