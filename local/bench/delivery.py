"""f) How fast the delivery moves rows from the spool to Postgres, against a bare COPY of them."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.servers import TRANSFORMER_PYTHON
from embedded_postgres import apply_schema, as_role

FILL = """
import sys
from minimal_transformer.handler import PredictionDBHandler
from minimal_transformer.settings import RecordSettings
handler = PredictionDBHandler(RecordSettings())
handler.open()
body, answer = b'{"values": ["3.3", "62.3", "324"]}', b'{"predictions": [6.6, 124.6, 648.0]}'
for number in range(int(sys.argv[1])):
    headers = {"x-shadow-pair-id": f"5f0c1d1e-8d5c-4d0f-9d6a-{number:012d}"}
    call = handler.record_request(body=body, headers=headers, protocol="v1", model_name="model",
                                  predict_url="/v1/models/model:predict")
    handler.record_response(call, status_code=200, body=answer)
handler.close()
"""


@dataclass(frozen=True)
class Moved:
    """Rows per second of one round, both ways."""

    delivered_rows_per_s: float
    copied_rows_per_s: float


def one_round(server_uri: str, folder: Path, calls: int, number: int) -> Moved:
    """Fill a spool, time its delivery; then time a COPY of the same rows into the same tables."""
    source = _new_database(server_uri, f"bench_delivered_{number}")
    target = _new_database(server_uri, f"bench_copied_{number}")
    settings = {
        "POSTGRES_URI": as_role(source, "transformer"),
        "SHADOW_ROLE": "primary",
        "INFERENCE_SERVICE": "bench",
        "SPOOL_DIR": str(folder / f"delivery-{number}"),
    }
    environment = os.environ | settings
    subprocess.run(
        [TRANSFORMER_PYTHON, "-c", FILL, str(calls)], env=environment, check=True, timeout=300
    )
    started = time.perf_counter()
    delivery = subprocess.Popen(
        [TRANSFORMER_PYTHON, "-m", "minimal_transformer.delivery"],
        env=environment,
        stdin=subprocess.PIPE,
    )
    _wait_for_rows(source, calls)
    delivered = 2 * calls / (time.perf_counter() - started)
    delivery.communicate(timeout=60)
    return Moved(delivered, _copied_rows_per_s(source, target, calls))


def _copied_rows_per_s(source: str, target: str, calls: int) -> float:
    seconds = 0.0
    for table in ("inference_requests", "inference_responses"):
        with (
            psycopg.connect(source) as reader,
            reader.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy,
        ):
            rows = [bytes(block) for block in copy]
        with psycopg.connect(target) as writer, writer.cursor() as cursor:
            started = time.perf_counter()
            for first in range(0, len(rows), 1000):
                with cursor.copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(b"".join(rows[first : first + 1000]))
                writer.commit()
            seconds += time.perf_counter() - started
    _wait_for_rows(target, calls)
    return 2 * calls / seconds


def _wait_for_rows(uri: str, calls: int, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    tables = ("inference_requests", "inference_responses")
    count = "SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    with psycopg.connect(uri, autocommit=True) as connection:
        while time.monotonic() < deadline:
            if connection.execute(count).fetchone() == (calls, calls):
                return
            time.sleep(0.2)
    raise TimeoutError(f"{calls} calls were not in Postgres after {seconds} s.")


def _new_database(server_uri: str, name: str) -> str:
    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    parts = conninfo_to_dict(server_uri)
    uri = f"postgresql://{parts['user']}@{parts['host']}:{parts['port']}/{name}"
    apply_schema(uri)
    return uri
