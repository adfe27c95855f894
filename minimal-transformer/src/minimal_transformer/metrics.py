"""The recording metrics over all processes of a transformer, and the counters beneath them.

Several processes add to the counters and any of them can read all, each in a file of its own. The
files are in a temporary folder and not on the spool, so that they also count when the spool's disk
is full or read-only.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import mmap
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minimal_transformer.settings import temporary_folder
from minimal_transformer.spool.folder import waiting
from minimal_transformer.spool.format import lock, now_us

_COUNT = 8
SPOOLED, WRITTEN, DROPPED, DEAD_LETTER, WRITE_ERRORS, STREAM_READ, STREAM_UNREAD, UNKNOWN_MODEL = (
    range(_COUNT)
)
_BYTES = _COUNT * 8
_OUTCOMES = {
    "spooled": SPOOLED,
    "written": WRITTEN,
    "dropped": DROPPED,
    "dead_letter": DEAD_LETTER,
}
# Where the delivery process finds its server's counters.
FOLDER_VARIABLE = "PREDICTION_DB_COUNTERS"
_PREFIX = "minimal-transformer-"
_LOCK = "lock"


class RecordMetrics(Collector):
    """Reads the figures when they are scraped, in any worker for all.

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
        for outcome, counter in _OUTCOMES.items():
            records.add_metric([outcome], totals[counter])
        yield records
        yield CounterMetricFamily(
            "prediction_db_write_errors",
            "Attempts to reach Postgres or write to it that failed.",
            value=totals[WRITE_ERRORS],
        )
        events = CounterMetricFamily(
            "prediction_db_stream_events",
            "Events of streamed answers that were read, or recorded as bytes.",
            labels=["outcome"],
        )
        events.add_metric(["read"], totals[STREAM_READ])
        events.add_metric(["unread"], totals[STREAM_UNREAD])
        yield events
        yield CounterMetricFamily(
            "prediction_db_unknown_model_calls",
            "Calls of a model that is not served here: refused, and not recorded.",
            value=totals[UNKNOWN_MODEL],
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


class Counters:
    """This process' counters; `add` costs a memory write."""

    def __init__(self, folder: Path | None) -> None:
        self._map: mmap.mmap | bytearray
        try:
            if folder is None:
                raise FileNotFoundError
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(
                prefix=f"{os.getpid()}-", suffix=".counters", dir=folder
            )
            try:
                # Written, not only sized: a mapped hole that a full disk cannot fill is SIGBUS.
                if os.write(descriptor, bytes(_BYTES)) < _BYTES:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
                self._map = mmap.mmap(descriptor, _BYTES)
            except OSError:
                Path(path).unlink()
                raise
            finally:
                os.close(descriptor)
            self._folder: Path | None = folder
        except OSError:  # none, or a full one: this process' own figures are all there is
            self._map = bytearray(_BYTES)
            self._folder = None
        # One aligned 8-byte store each, so that a reader never sees half a number.
        self._values = memoryview(self._map).cast("q")

    def add(self, counter: int, amount: int = 1) -> None:
        """Not atomic: a counter that more than one thread adds to is added to under a lock."""
        self._values[counter] += amount

    def totals(self) -> list[int]:
        """Each counter over all processes, the dead included."""
        if self._folder is None:
            return list(self._values)
        totals = [0] * _COUNT
        for path in self._folder.glob("*.counters"):
            try:
                content = path.read_bytes()
            except OSError:  # no descriptor left for it, or removed by whoever tidies up
                continue
            values = memoryview(content.ljust(_BYTES, b"\0")[:_BYTES]).cast("q")
            totals = [total + value for total, value in zip(totals, values, strict=True)]
        return totals


def new_folder() -> Path:
    """A place for the counters of a server and its children; nothing is made there yet."""
    return temporary_folder() / f"{_PREFIX}{uuid.uuid4().hex}"


def claim(folder: Path) -> None:
    """Keep the folder until this process ends; what killed processes left behind is removed."""
    for lock_file in folder.parent.glob(f"{_PREFIX}*/{_LOCK}"):
        _remove_if_abandoned(lock_file)
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Locked before it gets its name, so that nobody else's claim() finds it free.
        unnamed = folder / f"{_LOCK}.new"
        lock(os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        unnamed.rename(folder / _LOCK)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _remove_if_abandoned(lock_file: Path) -> None:
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # another user's, or gone
        return
    try:
        if lock(descriptor):  # its owner is dead
            shutil.rmtree(lock_file.parent, ignore_errors=True)
    finally:
        os.close(descriptor)
