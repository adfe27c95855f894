"""`make soak`: ten minutes of callers of all kinds while everything breaks; see docs/soak.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
import psycopg
from rich.console import Console
from rich.progress import Progress

from bench.page import machine, spread, table
from bench.servers import Server, Servers
from embedded_postgres import Postgres, apply_schema, as_role
from shadow_local.translate.document import repository

PAGE = repository() / "docs" / "soak.md"
SEED = 20261125
SAMPLE_SECONDS = 5.0
PREDICT = "/v1/models/model:predict"
MAX_BODY_BYTES = 1024 * 1024
SETTINGS = {
    "RECORD_REDACT": "$.secret,$..password",
    "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    "MAX_IN_FLIGHT_BYTES": str(16 * 1024 * 1024),
}
# Growth of the last quarter over the second that is noise of the allocator and of caches.
FLAT_MIB = 16.0
FLAT_FILES = 16

# What callers send, and how often of a hundred; the path, the body and the headers of a call.
_VALUES = b'{"values": ["3.3", "62.3", "324"]}'
_NUMBERS = b'{"values": [%b], "password": "x"}' % b",".join([b"1.5"] * 30_000)
BODIES: dict[str, tuple[int, bytes]] = {
    "a v1 call": (60, _VALUES),
    "one with a secret": (10, b'{"values": [1], "secret": "x"}'),
    "120 kB of numbers": (4, _NUMBERS),
    "one nested 300 deep": (4, b'{"secret": 1, "x": ' + b"[" * 300 + b"]" * 300 + b"}"),
    "one that is not JSON": (4, bytes(range(256))),
    "an empty one": (4, b""),
    "900 kB": (2, b'{"values": ["' + b"x" * 900_000 + b'"]}'),
    "one over the limit": (2, bytes(MAX_BODY_BYTES + 1)),
}
UPGRADE = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAA"}
NOISE = (b"\x16\x03\x01 this is TLS\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nx")


@dataclass
class Observed:
    """What the callers got and what the processes held meanwhile."""

    answered: dict[str, int] = field(default_factory=dict)
    """Status by pair id."""
    left: set[str] = field(default_factory=set)
    """Pair ids of calls whose callers closed the connection before the answer."""
    failed: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[float, float, int, float]] = field(default_factory=list)
    """Seconds since the start, resident MiB, open files, spool MiB."""


class Callers:
    """Calls at a steady rate, whether or not earlier ones ended."""

    def __init__(self, server: Server, observed: Observed) -> None:
        self._url = server.url
        self._port = int(server.url.rpartition(":")[2])
        self._observed = observed
        self._chance = random.Random(SEED)

    async def call_steadily(self, rate: float, until: float) -> None:
        """Until the monotonic time; returns when the last call has its answer."""
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            asyncio.TaskGroup() as all_,
        ):
            due = time.monotonic()
            while due < until:
                all_.create_task(self._one(session))
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self, session: aiohttp.ClientSession) -> None:
        which = self._chance.random()
        if which < 0.02:
            await self._make_noise()
        elif which < 0.06:
            await self._leave()
        else:
            await self._call(session, upgrades=which < 0.10)

    async def _call(self, session: aiohttp.ClientSession, *, upgrades: bool) -> None:
        names, weights = list(BODIES), [weight for weight, _ in BODIES.values()]
        (name,) = self._chance.choices(names, weights)
        pair = str(uuid.uuid4())
        headers = {"x-shadow-pair-id": pair, "content-type": "application/json"}
        headers |= UPGRADE if upgrades else {}
        self._observed.sent[name] += 1
        try:
            url = self._url + PREDICT
            async with session.post(url, data=BODIES[name][1], headers=headers) as answer:
                await answer.read()
                self._observed.answered[pair] = answer.status
        except (aiohttp.ClientError, TimeoutError) as failure:
            self._observed.failed[type(failure).__name__] += 1
            self._observed.left.add(pair)

    async def _leave(self) -> None:
        """Send a call and close the connection, now or in a moment."""
        pair = str(uuid.uuid4())
        self._observed.sent["one whose caller leaves"] += 1
        self._observed.left.add(pair)
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nx-shadow-pair-id: {pair}\r\n"
        head += f"content-length: {len(_VALUES)}\r\n\r\n"
        await self._write(head.encode() + _VALUES, self._chance.choice((0.0, 0.001, 0.01)))

    async def _make_noise(self) -> None:
        """What is not HTTP, or a head that is not finished for a second."""
        self._observed.sent["noise"] += 1
        await self._write(self._chance.choice(NOISE), 1.0)

    async def _write(self, data: bytes, seconds: float) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(data)
            await asyncio.sleep(seconds)
            writer.transport.abort()


class Trouble:
    """Every fault in a random order, each for 1 to 15 seconds."""

    def __init__(self, postgres: Postgres, server: Server, predictor: Server) -> None:
        self._postgres = postgres
        self._server = server
        self._predictor = predictor
        self._chance = random.Random(SEED)
        self._faults: dict[str, Callable[[float], Awaitable[None]]] = {
            "Postgres stopped": self._stop,
            "Postgres killed": self._kill,
            "Postgres frozen": self._freeze,
            "a table locked": self._lock,
            "connections cut": self._cut,
            "delivery killed": self._kill_delivery,
            "delivery frozen": self._freeze_delivery,
            "the predictor frozen": self._freeze_predictor,
        }

    async def make(self, until: float, observed: Observed) -> None:
        """Until the monotonic time; everything is well again when it returns."""
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.uniform(1, 6))
            # Each as often as the others, in an order that changes.
            for name in self._chance.sample(list(self._faults), len(self._faults)):
                if time.monotonic() >= until:
                    break
                observed.faults[name] += 1
                await self._faults[name](self._chance.uniform(1, 15))
                await asyncio.sleep(self._chance.uniform(0, 4))

    async def _stop(self, seconds: float) -> None:
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._postgres.start)

    async def _kill(self, seconds: float) -> None:
        await asyncio.to_thread(self._postgres.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._postgres.start)

    async def _freeze(self, seconds: float) -> None:
        self._postgres.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._postgres.send_signal(signal.SIGCONT)

    async def _lock(self, seconds: float) -> None:
        async with await psycopg.AsyncConnection.connect(self._postgres.uri) as connection:
            await connection.execute("LOCK TABLE inference_requests IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(seconds)

    async def _cut(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with await psycopg.AsyncConnection.connect(self._postgres.uri) as connection:
            while time.monotonic() < until:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'minimal-transformer'"
                )
                await asyncio.sleep(0.2)

    async def _kill_delivery(self, seconds: float) -> None:
        self._signal_delivery(signal.SIGKILL)
        await asyncio.sleep(seconds)

    async def _freeze_delivery(self, seconds: float) -> None:
        self._signal_delivery(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._signal_delivery(signal.SIGCONT)

    def _signal_delivery(self, number: signal.Signals) -> None:
        for child in psutil.Process(self._server.pid).children(recursive=True):
            child.send_signal(number)

    async def _freeze_predictor(self, seconds: float) -> None:
        process = psutil.Process(self._predictor.pid)
        process.suspend()
        await asyncio.sleep(min(seconds, 3.0))
        process.resume()


async def watch(server: Server, until: float, observed: Observed, progress: Progress) -> None:
    """Sample the memory and the open files of the transformer and of its delivery."""
    began = time.monotonic()
    task = progress.add_task("soak", total=until - began)
    assert server.spool is not None
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE_SECONDS)
        parent = psutil.Process(server.pid)
        resident, files = 0, 0
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # killed meanwhile
                resident += process.memory_info().rss
                files += process.num_fds()
        spool = 0
        for path in server.spool.rglob("*"):
            with contextlib.suppress(OSError):  # delivered meanwhile
                spool += path.stat().st_size if path.is_file() else 0
        observed.samples.append((time.monotonic() - began, resident / 2**20, files, spool / 2**20))
        progress.update(task, completed=time.monotonic() - began)


async def soak(
    server: Server, predictor: Server, postgres: Postgres, seconds: float, rate: float
) -> Observed:
    """All three at once; everything is up again at the end."""
    observed = Observed()
    until = time.monotonic() + seconds
    with Progress() as progress:
        await asyncio.gather(
            Callers(server, observed).call_steadily(rate, until),
            Trouble(postgres, server, predictor).make(until, observed),
            watch(server, until, observed, progress),
        )
    return observed


@dataclass(frozen=True)
class Stored:
    """The tables at the end."""

    statuses: dict[str, int]
    """Of the response rows, by pair id."""
    requests: int
    responses: int
    gaps: int

    @classmethod
    def read(cls, uri: str) -> Stored:
        """Both tables, whole."""
        with psycopg.connect(uri) as connection:
            rows = connection.execute("SELECT pair_id, status_code FROM inference_responses")
            statuses = dict(rows.fetchall())
            counts = connection.execute(
                "SELECT (SELECT count(*) FROM inference_requests),"
                " (SELECT count(*) FROM inference_responses),"
                " (SELECT count(*) FROM inference_gaps)"
            ).fetchone()
        assert counts is not None
        return cls(statuses, *counts)


def faults_found(observed: Observed, stored: Stored) -> list[str]:
    """What is not as it should be; empty when every call is accounted for and nothing grew."""
    wrong = []
    missing = observed.answered.keys() - stored.statuses.keys()
    other = [
        pair for pair, status in observed.answered.items() if stored.statuses.get(pair) != status
    ]
    unknown = stored.statuses.keys() - observed.answered.keys() - observed.left
    if missing or other:
        wrong.append(f"{len(missing)} answers without a row, {len(other)} with another status")
    if unknown or stored.requests != stored.responses or stored.requests != len(stored.statuses):
        wrong.append(
            f"{len(unknown)} rows of nobody, {stored.requests} and {stored.responses} rows"
        )
    if stored.gaps:
        wrong.append(f"{stored.gaps} gaps")
    if observed.failed:
        wrong.append(f"callers without an answer: {dict(observed.failed)}")
    quarters = by_quarter(observed)
    if len(quarters) == 4:
        for name, index, limit in (("MiB", 1, FLAT_MIB), ("open files", 2, FLAT_FILES)):
            second, last = (
                sorted(s[index] for s in quarters[n])[len(quarters[n]) // 2] for n in (1, 3)
            )
            if last - second > limit:
                wrong.append(
                    f"{last - second:.0f} {name} more in the last quarter than in the second"
                )
    return wrong


def by_quarter(observed: Observed) -> list[list[tuple[float, float, int, float]]]:
    """The samples in four parts, so that a leak shows as a slope."""
    quarter = max(1, len(observed.samples) // 4)
    parts = [observed.samples[i : i + quarter] for i in range(0, 4 * quarter, quarter)]
    return [part for part in parts if part]


def page(observed: Observed, stored: Stored, seconds: float, rate: float) -> str:
    """The figures."""
    statuses = Counter(observed.answered.values())
    left = [stored.statuses[pair] for pair in observed.left if pair in stored.statuses]
    memory = table(
        ["quarter", "resident MiB, both processes", "open files", "spool MiB"],
        [
            [
                str(number),
                spread(sample[1] for sample in part),
                spread(sample[2] for sample in part),
                spread((sample[3] for sample in part), 1),
            ]
            for number, part in enumerate(by_quarter(observed), start=1)
        ],
    )
    verdict = "; ".join(faults_found(observed, stored)) or "Every answer has its rows"
    return (
        f"# Soak\n\n{machine()}\n\n"
        f"{seconds:.0f} s at {rate:.0f} calls/s through the recording transformer with redaction"
        " on, in front of a predictor that answers at once. Every fault in a random order, each"
        " for 1 to 15 s, and callers of every kind; `make soak` repeats the schedule.\n\n"
        + table(["fault", "times"], [[k, str(v)] for k, v in sorted(observed.faults.items())])
        + "\n"
        + table(["callers sent", "calls"], [[k, str(v)] for k, v in observed.sent.most_common()])
        + f"\nAnswered {len(observed.answered)} ({_told(statuses)}); request rows"
        f" {stored.requests}, response rows {stored.responses}, gaps {stored.gaps}. Of"
        f" {len(observed.left)} calls whose callers left, {len(left)} were whole when they did and"
        f" have rows ({_told(Counter(left))}). {verdict}.\n\n"
    ) + memory


def _told(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} with {status}" for status, count in sorted(statuses.items()))


def main() -> int:
    """Exit code 1 when a call is not accounted for, or something grew."""
    arguments = argparse.ArgumentParser(prog="make soak", description=__doc__)
    arguments.add_argument("--seconds", type=float, default=600)
    arguments.add_argument("--rate", type=float, default=100)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        postgres = Postgres(Path(folder, "postgres"))
        postgres.start()
        try:
            apply_schema(postgres.uri)
            uri = as_role(postgres.uri, "transformer")
            servers = Servers(Path(folder))
            with (
                servers.predictor() as alone,
                servers.recording(alone, uri, "spool", **SETTINGS) as server,
            ):
                observed = asyncio.run(soak(server, alone, postgres, options.seconds, options.rate))
                # It was started in a thread of the loop, and ends with that.
                postgres.restart()
                server.wait_until_delivered()
            stored = Stored.read(postgres.uri)
        finally:
            postgres.stop()
    text = page(observed, stored, options.seconds, options.rate)
    Console().print(text, markup=False, soft_wrap=True)
    if options.seconds >= 600:
        PAGE.write_text(text)
    return 1 if faults_found(observed, stored) else 0


if __name__ == "__main__":
    raise SystemExit(main())
