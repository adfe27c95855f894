"""Load from another process: wrk as fast as it goes, k6 at a constant arrival rate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

WRK_SCRIPT = Path(__file__).with_name("wrk.lua")
K6_SCRIPT = Path(__file__).with_name("k6.js")


@dataclass(frozen=True)
class Load:
    """One measurement: latencies in milliseconds; `dropped` calls could not start in time."""

    calls: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    dropped: int = 0


class CallsFailed(RuntimeError):
    """Some calls were not answered with 200, so the figures would be those of errors."""


def as_fast_as_it_goes(url: str, body: bytes, connections: int, seconds: float) -> Load:
    """`connections` callers, each sending its next call when its last is answered.

    With wrk where it is installed, otherwise with k6, which takes more of the machine for itself.
    """
    if shutil.which("wrk") is None:
        return _k6(url, body, {"EXECUTOR": "constant-vus", "VUS": str(connections)}, seconds)
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "600s"]
        result = subprocess.run(
            [*command, "-s", str(WRK_SCRIPT), url, "--", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(result.stdout.splitlines()[-1])
    if found["failed"]:
        raise CallsFailed(f"{found['failed']} of {found['calls']} calls to {url} failed.")
    return Load(found["calls"], found["calls"] / found["seconds"], found["p50_ms"], found["p99_ms"])


def at_a_constant_rate(url: str, body: bytes, calls_per_s: int, seconds: float) -> Load:
    """Calls start on schedule whether or not earlier ones are answered: no coordinated omission."""
    return _k6(url, body, {"EXECUTOR": "constant-arrival-rate", "RATE": str(calls_per_s)}, seconds)


def _k6(url: str, body: bytes, options: dict[str, str], seconds: float) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        sent, summary = Path(folder, "body"), Path(folder, "summary.json")
        sent.write_bytes(body)
        settings = options | {"URL": url, "BODY": str(sent), "SECONDS": f"{seconds:g}"}
        environment = [
            word for name, value in settings.items() for word in ("-e", f"{name}={value}")
        ]
        command = [str(Path(sys.executable).with_name("k6")), "run", "--quiet", "--no-usage-report"]
        subprocess.run(
            [*command, "--summary-export", str(summary), *environment, str(K6_SCRIPT)],
            capture_output=True,
            check=True,
        )
        metrics = json.loads(summary.read_text())["metrics"]
    calls = int(metrics["http_reqs"]["count"])
    failed = metrics["http_req_failed"]["passes"]
    if failed:
        raise CallsFailed(f"{failed} of {calls} calls to {url} failed.")
    duration = metrics["http_req_duration"]
    return Load(
        calls,
        metrics["http_reqs"]["rate"],
        duration["med"],
        duration["p(99)"],
        int(metrics.get("dropped_iterations", {}).get("count", 0)),
    )
