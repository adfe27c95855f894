"""What a call costs: the hop through a transformer, and the copy of a call at the gateway."""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from bench.load import Load, as_fast_as_it_goes, at_a_constant_rate
from bench.servers import Checkout, Server, Servers
from shadow_local.stack import Options, Stack
from shadow_local.translate.document import repository

CONNECTIONS = (1, 16, 64)
PATHS = {"v1": "/v1/models/model:predict", "v2": "/v2/models/model/infer"}
ALONE, STOCK = "a) predictor alone", "b) stock no-op"
RECORDING, SILENT = "c) ours, recording", "d) ours, not recording"
GATEWAY_CALLS_PER_S = 100
MIRRORING = ("mirroring off", "mirroring on", "mirroring on, the shadow stopped (SIGSTOP)")


@dataclass(frozen=True)
class Cell:
    """One kind of load."""

    protocol: str
    body_bytes: int
    connections: int

    def __str__(self) -> str:
        return f"{self.protocol}, {self.body_bytes} B, {self.connections}"

    @property
    def is_long(self) -> bool:
        """Whether it is measured once: stock KServe takes a minute for 64 callers with 1 MB."""
        return self.body_bytes >= 1_000_000


SAMPLE_CALL = Cell("v1", 34, 16)


@dataclass(frozen=True)
class Measurement:
    """One round of one cell on one server; CPU in milliseconds per call."""

    load: Load
    cpu_ms: float
    delivery_cpu_ms: float


Rounds = dict[tuple[Cell, str], list[Measurement]]
Targets = Mapping[str, Mapping[str, Server]]
"""By name and protocol: a stock transformer speaks one protocol with its predictor."""


def all_targets(stack: ExitStack, servers: Servers, postgres_uri: str) -> Targets:
    """The predictor alone, and what stands in front of it; the idle ones cost nothing."""
    alone = stack.enter_context(servers.predictor())
    recording = stack.enter_context(servers.recording(alone, postgres_uri, "c"))
    silent = servers.recording(alone, postgres_uri, "d", RECORD_SAMPLE="0")
    return {
        ALONE: dict.fromkeys(PATHS, alone),
        STOCK: {name: stack.enter_context(servers.stock(alone, name)) for name in PATHS},
        RECORDING: dict.fromkeys(PATHS, recording),
        SILENT: dict.fromkeys(PATHS, stack.enter_context(silent)),
    }


def of_each(
    stack: ExitStack, servers: Servers, postgres_uri: str, checkouts: Sequence[Checkout]
) -> Targets:
    """The transformers of several checkouts in front of one predictor."""
    alone = stack.enter_context(servers.predictor())
    targets = {}
    for name, share in ((RECORDING, "1"), (SILENT, "0")):
        for checkout in checkouts:
            title = f"{name}: {checkout.name}"
            server = servers.recording(alone, postgres_uri, title, checkout, RECORD_SAMPLE=share)
            targets[title] = dict.fromkeys(PATHS, stack.enter_context(server))
    return targets


def body_of(protocol: str, size: int) -> bytes:
    """A request body of about `size` bytes; at 34 the sample request of the README."""
    if protocol == "v1":
        if size <= 34:
            return b'{"values": ["3.3", "62.3", "324"]}'
        return json.dumps({"values": [round(i * 0.37, 2) for i in range(size // 8)]}).encode()
    count = max(3, size // 8)
    data = [round(i * 0.37, 2) for i in range(count)]
    tensor = {"name": "x", "shape": [count], "datatype": "FP64", "data": data}
    # Stock KServe fails on an answer without id, and the predictor answers with the request's.
    return json.dumps({"id": "bench", "inputs": [tensor]}).encode()


def cells(body_sizes: Sequence[int]) -> list[Cell]:
    return [
        Cell(protocol, size, connections)
        for protocol in PATHS
        for size in body_sizes
        for connections in CONNECTIONS
    ]


def as_fast_as_they_go(
    targets: Targets, loads: Sequence[Cell], rounds: int, seconds: float, progress: Progress
) -> Rounds:
    """Interleaved: in each round every cell visits every target, so that noise hits all alike."""
    names = list(targets)
    found: Rounds = {(cell, name): [] for cell in loads for name in names}
    visits = [(number, cell) for number in range(rounds) for cell in loads]
    visits = [(number, cell) for number, cell in visits if number == 0 or not cell.is_long]
    task = progress.add_task("as fast as it goes", total=len(visits) * len(names))
    for number, cell in visits:
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[cell, name].append(measured(targets[name][cell.protocol], cell, seconds))
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
    targets: Targets, found: Rounds, rounds: int, seconds: float, progress: Progress
) -> tuple[int, dict[str, list[Load]]]:
    """Latency at half of the calls/s that stock KServe reached at 16 connections."""
    rate = int(statistics.median(m.load.calls_per_s for m in found[SAMPLE_CALL, STOCK]) / 2)
    loads: dict[str, list[Load]] = {name: [] for name in targets}
    task = progress.add_task("constant arrival rate", total=rounds * len(targets))
    for _ in range(rounds):
        for name in targets:
            server = targets[name]["v1"]
            url = server.url + PATHS["v1"]
            loads[name].append(at_a_constant_rate(url, body_of("v1", 34), rate, seconds))
            server.wait_until_delivered()
            progress.advance(task)
    return rate, loads


def through_the_gateway(folder: Path, rounds: int, seconds: float) -> dict[str, list[Load]]:
    """The caller's latency at 100 calls/s through Envoy, the shadow healthy and stopped."""
    loads: dict[str, list[Load]] = {case: [] for case in MIRRORING}

    def load(stack: Stack) -> Load:
        assert stack.state is not None
        url = stack.state.predict_url
        return at_a_constant_rate(url, body_of("v1", 34), GATEWAY_CALLS_PER_S, seconds)

    with ExitStack() as ended:
        stages = {}
        for stage in ("mirroring-off", "mirroring-on"):
            kustomization = repository() / "manifests" / "stages" / stage
            stages[stage] = Stack(Options(folder / stage, kustomization))
            ended.callback(stages[stage].stop)
            stages[stage].start()
        on = stages["mirroring-on"]
        assert on.state is not None
        assert on.state.shadow is not None
        shadow = on.state.shadow.transformer_pid
        assert shadow is not None
        for _ in range(rounds):
            loads[MIRRORING[0]].append(load(stages["mirroring-off"]))
            loads[MIRRORING[1]].append(load(on))
            os.kill(shadow, signal.SIGSTOP)
            try:
                loads[MIRRORING[2]].append(load(on))
            finally:
                os.kill(shadow, signal.SIGCONT)
    return loads
