"""ACCESS_LOG=1: one line for each call."""

from __future__ import annotations

import logging
import time

from minimal_transformer.exchange import Answer, Arrival
from minimal_transformer.record import Call

log = logging.getLogger("minimal_transformer.access")


def log_call(arrival: Arrival, call: Call | None, answer: Answer, started: float) -> None:
    """What was asked for, its pair id, its status and how long it took.

    A call that was not recorded has the pair id that it came with, or none.
    """
    took_ms = (time.perf_counter() - started) * 1000
    headers = arrival.headers
    pair_id = headers.get("x-shadow-pair-id") or headers.get("x-request-id") or "none"
    if call is not None:
        pair_id = call.pair_id
    route = arrival.route
    log.info(
        "%s %s pair=%s status=%d ms=%.2f",
        route.protocol,
        route.path,
        pair_id,
        answer.status,
        took_ms,
        extra={"pair_id": pair_id, "status": answer.status, "duration_ms": round(took_ms, 3)},
    )
