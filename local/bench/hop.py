"""a) to e): the predictor alone, stock KServe, and ours with and without recording."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from bench.load import Load, as_fast_as_it_goes, at_a_constant_rate
from bench.servers import Server, predictor, recording_transformer, stock_transformer

CONNECTIONS = (1, 16, 64)
PATHS = {"v1": "/v1/models/model:predict", "v2": "/v2/models/model/infer"}
TARGETS = ("a) predictor alone", "b) stock no-op", "c) ours, recording", "d) ours, not recording")


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    protocol: str
    body_bytes: int
    connections: int

    @property
    def is_long(self) -> bool:
        """Whether it is measured once: stock KServe takes a minute for 64 callers with 1 MB."""
        return self.body_bytes >= 1_000_000


@dataclass(frozen=True)
class Measurement:
    """One round of one cell on one server; CPU in milliseconds per call."""

    load: Load
    cpu_ms: float
    delivery_cpu_ms: float


Rounds = dict[tuple[Cell, str], list[Measurement]]
Servers = dict[tuple[str, str], Server]
"""By protocol and target: a stock transformer speaks one protocol with its predictor."""


@contextmanager
def all_targets(postgres_uri: str, folder: Path) -> Iterator[Servers]:
    """All servers at once, on one predictor; the idle ones cost nothing."""
    with (
        predictor() as alone,
        stock_transformer(alone.url, "v1") as stock_v1,
        stock_transformer(alone.url, "v2") as stock_v2,
        recording_transformer(alone.url, postgres_uri, folder / "c") as recording,
        recording_transformer(alone.url, postgres_uri, folder / "d", RECORD_SAMPLE="0") as silent,
    ):
        stock = {"v1": stock_v1, "v2": stock_v2}
        yield {
            (protocol, target): server
            for protocol in PATHS
            for target, server in zip(
                TARGETS, (alone, stock[protocol], recording, silent), strict=True
            )
        }


def body_of(protocol: str, size: int) -> bytes:
    """A request body of about `size` bytes; at 34 the sample request of the README."""
    if protocol == "v1":
        if size <= 34:
            return b'{"values": ["3.3", "62.3", "324"]}'
        return json.dumps({"values": [round(i * 0.37, 2) for i in range(size // 8)]}).encode()
    count = max(3, size // 8)
    data = [round(i * 0.37, 2) for i in range(count)]
    tensor = {"name": "x", "shape": [count], "datatype": "FP64", "data": data}
    # Stock KServe fails on an answer without id, and ours answers with the request's.
    return json.dumps({"id": "bench", "inputs": [tensor]}).encode()


def cells(body_sizes: tuple[int, ...]) -> list[Cell]:
    return [
        Cell(protocol, size, connections)
        for protocol in PATHS
        for size in body_sizes
        for connections in CONNECTIONS
    ]


def as_fast_as_they_go(
    servers: Servers, loads: list[Cell], rounds: int, seconds: float, progress: Progress
) -> Rounds:
    """Interleaved: in each round every cell visits every server, so that noise hits all alike."""
    found: Rounds = {(cell, name): [] for cell in loads for name in TARGETS}
    short = [cell for cell in loads if not cell.is_long]
    rounds_of_cells = [loads] + [short] * (rounds - 1)
    total = len(TARGETS) * sum(map(len, rounds_of_cells))
    task = progress.add_task("as fast as it goes", total=total)
    for number, chosen in enumerate(rounds_of_cells):
        for cell in chosen:
            for name in TARGETS[number % 4 :] + TARGETS[: number % 4]:
                server = servers[cell.protocol, name]
                found[cell, name].append(measured(server, cell, seconds))
                progress.advance(task)
    return found


def measured(server: Server, cell: Cell, seconds: float) -> Measurement:
    """One round of one cell, and what it cost the serving process."""
    url = server.url + PATHS[cell.protocol]
    body = body_of(cell.protocol, cell.body_bytes)
    cpu, delivery_cpu = server.cpu_seconds(), server.delivery_cpu_seconds()
    load = as_fast_as_it_goes(url, body, cell.connections, seconds)
    while not load.calls:  # 64 callers with 1 MB each may wait for longer
        seconds *= 4
        load = as_fast_as_it_goes(url, body, cell.connections, seconds)
    cpu = server.cpu_seconds() - cpu
    server.wait_until_delivered()
    delivery_cpu = server.delivery_cpu_seconds() - delivery_cpu
    return Measurement(load, 1e3 * cpu / load.calls, 1e3 * delivery_cpu / load.calls)


def at_half_of_stock(
    servers: Servers, found: Rounds, rounds: int, seconds: float, progress: Progress
) -> tuple[int, dict[str, list[Load]]]:
    """e) Latency at half of the calls/s that stock KServe reached at 16 connections."""
    cell = Cell("v1", 34, 16)
    reached = statistics.median(m.load.calls_per_s for m in found[cell, TARGETS[1]])
    rate = int(reached / 2)
    loads: dict[str, list[Load]] = {name: [] for name in TARGETS}
    task = progress.add_task("constant arrival rate", total=rounds * len(TARGETS))
    for _ in range(rounds):
        for name in TARGETS:
            server = servers["v1", name]
            url = server.url + PATHS["v1"]
            loads[name].append(at_a_constant_rate(url, body_of("v1", 34), rate, seconds))
            server.wait_until_delivered()
            progress.advance(task)
    return rate, loads
