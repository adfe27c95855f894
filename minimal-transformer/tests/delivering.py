"""Recorders and delivery processes for tests, and what they leave in Postgres."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg

from minimal_transformer.handler import PredictionDBHandler
from minimal_transformer.settings import RecordSettings

SAMPLE = b'{"values": ["3.3", "62.3", "324"]}'
ANSWER = b'{"predictions": [6.6, 124.6, 648.0]}'
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
WAIT_SECONDS = 75.0
_OURS = ("POSTGRES_", "SHADOW_", "SPOOL_", "RECORD_", "INFERENCE_", "MODEL_", "PREDICTION_DB_")


def settings(folder: Path, uri: str = NOWHERE, **changes: Any) -> RecordSettings:
    """Settings of a primary whose spool is below `folder`."""
    values = {
        "postgres_uri": uri,
        "shadow_role": "primary",
        "inference_service": "double",
        "spool_dir": str(folder / "spool"),
    }
    return RecordSettings(**(values | changes))


def request(handler: PredictionDBHandler, body: bytes = SAMPLE, **headers: str) -> Any:
    """A call's arrival."""
    return handler.record_request(
        body=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        protocol="v1",
        model_name="model",
        predict_url="http://predictor/v1/models/model:predict",
    )


def record(handler: PredictionDBHandler, calls: int, body: bytes = SAMPLE) -> int:
    """So many calls, answered; how many were recorded."""
    recorded = 0
    for _ in range(calls):
        call = request(handler, body)
        handler.record_response(call, status_code=200, body=ANSWER)
        recorded += call is not None
    return recorded


def figures(handler: PredictionDBHandler) -> dict[str, float]:
    """The metrics by name, records by outcome."""
    return {
        sample.labels.get("outcome", sample.name): sample.value
        for metric in handler.metrics().collect()
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


def until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {WAIT_SECONDS:g} s for {what}")


class Delivery:
    """A delivery process as a transformer starts it, and what it logs."""

    def __init__(self, chosen: RecordSettings, log: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        self.log_path = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "minimal_transformer.delivery"],
                env=kept | chosen.as_environment(),
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
