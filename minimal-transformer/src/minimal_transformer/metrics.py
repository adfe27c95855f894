"""The recording metrics of a transformer, over all its processes, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minimal_transformer import counters as slots
from minimal_transformer.counters import Counters
from minimal_transformer.folder import waiting
from minimal_transformer.record import now_us

_OUTCOMES = {
    "spooled": slots.SPOOLED,
    "written": slots.WRITTEN,
    "dropped": slots.DROPPED,
    "dead_letter": slots.DEAD_LETTER,
}


class RecordMetrics(Collector):
    """Reads the figures when it is asked; any worker answers for all.

    A record is one call: `spooled`, `written` and `dropped` count it by its request row, so that
    calls offered = spooled + dropped. `dead_letter` counts the rows that were set aside.
    """

    def __init__(self, counters: Counters, spool: Path) -> None:
        self._counters = counters
        self._spool = spool

    def collect(self) -> Iterator[Metric]:
        totals = self._counters.totals()
        records = CounterMetricFamily(
            "prediction_db_records",
            "Calls put on the spool, written to Postgres or dropped, and rows set aside.",
            labels=["outcome"],
        )
        for outcome, slot in _OUTCOMES.items():
            records.add_metric([outcome], totals[slot])
        yield records
        yield CounterMetricFamily(
            "prediction_db_write_errors",
            "Attempts to reach Postgres or write to it that failed.",
            value=totals[slots.WRITE_ERRORS],
        )
        left = waiting(self._spool)
        yield GaugeMetricFamily(
            "prediction_db_spool_bytes",
            "Bytes on the spool that are not in Postgres yet.",
            value=left.spool_bytes,
        )
        age_us = 0 if left.oldest_us is None else max(0, now_us() - left.oldest_us)
        yield GaugeMetricFamily(
            "prediction_db_oldest_unwritten_seconds",
            "Age of the oldest record that is not in Postgres yet; 0 without one.",
            value=age_us / 1e6,
        )
