"""What a follower says of itself: /metrics, /ready, a log line at each change, and a summary."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from shadow_report.wording import moment

log = logging.getLogger("shadow_report.follow")

OUTCOMES = ("answered", "failed", "unanswered", "unrecorded")
NAMED = 10  # so many pair ids are logged for each reason


class Metrics:
    """Counts calls, and knows whether the database and the candidate are there."""

    def __init__(self, base: str, lag_seconds: Callable[[], float], open_: Callable[[], int]):
        self._base = base
        self._open = open_
        self.registry = registry = CollectorRegistry()
        prefix = "shadow_follow_"
        self._calls = Counter(
            f"{prefix}calls",
            "Calls to the candidate: answered, failed (with an error status), unanswered (by a "
            "candidate that is ready, time and again), unrecorded (answered; the row never came).",
            ["outcome"],
            registry=registry,
        )
        self._skipped = Counter(
            f"{prefix}skipped", "Calls that cannot be sent again.", ["reason"], registry=registry
        )
        for outcome in OUTCOMES:
            self._calls.labels(outcome)
        lag = "For how long the oldest call without an answer has been in the tables."
        Gauge(f"{prefix}lag_seconds", lag, registry=registry).set_function(lag_seconds)
        waiting = "Calls that were read and have no answer yet."
        Gauge(f"{prefix}open_calls", waiting, registry=registry).set_function(open_)
        ready = "1 while the candidate takes calls."
        self._ready = Gauge(f"{prefix}candidate_ready", ready, registry=registry)
        self._ready.set(1)
        tables = "1 while the tables can be read."
        self._tables = Gauge(f"{prefix}database_ready", tables, registry=registry)
        self._down_since: float | None = None
        self._fault: str | None = None
        self._was_read = False
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self._reasons: dict[str, int] = {}

    def sent(self, status: int) -> None:
        """Count an answer."""
        self._count("failed" if status >= 400 else "answered")

    def given_up(self, outcome: str, pair_id: str, came: datetime, why: str) -> None:
        """Count and name a call that is `unanswered` or `unrecorded`."""
        self._count(outcome)
        self._name(self._counts[outcome], pair_id, came, why)

    def skipped(self, pair_id: str, came: datetime, reason: str) -> None:
        """Count and name a call that cannot be sent again."""
        self._skipped.labels(reason).inc()
        self._reasons[reason] = self._reasons.get(reason, 0) + 1
        self._name(self._reasons[reason], pair_id, came, reason)

    def database(self, fault: str | None) -> None:
        """Note that the tables were read, or what is wrong with their server."""
        if fault and not self._fault:
            log.warning("%s Trying again until it answers.", fault)
        elif self._fault and not fault:
            log.info("The database answers again.")
        self._fault = fault
        self._was_read |= fault is None
        self._tables.set(fault is None)

    def candidate_down(self, why: str) -> None:
        """Note that the candidate takes no calls."""
        if self._down_since is None:
            log.warning("The candidate at %s is not ready (%s); calls wait.", self._base, why)
            self._down_since = time.monotonic()
        self._ready.set(0)

    def candidate_up(self) -> None:
        """Note that the candidate takes calls."""
        if self._down_since is not None:
            seconds = time.monotonic() - self._down_since
            log.info("The candidate is ready after %.0f s; %d calls wait.", seconds, self._open())
        self._down_since = None
        self._ready.set(1)

    def why_not_ready(self) -> str | None:
        """Why nothing is followed; None when the tables can be read."""
        return self._fault or (None if self._was_read else "The tables were not read yet.")

    def summary(self) -> str:
        """What became of the calls since the start, in one line."""
        counts = self._counts
        parts = [f"{counts['answered'] + counts['failed']:,} calls answered"]
        if counts["failed"]:
            parts[0] += f" ({counts['failed']:,} with an error status)"
        for outcome, words in (("unanswered", "without an answer"), ("unrecorded", "not recorded")):
            if counts[outcome]:
                parts.append(f"{counts[outcome]:,} {words}")
        parts += [f"{calls:,} skipped: {reason}" for reason, calls in sorted(self._reasons.items())]
        return "; ".join(parts) + "."

    def _count(self, outcome: str) -> None:
        self._calls.labels(outcome).inc()
        self._counts[outcome] += 1

    def _name(self, count: int, pair_id: str, came: datetime, why: str) -> None:
        """With its time: after a restart those of long ago are named again."""
        if count <= NAMED:
            log.warning("Call %s of %s UTC stays without a pair: %s.", pair_id, moment(came), why)
        if count == NAMED:
            log.warning("Further calls of that kind are counted, not named.")


@asynccontextmanager
async def served(
    metrics: Metrics, port: int | None, host: str | None = None
) -> AsyncIterator[int | None]:
    """The port where /metrics and /ready are answered meanwhile, on all addresses unless one is
    given; None serves nothing.
    """
    if port is None:
        yield None
        return

    async def show(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry),
            headers={"content-type": "text/plain; version=1.0.0; charset=utf-8"},
        )

    async def ready(_: web.Request) -> web.Response:
        why = metrics.why_not_ready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ready'}\n")

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    application = web.Application()
    application.router.add_get("/metrics", show)
    application.router.add_get("/ready", ready)
    application.router.add_get("/", alive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
