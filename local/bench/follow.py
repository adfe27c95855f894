"""`make soak-follow`: a follower under load, while it and its candidate are killed at random.

In every other block of calls there is a follower, so that the primary's latency with it is seen
next to that without. Writes docs/soak-follow.md after a full run; the exit code is 1 unless in the
end each call has the candidate's answer, and `shadow-report compare` says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

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
# What happens to candidate and follower in each block of calls; None is one without a follower.
BLOCKS = (None, "kills", None, "kills", None, "outage", None, "calm")
OUTAGE_SECONDS = 60.0
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
POLITELY = ("nice", "-n", "19")
COUNTS = """
SELECT count(DISTINCT pair_id) FILTER (WHERE role = 'primary'),
       count(DISTINCT pair_id) FILTER (WHERE role = 'shadow' AND answered),
       count(*) FILTER (WHERE role = 'shadow' AND answered)
           - count(DISTINCT pair_id) FILTER (WHERE role = 'shadow' AND answered),
       count(*) FILTER (WHERE role = 'shadow' AND NOT answered)
FROM (
    SELECT r.pair_id, r.role, a.record_id IS NOT NULL AS answered
    FROM inference_requests r
    LEFT JOIN inference_responses a USING (record_id, request_time, pair_id)
) AS calls
"""


class Counts(NamedTuple):
    """What the tables hold in the end."""

    primary: int
    answered: int
    """Of those, the calls that the candidate has answered."""
    answered_again: int
    unanswered: int
    """Attempts that ended with the candidate."""


@dataclass
class Observed:
    """What callers got, and what happened meanwhile."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    """Of a follower that has caught up, while calls come, seconds."""
    caught_up: tuple[int, float] = (0, 0.0)
    """Calls that waited for it, and the seconds that it took."""
    kills: Counter[str] = field(default_factory=Counter)
    cpu_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Of the primary's transformer and its delivery."""


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
            # No two alike: what repeats itself is worth less to `compare`.
            small = SMALL.replace(b"324", b"%d" % self._random.getrandbits(48))
            body: object = {"small": small, "large": LARGE, "empty": b""}.get(kind)
            if kind == "binary":
                body = self._random.randbytes(700)
            if kind == "chunked":
                body = _chunks(small)
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


async def outage(parts: dict[str, Killable], observed: Observed) -> None:
    """The candidate is away for a minute."""
    observed.kills["candidate"] += 1
    await asyncio.to_thread(parts["candidate"].kill)
    await asyncio.sleep(OUTAGE_SECONDS)
    parts["candidate"].start()


async def watch(metrics_url: str, until: asyncio.Event, observed: Observed) -> None:
    """Sample the lag five times a second, while nobody is killed."""
    while not until.is_set():
        await _wait(until, 0.2)
        if (lag := await asyncio.to_thread(lag_of, metrics_url)) is not None:
            observed.lags.append(lag)


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


