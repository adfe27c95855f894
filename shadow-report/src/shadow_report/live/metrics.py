"""Where the candidates stand, as Prometheus reads it; `candidate` is the shadow's service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shadow_report.live.standing import STATUS_OF, Conclusion, Standing
from shadow_report.report import Gate, Report, Side

GATE_STATUSES = ("pass", "fail", "wait")


@dataclass(frozen=True, slots=True)
class Health:
    """How the looks went: whether the last one read the tables, how long it took, and how many
    there were by kind.
    """

    database_up: bool
    look_seconds: float
    looks: Mapping[str, int]


class Standings(Collector):
    """Reads where every candidate stands each time that it is asked."""

    def __init__(
        self,
        standings: Callable[[], Iterable[Standing]],
        health: Callable[[], Health],
        clock: Callable[[], float],
        max_age: timedelta,
    ) -> None:
        self._standings, self._health, self._clock = standings, health, clock
        self._max_age = max_age

    def collect(self) -> Iterator[Metric]:
        now, health = self._clock(), self._health()
        families = {name: _family(name) for name in HELP}
        for standing in self._standings():
            conclusion = standing.conclude(now, self._max_age)
            for name, labels, value in _samples(conclusion):
                if value is not None:
                    families[name].add_metric([standing.candidate, *labels], value)
        yield from families.values()
        up = "1 while the tables can be read."
        yield GaugeMetricFamily("shadow_database_up", up, value=float(health.database_up))
        took = "How long the last look at the tables took."
        yield GaugeMetricFamily("shadow_look_seconds", took, value=health.look_seconds)
        counted = "Looks: added to the tallies, rebuilt (counted from the start), or failed."
        looks = CounterMetricFamily("shadow_looks", counted, labels=["kind"])
        for kind, count in health.looks.items():
            looks.add_metric([kind], count)
        yield looks


HELP = {
    "shadow_verdict": "1 for the verdict that the gate gives, 0 for the other three.",
    "shadow_verdict_age_seconds": "Time since the last look.",
    "shadow_pairs": "Pairs that the verdict rests on.",
    "shadow_more_pairs": "While it waits, how many more would settle it.",
    "shadow_coverage_ratio": "Pairs over the calls that should have one.",
    "shadow_new_faults": "Pairs of the window with a new fault; the gate `faults` also "
    "counts calls that the shadow should have got and has no record of.",
    "shadow_disagreements": "Pairs of the window that disagree.",
    "shadow_unpaired_calls": "The primary's calls of the window without a pair.",
    "shadow_waiting_calls": "Settled calls that no follower has come to.",
    "shadow_effective_pairs": "What a gate's calls or pairs are worth.",
    "shadow_gate_estimate": "The observed share.",
    "shadow_gate_lower": "The lower bound of what decides.",
    "shadow_gate_upper": "The upper bound of what decides.",
    "shadow_gate_margin": "The share that is allowed (coverage: that is asked for).",
    "shadow_gate_status": "1 for the gate's status, 0 for the others.",
    "shadow_lost_records": "Calls that a side numbered and that are not in the tables.",
    "shadow_unanswered_calls": "A side's calls without a response record.",
    "shadow_delivery_lag_seconds": "Longest time of the window between a call and its row.",
}
LABELS = {
    "shadow_verdict": ["verdict"],
    "shadow_gate_status": ["gate", "status"],
    "shadow_lost_records": ["role"],
    "shadow_unanswered_calls": ["role"],
    "shadow_delivery_lag_seconds": ["role"],
}
Sample = tuple[str, list[str], float | None]


def _family(name: str) -> GaugeMetricFamily:
    by_gate = ["gate"] if name == "shadow_effective_pairs" or "_gate_" in name else []
    labels = ["candidate", *LABELS.get(name, by_gate)]
    return GaugeMetricFamily(name, HELP[name], labels=labels)


def _samples(conclusion: Conclusion) -> Iterator[Sample]:
    for verdict in STATUS_OF:
        yield "shadow_verdict", [verdict], float(verdict == conclusion.verdict)
    yield "shadow_verdict_age_seconds", [], conclusion.age_seconds
    report = conclusion.standing.report
    if report is None:
        return
    yield "shadow_waiting_calls", [], conclusion.standing.waiting
    yield from _figures(report)
    for gate in report.gates:
        yield from _gate_figures(gate)
    for side in (report.primary, report.shadow):
        yield from _side_figures(side)


def _figures(report: Report) -> Iterator[Sample]:
    yield "shadow_pairs", [], report.pairs
    yield "shadow_more_pairs", [], report.more_pairs
    yield "shadow_coverage_ratio", [], report.integrity.coverage
    yield "shadow_new_faults", [], report.new_faults
    yield "shadow_disagreements", [], report.disagreements
    yield "shadow_unpaired_calls", [], report.primary.unpaired


def _gate_figures(gate: Gate) -> Iterator[Sample]:
    lower, upper = gate.interval
    figures = {"estimate": gate.estimate, "lower": lower, "upper": upper, "margin": gate.margin}
    for name, value in figures.items():
        yield f"shadow_gate_{name}", [gate.name], value if value == value else None  # noqa: PLR0124
    yield "shadow_effective_pairs", [gate.name], gate.n_eff
    for status in GATE_STATUSES:
        yield "shadow_gate_status", [gate.name, status], float(status == gate.status)


def _side_figures(side: Side) -> Iterator[Sample]:
    yield "shadow_lost_records", [side.role], side.lost_records
    yield "shadow_unanswered_calls", [side.role], side.unanswered
    yield "shadow_delivery_lag_seconds", [side.role], side.delivery_lag_seconds


def exposition(collector: Collector) -> bytes:
    """The metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)
