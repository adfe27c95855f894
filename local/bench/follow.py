"""`make soak-follow`: a follower under load, while it and its candidate are killed at random.

In every other block of calls there is a follower, so that the primary's latency with it is seen
next to that without. Writes docs/soak-follow.md after a full run; the exit code is 1 unless in the
end each call has the candidate's answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import struct
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psycopg
from grpc import aio
from rich.console import Console

from bench.page import machine, table
from bench.servers import HERE, Server, Servers
from embedded_postgres import Postgres, apply_schema, as_role
from shadow_local.ports import free_port
from shadow_local.supervisor import Command
from shadow_local.translate.document import repository

PAGE = repository() / "docs" / "soak-follow.md"
SEED = 20261125
FULL = 100_000
BLOCKS = 4
SMALL = b'{"values": ["3.3", "62.3", "324"]}'
LARGE = b'{"values": ["3.3"], "padding": "' + b"x" * 8_000_000 + b'"}'
# A ModelInferRequest of one FP64 number, after its model's name.
TENSOR = b"\x0a\x07input-0\x12\x04FP64\x1a\x01\x01"
MESSAGE = (
    b"\x0a\x05model\x2a" + bytes([len(TENSOR)]) + TENSOR + b"\x3a\x08" + struct.pack("<d", 3.3)
)
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# One call in so many is of this kind; all others are small.
KINDS = {"large": 2000, "empty": 307, "binary": 211, "chunked": 103, "gRPC": 53}
DONE_SECONDS = 600.0
BEHIND_SECONDS = 2.0
POLITELY = ("nice", "-n", "19")
COUNTS = """
SELECT count(DISTINCT pair_id) FILTER (WHERE role = 'primary'),
       count(DISTINCT pair_id) FILTER (WHERE role = 'shadow' AND answered),
       count(*) FILTER (WHERE role = 'shadow')
           - count(DISTINCT pair_id) FILTER (WHERE role = 'shadow')
FROM (
    SELECT r.pair_id, r.role, a.record_id IS NOT NULL AS answered
    FROM inference_requests r
    LEFT JOIN inference_responses a USING (record_id, request_time, pair_id)
) AS calls
"""


@dataclass
class Observed:
    """What callers got, and what happened meanwhile."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    lags: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the last follower's start, and the lag then."""
    kills: Counter[str] = field(default_factory=Counter)


class Killable:
    """A process that may be killed, and is then started anew on the same ports."""

    def __init__(self, servers: Servers, command: Command) -> None:
        self._supervisor = servers.supervisor
        self._command = command
        self._pid: int | None = None

    def start(self) -> None:
        self._pid = self._supervisor.start(self._command)

    def kill(self) -> None:
        """SIGKILL, as a node that goes."""
        assert self._pid is not None
        os.kill(self._pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """SIGTERM, as a rollout."""
        if self._pid is not None:
            self._supervisor.stop(self._command.name)
        self._pid = None

    @property
    def is_running(self) -> bool:
        return self._pid is not None


class Callers:
    """Calls to the primary at a steady rate, of all kinds."""

    def __init__(self, url: str, grpc_port: int, observed: Observed) -> None:
        self._url = url
        self._grpc_port = grpc_port
        self._observed = observed
        self._random = random.Random(SEED)

    async def call(self, calls: int, rate: float, block: str) -> None:
        """Start `rate` calls a second, whether or not earlier ones ended."""
        latencies = self._observed.latencies_ms.setdefault(block, [])
        options = [("grpc.enable_http_proxy", 0)]
        async with (
            aiohttp.ClientSession() as session,
            aio.insecure_channel(f"127.0.0.1:{self._grpc_port}", options) as channel,
        ):
            pending: set[asyncio.Task[None]] = set()
            due = time.monotonic()
            for number in range(calls):
                kinds = (kind for kind, every in KINDS.items() if number % every == every - 1)
                kind = next(kinds, "small")
                task = asyncio.create_task(self._one(session, channel, kind, latencies))
                pending.add(task)
                task.add_done_callback(pending.discard)
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await asyncio.gather(*pending)

    async def _one(
        self,
        session: aiohttp.ClientSession,
        channel: aio.Channel,
        kind: str,
        latencies: list[float],
    ) -> None:
        began = time.perf_counter()
        if kind == "gRPC":
            answered = await self._infer(channel)
        else:
            body: object = {"small": SMALL, "large": LARGE, "empty": b""}.get(kind)
            if kind == "binary":
                body = self._random.randbytes(700)
            if kind == "chunked":
                body = _chunks(SMALL)
            async with session.post(self._url, data=body) as answer:
                await answer.read()
                # What is not JSON is the caller's mistake, and recorded as one.
                answered = answer.status == 200 or kind in ("binary", "empty")
        self._observed.sent[kind] += 1
        self._observed.failed += not answered
        if kind == "small":
            latencies.append(1000 * (time.perf_counter() - began))

    async def _infer(self, channel: aio.Channel) -> bool:
        try:
            await channel.unary_unary(MODEL_INFER)(MESSAGE, timeout=60)
        except aio.AioRpcError:
            return False
        return True


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 11):
        yield body[start : start + 11]


