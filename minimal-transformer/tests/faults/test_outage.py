"""Postgres is away for a minute: no record is lost, and memory stays as it is."""

from __future__ import annotations

import time

import pytest
from deployment import Start
from evidence import (
    check_every_answer_is_stored_once,
    metric,
    records,
    stored,
    tell,
)
from load import Load
from processes import delivery_pid, resident_bytes
from serving import until

from embedded_postgres import Postgres

OUTAGE_SECONDS = 60
# A machine that is too slow for 100 calls/s has a longer outage.
OUTAGE_CALLS = 5_000
# 2 KB a call, which is less than what a record takes.
GROWTH_BYTES = 10 * 1024 * 1024


@pytest.mark.timeout(900)
def test_outage_of_a_minute_loses_nothing_and_grows_no_memory(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Postgres away for 60 s at 100 calls/s: memory grows by less than 10 MB, all is caught up."""
    server = start(transformer_uri)
    writer = delivery_pid(server)

    def resident() -> int:
        return resident_bytes(server.process.pid) + resident_bytes(writer)

    with Load(server, rate=100) as load:
        load.until_answered(1000)  # caches and pools are warm
        until(lambda: stored(postgres.uri).requests, "the first rows")
        before = resident()
        postgres.stop()
        begun = len(load.answered)
        highest = before
        ends = time.monotonic() + OUTAGE_SECONDS
        during = 0
        while time.monotonic() < ends or during < OUTAGE_CALLS:
            highest = max(highest, resident())
            time.sleep(0.5)
            during = len(load.answered) - begun
    assert not load.failed
    waiting, oldest = metric(server, "spool_bytes"), metric(server, "oldest_unwritten_seconds")
    written = records(server, "written")
    behind = len(load.answered) - written
    postgres.start()
    until(lambda: records(server, "written") > written, "the first rows of the backlog")
    resumed = time.monotonic()
    until(lambda: records(server, "written") == len(load.answered), "the backlog's end")
    took = time.monotonic() - resumed
    after = resident()
    check_every_answer_is_stored_once(postgres.uri, load)
    tell(
        answered_during_outage=during,
        spool_bytes=int(waiting),
        oldest_seconds=round(oldest, 1),
        caught_up=behind,
        calls_per_second=int(behind / max(took, 0.05)),
        growth_during_mb=round((highest - before) / 1e6, 1),
        growth_after_catch_up_mb=round((after - before) / 1e6, 1),
    )
    assert highest - before < GROWTH_BYTES
    assert after - before < GROWTH_BYTES
    assert delivery_pid(server) == writer
