"""Recorders and delivery processes for tests, and what they leave in Postgres."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
from serving import WAIT_SECONDS, environment

from minimal_transformer.delivery.supervisor import DeliveryProcess
from minimal_transformer.exchange import Answer, Arrival, Route
from minimal_transformer.recording.handler import Call, PredictionDBHandler
from minimal_transformer.settings import RecordSettings

SAMPLE = b'{"values": ["3.3", "62.3", "324"]}'
ANSWER = b'{"predictions": [6.6, 124.6, 648.0]}'
_PATH = "/v1/models/model:predict"
ROUTE = Route("v1", "predict", _PATH, "model", f"http://predictor{_PATH}")
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def settings(folder: Path, uri: str = NOWHERE, **changes: Any) -> RecordSettings:
    """Settings of a primary whose spool is below `folder`."""
    values = {
        "postgres_uri": uri,
        "shadow_role": "primary",
        "inference_service": "double",
        "spool_dir": str(folder / "spool"),
    }
    return RecordSettings(**(values | changes))


def request(handler: PredictionDBHandler, body: bytes = SAMPLE, **headers: str) -> Call | None:
    """A call's arrival."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return handler.record_request(Arrival(ROUTE, body, named))


def respond(
    handler: PredictionDBHandler,
    call: Call | None,
    body: bytes = ANSWER,
    status: int = 200,
    error: str | None = None,
) -> None:
    """A call's answer."""
    handler.record_response(call, Answer(status, body, [], error))


def deliver_from(handler: PredictionDBHandler, chosen: RecordSettings) -> DeliveryProcess:
    """The handler's own delivery process, started as the server starts it."""
    handler.claim_counters()
    delivery = DeliveryProcess(chosen, handler.counters_folder)
    delivery.start()
    return delivery


def record(handler: PredictionDBHandler, calls: int, body: bytes = SAMPLE) -> int:
    """So many calls, answered; how many were recorded."""
    recorded = 0
    for _ in range(calls):
        call = request(handler, body)
        respond(handler, call)
        recorded += call is not None
    return recorded


def figures(handler: PredictionDBHandler) -> dict[str, float]:
    """The metrics by name, records by outcome."""
    return {
        sample.labels.get("outcome", sample.name): sample.value
        for metric in handler.metrics.collect()
        for sample in metric.samples
    }


def rows(uri: str, query: str) -> list[tuple[Any, ...]]:
    """What a superuser reads."""
    with psycopg.connect(uri) as connection:
        return connection.execute(query.encode()).fetchall()


def stored(uri: str) -> tuple[int, int, int]:
    """How many request rows, response rows and holes there are."""
    return rows(
        uri,
        "SELECT (SELECT count(*) FROM inference_requests), (SELECT count(*) FROM"
        " inference_responses), (SELECT count(*) FROM inference_gaps)",
    )[0]


class Delivery:
    """A delivery process as a transformer starts it, and what it logs."""

    def __init__(self, chosen: RecordSettings, log: Path) -> None:
        self.log_path = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "minimal_transformer.delivery"],
                env=environment(**chosen.as_environment()),
                stdin=subprocess.PIPE,
                stderr=stream,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def drain(self, seconds: float) -> int:
        """Order it to drain; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"drain %f\n" % seconds)
        self.process.stdin.flush()
        return self.process.wait(WAIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def segments(folder: Path) -> Iterator[Path]:
    """The spool files below `folder`, in the order of their names."""
    return iter(sorted((folder / "spool").glob("*.seg")))
