"""Streamed answers: the time to the first token, and tokens per second, of each way to a model."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass

import aiohttp
from rich.progress import Progress

from bench.hop import ALONE, RECORDING, SILENT
from bench.servers import Server, Servers

PATH = "/openai/v1/chat/completions"
PROXY = "a plain proxy of aiohttp"
# Of the scripted predictor's.
EVENT_BYTES = 186
END_BYTES = len(b"data: [DONE]\n\n")
# In a row; at once, with a pause between events; and as fast as they go.
IN_A_ROW = 200
PACED, PACED_EVENTS, PAUSE_MS = 100, 50, 20
FULL, FULL_EVENTS = 8, 10_000


@dataclass(frozen=True)
class Streamed:
    """One round of one target."""

    first_ms: float
    paced_p50_ms: float
    paced_p99_ms: float
    events_per_s: float


Streams = dict[str, list[Streamed]]


def targets(stack: ExitStack, servers: Servers, postgres_uri: str) -> dict[str, Server]:
    """The predictor, and what stands in front of it."""
    alone = stack.enter_context(servers.predictor())
    return {
        ALONE: alone,
        PROXY: stack.enter_context(servers.proxy(alone)),
        SILENT: stack.enter_context(
            servers.recording(alone, postgres_uri, "silent", RECORD_SAMPLE="0")
        ),
        RECORDING: stack.enter_context(servers.recording(alone, postgres_uri, "recording")),
    }


def status_of_stock(stack: ExitStack, servers: Servers) -> int:
    """What stock KServe's transformer answers to a chat."""
    stock = stack.enter_context(servers.stock(stack.enter_context(servers.predictor()), "v1"))

    async def ask() -> int:
        async with aiohttp.ClientSession() as session, session.post(stock.url + PATH) as answer:
            return answer.status

    return asyncio.run(ask())


def measure(found: dict[str, Server], rounds: int, is_quick: bool, progress: Progress) -> Streams:
    """Interleaved rounds; a quick one has a tenth of the calls and events."""
    task = progress.add_task("streams", total=rounds * len(found))
    streams: Streams = {name: [] for name in found}
    for _ in range(rounds):
        for name, server in found.items():
            streams[name].append(asyncio.run(_round(server.url + PATH, 10 if is_quick else 1)))
            server.wait_until_delivered()
            progress.advance(task)
    return streams


async def _round(url: str, divisor: int) -> Streamed:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        first = [await _first_ms(session, url, 2, 0) for _ in range(IN_A_ROW // divisor)]
        paced = await asyncio.gather(
            *(_first_ms(session, url, PACED_EVENTS, PAUSE_MS) for _ in range(PACED // divisor))
        )
        started = time.perf_counter()
        events = await asyncio.gather(
            *(_events(session, url, FULL_EVENTS // divisor) for _ in range(FULL))
        )
        took = time.perf_counter() - started
    return Streamed(
        first_ms=statistics.median(first),
        paced_p50_ms=statistics.median(paced),
        paced_p99_ms=statistics.quantiles(paced, n=100)[-1],
        events_per_s=sum(events) / took,
    )


async def _first_ms(session: aiohttp.ClientSession, url: str, events: int, pause_ms: int) -> float:
    """Milliseconds to the first event's bytes; the rest is read as well."""
    started = time.perf_counter()
    async with session.post(url, data=_call(events, pause_ms)) as answer:
        await answer.content.readany()
        took = time.perf_counter() - started
        await answer.read()
    return took * 1000


async def _events(session: aiohttp.ClientSession, url: str, events: int) -> int:
    """How many events came; all of them, or the measurement is wrong."""
    size = 0
    async with session.post(url, data=_call(events, 0)) as answer:
        async for chunk in answer.content.iter_any():
            size += len(chunk)
    if size != events * EVENT_BYTES + END_BYTES:
        raise RuntimeError(f"{url} sent {size} bytes for {events} events")
    return events


def _call(events: int, pause_ms: int) -> bytes:
    return json.dumps(
        {"messages": [], "model": "model", "max_tokens": events, "pause_ms": pause_ms}
    ).encode()
