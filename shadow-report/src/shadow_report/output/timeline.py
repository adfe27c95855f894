"""Coverage and difference over time, as the page draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shadow_report.output.svg import Scale
from shadow_report.report import Bucket, Report

MOST_BUCKETS = 96


@dataclass(frozen=True, slots=True)
class Step:
    """One bucket of the timeline, with its shares."""

    start: datetime
    end: datetime
    primary_calls: int
    pairs: int
    coverage: float | None
    new_faults: int
    disagreements: int
    fault_share: float
    disagreement_share: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Coverage and difference over time, on a common time axis (seconds since the first step)."""

    steps: tuple[Step, ...]
    x: Scale
    coverage_y: Scale
    differing_y: Scale
    times: tuple[tuple[float, datetime], ...]
    min_coverage: float | None
    max_disagreement: float | None


def timeline_plot(report: Report) -> Timeline | None:
    """The report's buckets, joined to at most a hundred so that each can be seen."""
    if not report.timeline:
        return None
    steps = tuple(step_of(group) for group in grouped(report.timeline, MOST_BUCKETS))
    length = (steps[-1].end - steps[0].start).total_seconds()
    margins = {gate.name: gate.margin for gate in report.gates}
    x = Scale(0.0, length, 52, 948)
    shares = [step.coverage for step in steps if step.coverage is not None]
    lowest = min([*shares, margins.get("coverage", 1.0)])
    highest = max(
        [step.fault_share + step.disagreement_share for step in steps]
        + [margins.get("disagreement", 0.0), 0.0001]
    )
    return Timeline(
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


def grouped(buckets: Sequence[Bucket], most: int) -> list[Sequence[Bucket]]:
    """Neighbouring buckets joined evenly, so that there are at most `most` groups."""
    size = math.ceil(len(buckets) / most)
    return [buckets[i : i + size] for i in range(0, len(buckets), size)]


def step_of(group: Sequence[Bucket]) -> Step:
    calls = sum(bucket.primary_calls for bucket in group)
    pairs = sum(bucket.pairs for bucket in group)
    faults = sum(bucket.new_faults for bucket in group)
    disagreements = sum(bucket.disagreements for bucket in group)
    return Step(
        start=group[0].start,
        end=group[-1].start + timedelta(seconds=group[-1].seconds),
        primary_calls=calls,
        pairs=pairs,
        coverage=min(pairs / calls, 1.0) if calls else None,
        new_faults=faults,
        disagreements=disagreements,
        fault_share=faults / pairs if pairs else 0.0,
        disagreement_share=disagreements / pairs if pairs else 0.0,
    )
