"""What each plot shows: the report's figures with the axes to draw them on; the templates draw.

None instead of a plot means that there is nothing to draw.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from shadow_report.answers.outcome import Outcome
from shadow_report.report import (
    Bucket,
    Gate,
    Labels,
    Latency,
    LatencyShift,
    Numbers,
    Report,
    Similarity,
)


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis from the values `low`..`high` to the drawing's coordinates `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The coordinate of a value; values outside stand at the nearer end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int = 4) -> list[float]:
        """About `wanted` round values within the axis."""
        step = round_step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def round_step(rough: float) -> float:
    """The nearest of 1, 2 or 5 times a power of ten that is not smaller than `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def scale(values: list[float], start: float, end: float, spare: float = 0.08) -> Scale:
    """An axis that holds all values, with a spare share at both ends; never of length zero."""
    low, high = min(values), max(values)
    room = (high - low) * spare or abs(high) * spare or 1.0
    return Scale(low - room, high + room, start, end)


# Where a logarithmic axis of counts begins: a single value still has a bar.
LEAST = 0.5


@dataclass(frozen=True, slots=True)
class GatePlot:
    """A gate's interval against its margin; the allowed side is `allowed`, in coordinates."""

    gate: Gate
    x: Scale
    allowed: tuple[float, float]


def gate_plot(gate: Gate) -> GatePlot | None:
    """The gate on an axis from the perfect rate to a little beyond what matters."""
    (lower, upper), margin = gate.interval, gate.margin
    is_bounded = math.isfinite(lower) and math.isfinite(upper)
    if gate.estimate is None or margin is None or not is_bounded:
        return None
    if gate.is_minimum:
        low = min(lower, margin)
        x = Scale(max(low - (1 - low) * 0.15, 0.0), 1.0, 12, 348)
        return GatePlot(gate, x, (x.at(margin), x.end))
    high = max(upper, margin) * 1.15
    # A net rate, gained minus lost, may lie below zero.
    x = Scale(min(lower * 1.15, 0.0), min(high, 1.0) or 1.0, 12, 348)
    return GatePlot(gate, x, (x.start, x.at(margin)))


Bars = tuple[tuple[float, float, int], ...]

# Where the bar of the values far out at one end stands, and its width.
TAIL_WIDTH = 26
LEFT, RIGHT = 56, 948


@dataclass(frozen=True, slots=True)
class Tail:
    """The values that lie far out at one end, in one bar beside the axis; `end` is the farthest."""

    x: float
    count: int
    end: float


@dataclass(frozen=True, slots=True)
class HistogramPlot:
    """How values are distributed, with a mark at one value of the axis.

    The counts stand on a logarithmic axis when they are far apart: a rare difference would
    vanish next to the many values that are equal.
    """

    bars: Bars
    low: Tail | None
    high: Tail | None
    x: Scale
    y: Scale
    is_logarithmic: bool
    mark: float

    def top(self, count: float) -> float:
        """The coordinate of a count."""
        return self.y.at(math.log10(max(count, LEAST)) if self.is_logarithmic else count)

    def ticks(self) -> list[float]:
        """Round counts."""
        if not self.is_logarithmic:
            return self.y.ticks(3)
        return [10.0**power for power in range(math.floor(self.y.high) + 1)]


def histogram_plot(numbers: Numbers | None) -> HistogramPlot | None:
    """Shadow minus primary, with zero always on the axis and the bias marked."""
    return None if numbers is None else _histogram(numbers.histogram, [0.0], numbers.bias)


def similarity_plot(similarity: Similarity) -> HistogramPlot | None:
    """How alike the values are, with the least that is asked for on the axis and marked."""
    return _histogram(similarity.histogram, [similarity.least, 1.0], similarity.least)


def _histogram(bars: Bars, on_axis: list[float], mark: float) -> HistogramPlot | None:
    counts = [count for _, _, count in bars if count]
    if not counts:
        return None
    low, bars, high = _without_tails(bars)
    edges = [edge for lower, upper, _ in bars for edge in (lower, upper)]
    start = LEFT + (2 * TAIL_WIDTH if low else 0)
    x = scale([*edges, *on_axis], start, RIGHT - (2 * TAIL_WIDTH if high else 0), 0.02)
    tails = (
        low and Tail(LEFT, low[2], low[0]),
        high and Tail(RIGHT - TAIL_WIDTH, high[2], high[1]),
    )
    if max(counts) > 50 * min(counts):
        y = Scale(math.log10(LEAST), math.log10(max(counts)) * 1.05, 150, 12)
        return HistogramPlot(bars, *tails, x, y, True, mark)
    return HistogramPlot(bars, *tails, x, Scale(0.0, max(counts) * 1.05, 150, 12), False, mark)


Bar = tuple[float, float, int]


def _without_tails(bars: Bars) -> tuple[Bar | None, Bars, Bar | None]:
    """The bars of equal width, and the wider one at either end, if there is one."""
    if len(bars) < 3:
        return None, bars, None
    width = bars[1][1] - bars[1][0]
    low = bars[0] if bars[0][1] - bars[0][0] > 2 * width else None
    high = bars[-1] if bars[-1][1] - bars[-1][0] > 2 * width else None
    return low, bars[low is not None : len(bars) - (high is not None)], high


@dataclass(frozen=True, slots=True)
class ShiftPlot:
    """The shift of each latency quantile with its interval, around zero."""

    shifts: tuple[LatencyShift, ...]
    x: Scale


def shift_plot(latency: Latency) -> ShiftPlot | None:
    """One row per quantile on a common axis in milliseconds."""
    shifts = tuple(shift for shift in latency.shifts if math.isfinite(shift.shift_ms))
    if not shifts:
        return None
    values = [0.0]
    for shift in shifts:
        values += [shift.shift_ms, *(shift.interval_ms or ())]
    return ShiftPlot(shifts, scale([v for v in values if math.isfinite(v)], 52, 760))


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of the confusion matrix; `share` is its part of the primary's class."""

    primary: str
    shadow: str
    count: int
    share: float
    row: int
    column: int


def confusion_cells(labels: Labels | None) -> tuple[Cell, ...]:
    """Every field of the confusion matrix, row by row."""
    if labels is None:
        return ()
    return tuple(
        Cell(
            labels.classes[row],
            labels.classes[column],
            count,
            count / (sum(counts) or 1),
            row,
            column,
        )
        for row, counts in enumerate(labels.confusion)
        for column, count in enumerate(counts)
    )


def outcome_parts(outcomes: dict[str, int]) -> list[tuple[str, str, int, float]]:
    """(outcome, colour class, pairs, share), the harmless ones first."""
    total = sum(outcomes.values())
    known = {outcome.title: outcome for outcome in Outcome}
    ranked = sorted(outcomes.items(), key=lambda item: known.get(item[0], Outcome.FAILED))
    return [
        (name, colour_of(known.get(name, Outcome.FAILED)), pairs, pairs / total)
        for name, pairs in ranked
        if pairs
    ]


def colour_of(outcome: Outcome) -> str:
    """The colour class of an outcome."""
    if outcome.is_fault:
        return "fault"
    if outcome.is_disagreement:
        return "differs"
    return "equal" if outcome is Outcome.EQUAL else "within"


MOST_BUCKETS = 96


@dataclass(frozen=True, slots=True)
class TimelinePlot:
    """Coverage and difference over time, on a common time axis (seconds since the first step)."""

    steps: tuple[Bucket, ...]
    x: Scale
    coverage_y: Scale
    differing_y: Scale
    times: tuple[tuple[float, datetime], ...]
    min_coverage: float | None
    max_disagreement: float | None


def timeline_plot(report: Report) -> TimelinePlot | None:
    """The report's newest buckets, so many that each can be seen, with their axes."""
    if not report.timeline:
        return None
    steps = report.timeline[-MOST_BUCKETS:]
    length = (steps[-1].end - steps[0].start).total_seconds()
    margins = {gate.name: gate.margin for gate in report.gates if gate.margin is not None}
    x = Scale(0.0, length, 52, 948)
    shares = [step.coverage for step in steps if step.coverage is not None]
    lowest = min([*shares, margins.get("coverage", 1.0)])
    highest = max(
        [step.fault_share + step.disagreement_share for step in steps]
        + [margins.get("disagreement", 0.0), 0.0001]
    )
    return TimelinePlot(
        steps,
        x,
        Scale(max(lowest - (1 - lowest) * 0.2 - 0.0005, 0.0), 1.0, 120, 14),
        Scale(0.0, min(highest * 1.12, 1.0), 120, 14),
        tuple(
            (x.at(length * i / 4), steps[0].start + timedelta(seconds=length * i / 4))
            for i in range(5)
        ),
        margins.get("coverage"),
        margins.get("disagreement"),
    )