@dataclass(frozen=True)
class Soak:
    """All that is measured, running."""

    uri: str
    callers: Callers
    primary: Server
    parts: dict[str, Killable]
    metrics_url: str
    observed: Observed

    async def run(self, calls: int, rate: float) -> None:
        """Blocks of calls without and with a follower."""
        for happens in BLOCKS:
            kind = "with" if happens else "without"
            over = asyncio.Event()
            if happens:
                self.parts["follower"].start()
            if happens == "calm":
                await asyncio.to_thread(self._catch_up)
            happening = asyncio.create_task(self._happen(happens, over))
            before = self._cpu_seconds()
            await self.callers.call(calls // len(BLOCKS), rate, kind)
            self.observed.cpu_seconds[kind] += self._cpu_seconds() - before
            over.set()
            await happening
            if happens != "calm":
                await asyncio.to_thread(self.parts["follower"].stop)

    def _catch_up(self) -> None:
        """Wait until the calls so far are followed."""
        began, calls = time.monotonic(), self.observed.sent.total()
        with psycopg.connect(self.uri) as connection:
            row = connection.execute(COUNTS).fetchone()
        assert row is not None
        wait_until_followed(self.uri, calls)
        self.observed.caught_up = calls - Counts(*row).answered, time.monotonic() - began

    async def _happen(self, what: str | None, over: asyncio.Event) -> None:
        if what == "kills":
            await trouble(self.parts, over, self.observed)
        elif what == "outage":
            await outage(self.parts, self.observed)
        elif what == "calm":
            await watch(self.metrics_url, over, self.observed)

    def _cpu_seconds(self) -> float:
        return self.primary.cpu_seconds() + self.primary.delivery_cpu_seconds()


def wait_until_followed(uri: str, calls: int) -> Counts:
    """What is there once every call is answered, or when that takes too long."""
    deadline = time.monotonic() + DONE_SECONDS
    while True:
        with psycopg.connect(uri) as connection:
            row = connection.execute(COUNTS).fetchone()
        assert row is not None
        counts = Counts(*row)
        if counts[:2] == (calls, calls) or time.monotonic() > deadline:
            return counts
        time.sleep(1)


def compared(uri: str, folder: Path) -> dict[str, Any]:
    """What `shadow-report compare` says of the calls, as JSON."""
    file = folder / "report.json"
    subprocess.run(
        [HERE.report, "compare", "--settle", "0s", "--json", file],
        env=os.environ | {"POSTGRES_URI": as_role(uri, "report")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    report: dict[str, Any] = json.loads(file.read_bytes())
    return report


def page(
    observed: Observed, counts: Counts, report: dict[str, Any], calls: int, rate: float
) -> str:
    """The figures."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in observed.sent.most_common())
    kills = " and ".join(f"the {name} {count} times" for name, count in observed.kills.items())
    rows = []
    cuts = {
        kind: statistics.quantiles(latencies, n=100)
        for kind, latencies in observed.latencies_ms.items()
    }
    for kind, of_kind in cuts.items():
        cpu_ms = 1000 * observed.cpu_seconds[kind] / (calls // 2)
        quantiles = (f"{of_kind[n - 1]:.1f}" for n in (50, 95, 99))
        rows.append([f"{kind} a follower", *quantiles, f"{cpu_ms:.2f}"])
    ratio = cuts["with"][49] / cuts["without"][49]
    waiting, seconds = observed.caught_up
    lags = sorted(observed.lags) or [float("nan")]
    integrity = report["integrity"]
    return (
        f"# Soak of a follower\n\n{machine()}\n\n{calls:,} calls at {rate:g} a second: {kinds}."
        f" Large ones have 8 MB. Killed meanwhile: {kills}; at random moments and away for up to"
        f" 10 s, the candidate once for {OUTAGE_SECONDS:g} s.\n\n"
        f"Recorded of the primary {counts.primary:,}, of them answered by the candidate"
        f" {counts.answered:,}; answered once more {counts.answered_again:,}; attempts that ended"
        f" with the candidate {counts.unanswered:,}. Calls that failed: {observed.failed:,}.\n\n"
        f"`shadow-report compare`: coverage {integrity['coverage']:.2%}, {report['pairs']:,} pairs,"
        f" {report['new_faults']:,} new faults, {integrity['resent']:,} attempts sent again,"
        f" verdict {report['verdict']}.\n\n"
        f"Before the last block {waiting:,} calls waited; the follower had caught up after"
        f" {seconds:.0f} s, {waiting / seconds:,.0f} calls a second. In the block its lag behind"
        f" what is delivered was {statistics.median(lags):.2f} s in the median,"
        f" {lags[int(0.95 * len(lags))]:.2f} s in 95 % of {len(lags)} looks and {lags[-1]:.2f} s at"
        " most. Follower and candidate run at the lowest priority here, as on nodes of their own"
        " they would take none of the primary's CPU.\n\n"
    ) + table(
        ["primary's small calls, ms", "p50", "p95", "p99", "CPU a call (transformer, delivery)"],
        [*rows, ["ratio of the medians", f"{ratio:.2f}", "", "", ""]],
    )


def main() -> int:
    """Exit code 1 when a call failed or has no answer of the candidate."""
    arguments = argparse.ArgumentParser(prog="make soak-follow", description=__doc__)
    arguments.add_argument("--calls", type=int, default=FULL)
    arguments.add_argument("--rate", type=float, default=250)
    options = arguments.parse_args()
    calls = options.calls // len(BLOCKS) * len(BLOCKS)
    observed = Observed()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        postgres = Postgres(folder / "postgres")
        postgres.start()
        try:
            apply_schema(postgres.uri)
            counts = run(postgres.uri, Servers(folder), calls, options.rate, observed)
            report = compared(postgres.uri, folder)
        finally:
            postgres.stop()
    text = page(observed, counts, report, calls, options.rate)
    Console().print(text, markup=False, soft_wrap=True)
    if calls >= FULL:
        PAGE.write_text(text)
    is_complete = counts[:2] == (calls, calls) and report["integrity"]["coverage"] == 1
    return 0 if is_complete and not observed.failed else 1


def run(uri: str, servers: Servers, calls: int, rate: float, observed: Observed) -> Counts:
    """Start all of it, and return the counts at the end."""
    whole = {"RECORD_MAX_BODY_BYTES": str(2**24)}
    with (
        servers.predictor() as model,
        servers.recording(model, as_role(uri, "transformer"), "primary", **whole) as primary,
    ):
        candidate, to, to_grpc = _candidate(uri, servers, model, whole)
        candidate.start()
        follower, metrics_url = _follower(uri, servers, to, to_grpc)
        parts = {"candidate": candidate, "follower": follower}
        url = f"{primary.url}/v1/models/model:predict"
        callers = Callers(url, _grpc_port(primary), observed)
        try:
            soak = Soak(uri, callers, primary, parts, metrics_url, observed)
            asyncio.run(soak.run(calls, rate))
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