async def trouble(parts: dict[str, Killable], until: asyncio.Event, observed: Observed) -> None:
    """Kill one of the two at random moments; it stays away for up to ten seconds."""
    chance = random.Random(SEED)
    while not until.is_set():
        await _wait(until, chance.uniform(2, 8))
        if until.is_set():
            return
        name = chance.choice(sorted(parts))
        observed.kills[name] += 1
        await asyncio.to_thread(parts[name].kill)
        await _wait(until, chance.uniform(0, 10))
        parts[name].start()


async def watch(metrics_url: str, until: asyncio.Event, observed: Observed) -> None:
    """Sample the lag five times a second, while nobody is killed."""
    began = time.monotonic()
    while not until.is_set():
        await _wait(until, 0.2)
        if (lag := await asyncio.to_thread(lag_of, metrics_url)) is not None:
            observed.lags.append((time.monotonic() - began, lag))


def lag_of(metrics_url: str) -> float | None:
    """What the follower says of itself; None while it is not there."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("shadow_follow_lag_seconds "):
                    return float(line.split()[-1])
    except OSError:
        pass
    return None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


async def soak(  # noqa: PLR0917
    callers: Callers,
    parts: dict[str, Killable],
    metrics_url: str,
    calls: int,
    rate: float,
    observed: Observed,
) -> None:
    """Blocks of calls without and with a follower; killed are both only while there is one."""
    for number in range(BLOCKS):
        followed = number % 2 == 1
        over = asyncio.Event()
        troubles = []
        if followed:
            parts["follower"].start()
            # The last block is without kills: that is where the lag is looked at.
            last = number == BLOCKS - 1
            troubles = (
                [watch(metrics_url, over, observed)] if last else [trouble(parts, over, observed)]
            )
        running = [asyncio.create_task(one) for one in troubles]
        await callers.call(calls // BLOCKS, rate, "with" if followed else "without")
        over.set()
        await asyncio.gather(*running)
        if followed and number < BLOCKS - 1:
            await asyncio.to_thread(parts["follower"].stop)


def wait_until_followed(uri: str, calls: int) -> tuple[int, int, int]:
    """At the end: calls of the primary, those that the candidate answered, and further ones."""
    deadline = time.monotonic() + DONE_SECONDS
    while True:
        with psycopg.connect(uri) as connection:
            row = connection.execute(COUNTS).fetchone()
        assert row is not None
        if row[:2] == (calls, calls) or time.monotonic() > deadline:
            return row[0], row[1], row[2]
        time.sleep(1)


def page(observed: Observed, counts: tuple[int, int, int], calls: int, rate: float) -> str:
    """The figures."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in observed.sent.most_common())
    kills = ", ".join(f"{name} {count} times" for name, count in sorted(observed.kills.items()))
    rows = []
    for block, latencies in sorted(observed.latencies_ms.items()):
        cuts = statistics.quantiles(latencies, n=100)
        rows.append([f"{block} a follower", *(f"{cuts[n - 1]:.1f}" for n in (50, 95, 99))])
    behind = [at for at, lag in observed.lags if lag > BEHIND_SECONDS]
    caught_up = max(behind, default=0.0)
    lags = sorted(lag for at, lag in observed.lags if at > caught_up) or [float("nan")]
    return (
        f"# Soak of a follower\n\n{machine()}\n\n{calls:,} calls at {rate:g} a second: {kinds}."
        f" Large ones have 8 MB. Killed at random meanwhile, and away for up to 10 s: {kills}.\n\n"
        f"Recorded of the primary {counts[0]:,}, of them answered by the candidate {counts[1]:,},"
        f" answered once more {counts[2]:,}; calls that failed {observed.failed:,}.\n\n"
        f"The last follower started with the {calls // BLOCKS:,} calls of a block to catch up,"
        f" while calls went on; it was within {BEHIND_SECONDS:g} s after {caught_up:.0f} s. From"
        f" then on its lag was {statistics.median(lags):.2f} s in the median and {lags[-1]:.2f} s"
        " at most. Follower and candidate run at the lowest priority here, as on nodes of their"
        " own they would take none of the primary's CPU.\n\n"
    ) + table(["primary's small calls, ms", "p50", "p95", "p99"], rows)


