"""The report on many pairs: seconds, memory, and the ratio to a COPY of the same rows."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass

import psycopg

from bench.servers import ROOT

REPORT = ROOT / "shadow-report" / ".venv" / "bin" / "shadow-report"


@dataclass(frozen=True)
class Compared:
    """One comparison: wall seconds, peak resident memory, and the COPY beside it."""

    pairs: int
    seconds: float
    peak_mib: float
    copy_seconds: float


def compare(uri: str, pairs: int) -> Compared:
    """Time `shadow-report compare` and a COPY of both tables to this process."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(REPORT), "compare"],
        env=os.environ | {"POSTGRES_URI": uri},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status) not in (0, 10, 11, 12):
        raise RuntimeError(f"shadow-report failed: {message.decode()}")
    return Compared(pairs, seconds, usage.ru_maxrss / 1024, _copy_seconds(uri))


def _copy_seconds(uri: str) -> float:
    started = time.perf_counter()
    with psycopg.connect(uri) as connection, connection.cursor() as cursor:
        for table in ("inference_requests", "inference_responses"):
            with cursor.copy(f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)") as copy:
                for _ in copy:
                    pass
    return time.perf_counter() - started
