"""How fast records get into the tables, and what the report takes to read them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.hop import PATHS, body_of
from bench.load import as_fast_as_it_goes
from bench.servers import Checkout, Servers
from embedded_postgres import as_role

# A port where nobody listens: what is recorded stays on the spool.
NO_DATABASE = "postgresql://transformer@127.0.0.1:1/none"
TABLES = ("inference_requests", "inference_responses")
PAIRS = """
WITH calls AS (
    SELECT n, gen_random_uuid() AS primary_id, gen_random_uuid() AS shadow_id,
           date_trunc('day', now()) + n * interval '1 ms' AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
),
sides AS (
    SELECT n, at, primary_id AS record_id, 'primary' AS role, %(primary_recorder)s::uuid AS recorder
    FROM calls
    UNION ALL
    SELECT n, at + interval '1 ms', shadow_id, 'shadow', %(shadow_recorder)s::uuid FROM calls
),
requests AS (
    INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,
        pair_source, role, inference_service, model_name, protocol, predict_url, request_headers,
        request_data, request_size, request_sha256)
    SELECT record_id, at, recorder, n, 'pair-' || n, 'x-shadow-pair-id', role, role, 'model', 'v1',
           '/v1/models/model:predict', '{}', ('{"values": [' || n || ']}')::json, 20,
           sha256(n::text::bytea)
    FROM sides
)
INSERT INTO inference_responses (record_id, request_time, pair_id, response_time, status_code,
    duration_ms, response_data, response_size)
SELECT record_id, at, 'pair-' || n, at + interval '5 ms', 200, 5 + n %% 7,
       ('{"predictions": [' || n * 2 || '.5, ' || n || ', 0.25]}')::json, 40
FROM sides
"""
RECORDERS = {
    "primary_recorder": "0197a000-0000-7000-8000-000000000001",
    "shadow_recorder": "0197a000-0000-7000-8000-000000000002",
}


@dataclass(frozen=True)
class Moved:
    """Rows per second of one round, both ways."""

    delivered_rows_per_s: float
    copied_rows_per_s: float


@dataclass(frozen=True)
class Compared:
    """One comparison: wall seconds, peak resident memory, and the COPY next to it."""

    pairs: int
    seconds: float
    peak_mib: float
    copy_seconds: float


def move(servers: Servers, checkout: Checkout, source: str, target: str, seconds: float) -> Moved:
    """Fill a spool for some seconds, time its delivery to `source`; then COPY its rows to `target`.

    Only what the contract names is used, so that any checkout can be measured: the first server
    records without a database, the next one on the same spool delivers. The clock starts with the
    first rows, when that server is up.
    """
    spool = source.rsplit("/", 1)[-1]
    with servers.predictor() as alone:
        off = servers.recording(alone, NO_DATABASE, spool, checkout, SHUTDOWN_DRAIN_SECONDS="0")
        with off as server:
            url, body = server.url + PATHS["v1"], body_of("v1", 34)
            calls = as_fast_as_it_goes(url, body, 16, seconds).calls
        uri = as_role(source, "transformer")
        with (
            psycopg.connect(source, autocommit=True) as connection,
            servers.recording(alone, uri, spool, checkout) as server,
        ):
            before = _wait_for_rows(connection, 1)
            started = time.perf_counter()
            rows = _wait_for_rows(connection, 2 * calls) - before
            delivered = rows / (time.perf_counter() - started)
            server.wait_until_delivered()
    return Moved(delivered, _copied_rows_per_s(source, target))


def _copied_rows_per_s(source: str, target: str) -> float:
    seconds, total = 0.0, 0
    for table in TABLES:
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
        total += len(rows)
    return total / seconds


def _wait_for_rows(connection: psycopg.Connection, least: int, seconds: float = 300) -> int:
    """The number of rows, once there are at least so many."""
    deadline = time.monotonic() + seconds
    count = "SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
    while time.monotonic() < deadline:
        row = connection.execute(count).fetchone()
        if row is not None and row[0] >= least:
            return int(row[0])
        time.sleep(0.05)
    raise TimeoutError(f"{least} rows were not in Postgres after {seconds} s.")


def fill(uri: str, first: int, last: int) -> None:
    """Add the pairs `first` to `last`, equal on both sides: two rows a pair in each table."""
    with psycopg.connect(uri, autocommit=True) as connection:
        for start in range(first, last + 1, 500_000):
            end = min(start + 499_999, last)
            connection.execute(PAIRS, {"first": start, "last": end} | RECORDERS)
        connection.execute(f"VACUUM ANALYZE {', '.join(TABLES)}")


def compare(checkout: Checkout, uri: str, pairs: int) -> Compared:
    """Time `shadow-report compare` and a COPY of both tables to this process."""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [checkout.report, "compare"],
            env=os.environ | {"POSTGRES_URI": uri},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        peak_mib = 0.0
        while process.poll() is None:
            peak_mib = max(peak_mib, _peak_mib(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        errors.seek(0)
        if process.returncode not in (0, 10, 11, 12):
            raise RuntimeError(f"shadow-report failed: {errors.read().decode()}")
    return Compared(pairs, seconds, peak_mib, _copy_seconds(uri))


def _peak_mib(pid: int) -> float:
    """The peak so far; that of wait4 is never below our own, which the child shared at first."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib[0]) / 1024 if kib else 0.0


def _copy_seconds(uri: str) -> float:
    started = time.perf_counter()
    with psycopg.connect(uri) as connection, connection.cursor() as cursor:
        for table in TABLES:
            with cursor.copy(f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)") as copy:
                for _ in copy:
                    pass
    return time.perf_counter() - started
