"""`make soak`: ten minutes of steady load while Postgres comes and goes; writes docs/soak.md."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
import time
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
SEED = 20261123
SAMPLE_SECONDS = 5.0


@dataclass
class Observed:
    """What the load saw and what the processes held meanwhile."""

    answered: int = 0
    failed: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    samples: list[tuple[float, float, int, float]] = field(default_factory=list)
    """Seconds since the start, resident MiB, open files, spool MiB."""


async def call_steadily(url: str, rate: float, until: float, observed: Observed) -> None:
    """Start `rate` calls/s until the monotonic time `until`, whether or not earlier ones ended."""
    body = {"values": ["3.3", "62.3", "324"]}
    async with aiohttp.ClientSession() as session:

        async def call() -> None:
            try:
                async with session.post(url, json=body) as answer:
                    await answer.read()
                    observed.answered += answer.status == 200
                    observed.failed += answer.status != 200
            except aiohttp.ClientError:
                observed.failed += 1

        pending: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while due < until:
            task = asyncio.create_task(call())
            pending.add(task)
            task.add_done_callback(pending.discard)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*pending)


async def trouble(server: Postgres, until: float, observed: Observed) -> None:
    """Stop, kill or freeze Postgres at random moments, each for 1 to 20 seconds."""
    chance = random.Random(SEED)
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(2, 15))
        fault = chance.choice(("stopped", "killed", "frozen"))
        observed.faults[fault] = observed.faults.get(fault, 0) + 1
        if fault == "frozen":
            server.send_signal(signal.SIGSTOP)
        else:
            await asyncio.to_thread(server.stop if fault == "stopped" else server.kill)
        await asyncio.sleep(chance.uniform(1, 20))
        if fault == "frozen":
            server.send_signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(server.start)


async def watch(server: Server, until: float, observed: Observed, progress: Progress) -> None:
    """Sample the memory and the open files of the transformer and of its delivery."""
    began = time.monotonic()
    task = progress.add_task("soak", total=until - began)
    assert server.spool is not None
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE_SECONDS)
        parent = psutil.Process(server.pid)
        processes = [parent, *parent.children(recursive=True)]
        resident = sum(process.memory_info().rss for process in processes) / 2**20
        files = sum(process.num_fds() for process in processes)
        spool = sum(path.stat().st_size for path in server.spool.rglob("*") if path.is_file())
        observed.samples.append((time.monotonic() - began, resident, files, spool / 2**20))
        progress.update(task, completed=time.monotonic() - began)


async def soak(server: Server, postgres: Postgres, seconds: float, rate: float) -> Observed:
    """All three at once; Postgres is up again at the end."""
    observed = Observed()
    until = time.monotonic() + seconds
    url = f"{server.url}/v1/models/model:predict"
    with Progress() as progress:
        await asyncio.gather(
            call_steadily(url, rate, until, observed),
            trouble(postgres, until, observed),
            watch(server, until, observed, progress),
        )
    return observed


def stored(uri: str) -> tuple[int, int, int]:
    """Request rows, response rows, gaps."""
    tables = ("inference_requests", "inference_responses", "inference_gaps")
    counts = ", ".join(f"(SELECT count(*) FROM {name})" for name in tables)
    with psycopg.connect(uri) as connection:
        row = connection.execute(f"SELECT {counts}").fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def page(observed: Observed, rows: tuple[int, int, int], seconds: float, rate: float) -> str:
    """The figures; memory and files by quarter, so that a leak shows as a slope."""
    quarter = max(1, len(observed.samples) // 4)
    quarters = [observed.samples[i : i + quarter] for i in range(0, 4 * quarter, quarter)]
    faults = ", ".join(f"{kind} {count} times" for kind, count in sorted(observed.faults.items()))
    head = ["quarter", "resident MiB, both processes", "open files", "spool MiB"]
    body = [
        [
            str(number),
            spread(sample[1] for sample in part),
            spread(sample[2] for sample in part),
            spread((sample[3] for sample in part), 1),
        ]
        for number, part in enumerate(quarters, start=1)
        if part
    ]
    return (
        f"# Soak\n\n{machine()}\n\n"
        f"{seconds:.0f} s at {rate:.0f} calls/s through the recording transformer, in front of a"
        " predictor that answers at once; meanwhile"
        f" Postgres was {faults}, each for 1 to 20 s.\n\n"
        f"Answered {observed.answered}, failed {observed.failed}; request rows {rows[0]}, response"
        f" rows {rows[1]}, gaps {rows[2]}.\n\n"
    ) + table(head, body)


def main() -> int:
    """Exit code 1 when a call failed or a record is missing."""
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
            with servers.predictor() as alone, servers.recording(alone, uri, "spool") as server:
                observed = asyncio.run(soak(server, postgres, options.seconds, options.rate))
                # It was started in a thread of the loop, and ends with that.
                postgres.restart()
                server.wait_until_delivered()
            rows = stored(postgres.uri)
        finally:
            postgres.stop()
    text = page(observed, rows, options.seconds, options.rate)
    Console().print(text, markup=False, soft_wrap=True)
    if options.seconds >= 600:
        PAGE.write_text(text)
    return 0 if rows == (observed.answered, observed.answered, 0) else 1


if __name__ == "__main__":
    raise SystemExit(main())