def main() -> int:
    """Exit code 1 when a call failed or has no answer of the candidate."""
    arguments = argparse.ArgumentParser(prog="make soak-follow", description=__doc__)
    arguments.add_argument("--calls", type=int, default=FULL)
    arguments.add_argument("--rate", type=float, default=250)
    options = arguments.parse_args()
    calls = options.calls // BLOCKS * BLOCKS
    observed = Observed()
    with tempfile.TemporaryDirectory() as folder:
        postgres = Postgres(Path(folder, "postgres"))
        postgres.start()
        try:
            apply_schema(postgres.uri)
            counts = run(postgres.uri, Servers(Path(folder)), calls, options.rate, observed)
        finally:
            postgres.stop()
    text = page(observed, counts, calls, options.rate)
    Console().print(text, markup=False, soft_wrap=True)
    if calls >= FULL:
        PAGE.write_text(text)
    return 0 if observed.failed == 0 and counts[:2] == (calls, calls) else 1


def run(
    uri: str, servers: Servers, calls: int, rate: float, observed: Observed
) -> tuple[int, int, int]:
    """Start all of it, and return the counts at the end."""
    whole = {"RECORD_MAX_BODY_BYTES": str(2**24)}
    with (
        servers.predictor() as model,
        servers.recording(model, as_role(uri, "transformer"), "primary", **whole) as primary,
    ):
        grpc_port = _grpc_port(primary)
        candidate, to, to_grpc = _candidate(uri, servers, model, whole)
        candidate.start()
        follower, metrics_url = _follower(uri, servers, to, to_grpc)
        parts = {"candidate": candidate, "follower": follower}
        callers = Callers(f"{primary.url}/v1/models/model:predict", grpc_port, observed)
        try:
            asyncio.run(soak(callers, parts, metrics_url, calls, rate, observed))
            counts = wait_until_followed(uri, calls)
        finally:
            for part in parts.values():
                part.stop()
    return counts


def _grpc_port(server: Server) -> int:
    """Where a server of ours listens for gRPC: its command says so."""
    words = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"--grpc_port") + 1])


def _candidate(
    uri: str, servers: Servers, model: Server, env: dict[str, str]
) -> tuple[Killable, str, str]:
    """A recording transformer as shadow, with its addresses for REST and gRPC."""
    port, grpc_port = free_port(), free_port()
    words = [HERE.transformer_python, "-m", "minimal_transformer", "--model_name", "model"]
    words += ["--predictor_host", model.url.removeprefix("http://")]
    words += ["--http_port", str(port), "--grpc_port", str(grpc_port)]
    settings = {
        "POSTGRES_URI": as_role(uri, "transformer"),
        "SHADOW_ROLE": "shadow",
        "INFERENCE_SERVICE": "candidate",
        "SPOOL_DIR": str(servers.folder / "candidate"),
    }
    command = Command("candidate", (*POLITELY, *words), os.environ | settings | env, servers.folder)
    return Killable(servers, command), f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"


def _follower(uri: str, servers: Servers, to: str, to_grpc: str) -> tuple[Killable, str]:
    """A follower that knows nothing but where it began, and its metrics."""
    port = free_port()
    words = [HERE.report, "follow", "--to", to, "--to-grpc", to_grpc, "--shadow", "candidate"]
    words += ["--since", "1d", "--concurrency", "16", "--port", str(port)]
    env = os.environ | {"POSTGRES_URI": as_role(uri, "report")}
    command = Command("follower", (*POLITELY, *words), env, servers.folder)
    return Killable(servers, command), f"http://127.0.0.1:{port}/metrics"


if __name__ == "__main__":
    raise SystemExit(main())
