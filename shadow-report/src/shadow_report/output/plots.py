"""What each plot shows: the report's figures beside the axes to draw them on.

None instead of a plot means that there is nothing to draw.
"""

import math
from dataclasses import dataclass

from shadow_report.answers.outcome import Outcome
from shadow_report.gates import Gate
from shadow_report.output.svg import Scale, scale
from shadow_report.report import Labels, Latency, Numbers, QuantileShift

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
    lower, upper = gate.interval
    if gate.estimate is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return None
    if gate.is_minimum:
        low = min(lower, gate.margin)
        x = Scale(max(low - (1 - low) * 0.15, 0.0), 1.0, 12, 348)
        return GatePlot(gate, x, (x.at(gate.margin), x.end))
    high = max(upper, gate.margin) * 1.15
    # A net rate, gained minus lost, may lie below zero.
    x = Scale(min(lower * 1.15, 0.0), min(high, 1.0) or 1.0, 12, 348)
    return GatePlot(gate, x, (x.start, x.at(gate.margin)))


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the numeric differences at one path are distributed.

    The counts stand on a logarithmic axis when they are far apart: a rare difference would
    vanish beside the many values that are equal.
    """

    numbers: Numbers
    x: Scale
    y: Scale
    is_logarithmic: bool

    def top(self, count: float) -> float:
        """The coordinate of a count."""
        return self.y.at(math.log10(max(count, LEAST)) if self.is_logarithmic else count)

    def ticks(self) -> list[float]:
        """Round counts."""
        if not self.is_logarithmic:
            return self.y.ticks(3)
        return [10.0**power for power in range(math.floor(self.y.high) + 1)]


def histogram_plot(numbers: Numbers | None) -> Histogram | None:
    """The histogram of shadow minus primary, with zero always on the axis."""
    counts = [count for _, _, count in numbers.histogram if count] if numbers else []
    if numbers is None or not counts:
        return None
    edges = [edge for low, high, _ in numbers.histogram for edge in (low, high)]
    x = scale([*edges, 0.0], 56, 948, 0.02)
    if max(counts) > 50 * min(counts):
        y = Scale(math.log10(LEAST), math.log10(max(counts)) * 1.05, 150, 12)
        return Histogram(numbers, x, y, True)
    return Histogram(numbers, x, Scale(0.0, max(counts) * 1.05, 150, 12), False)


@dataclass(frozen=True, slots=True)
class ShiftPlot:
    """The shift of each latency quantile with its interval, around zero."""

    shifts: tuple[QuantileShift, ...]
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
