"""`make bench`: every figure of docs/benchmarks.md in one run, with its ratios."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import Progress

from bench import page
from bench.delivery import one_round
from bench.growth import fill
from bench.hop import (
    Cell,
    Measurement,
    all_targets,
    as_fast_as_they_go,
    at_half_of_stock,
    cells,
    measured,
)
from bench.mirror import RATE, through_the_gateway
from bench.report import compare
from bench.servers import ROOT, predictor, recording_transformer
from embedded_postgres import Postgres, apply_schema, as_role

PAGE = ROOT / "docs" / "benchmarks.md"
QUICK_BODIES, ALL_BODIES = (34,), (34, 10_000, 1_000_000)
GROWTH_PAIRS = (0, 250_000, 2_500_000)


def main() -> None:
    """Measure what was asked for, print it, and write the page when everything was measured."""
    parts: dict[str, Callable[[Bench], str]] = {
        "hop": Bench.hop,
        "durability": Bench.durability,
        "delivery": Bench.delivery,
        "mirror": Bench.mirror,
        "growth": Bench.growth,
        "report": Bench.report,
    }
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="small bodies, one short round")
    arguments.add_argument("--only", nargs="*", choices=list(parts), default=list(parts))
    arguments.add_argument("--bodies", nargs="*", type=int, default=list(ALL_BODIES))
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        server = Postgres(Path(folder, "postgres"))
        server.start()
        try:
            bench = Bench(server, Path(folder), options, progress)
            sections = [page.machine()]
            for name in options.only:
                sections.append(parts[name](bench))
                console.print(sections[-1], markup=False, soft_wrap=True)
        finally:
            server.stop()
    text = "\n".join(sections)
    if not options.quick and options.only == list(parts):
        page.write(PAGE, text)


class Bench:
    """One run: a Postgres, a folder, and how long to measure."""

    def __init__(
        self, server: Postgres, folder: Path, options: argparse.Namespace, progress: Progress
    ) -> None:
        self.server, self.folder, self.progress = server, folder, progress
        self.quick = options.quick
        self.bodies = QUICK_BODIES if self.quick else tuple(options.bodies)
        self.rounds = 1 if self.quick else options.rounds
        self.seconds = 2.0

    def database(self, name: str) -> str:
        """A new database with the schema; its URI."""
        with psycopg.connect(self.server.uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        uri = self.server.uri.removesuffix("/postgres") + f"/{name}"
        apply_schema(uri)
        return uri

    def hop(self) -> str:
        uri = as_role(self.database("hop"), "transformer")
        loads = cells(self.bodies)
        with all_targets(uri, self.folder) as servers:
            found = as_fast_as_they_go(servers, loads, self.rounds, self.seconds, self.progress)
            rate, arrivals = at_half_of_stock(
                servers, found, self.rounds, self.seconds * 2, self.progress
            )
        return (
            "\n## As fast as it goes\n\n"
            "Median and range of interleaved rounds; one round of 1 MB.\n\n"
            + page.hop_tables(found)
            + f"\n## At {rate} calls/s, half of what stock reaches\n\n"
            + page.arrival_table(arrivals)
        )

    def durability(self) -> str:
        """What SPOOL_FSYNC=1 costs, beside the default."""
        uri = as_role(self.database("durability"), "transformer")
        cell = Cell("v1", 34, 16)
        with (
            predictor() as alone,
            recording_transformer(alone.url, uri, self.folder / "off") as off,
            recording_transformer(alone.url, uri, self.folder / "on", SPOOL_FSYNC="1") as on,
        ):
            servers = {"SPOOL_FSYNC=0": off, "SPOOL_FSYNC=1": on}
            rows: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(self.rounds):
                for name, server in servers.items():
                    rows[name].append(measured(server, cell, self.seconds).load.calls_per_s)
        head = ["", "calls/s at 16 connections, 34 B"]
        return "\n## Durability against power loss\n\n" + page.table(
            head, [[name, page.spread(values)] for name, values in rows.items()]
        )

    def delivery(self) -> str:
        calls = 5_000 if self.quick else 50_000
        task = self.progress.add_task("delivery against COPY", total=self.rounds)
        moved = []
        for number in range(self.rounds):
            moved.append(one_round(self.server.uri, self.folder, calls, number))
            self.progress.advance(task)
        return f"\n## From the spool to Postgres, {2 * calls:,} rows\n\n" + page.delivery_table(
            moved
        )

    def mirror(self) -> str:
        loads = through_the_gateway(self.folder, self.rounds, self.seconds * 2)
        return f"\n## Through Envoy, {RATE} calls/s\n\n" + page.arrival_table(loads)

    def growth(self) -> str:
        sizes = GROWTH_PAIRS[:2] if self.quick else GROWTH_PAIRS
        rounds = 2 * self.rounds
        task = self.progress.add_task("growth", total=len(sizes) * (rounds + 1))
        found: dict[int, list[Measurement]] = {pairs: [] for pairs in sizes}
        with ExitStack() as stack:
            alone = stack.enter_context(predictor())
            servers = {}
            for pairs in sizes:
                uri = self.database(f"growth_{pairs}")
                fill(uri, 1, pairs)
                folder = self.folder / f"growth-{pairs}"
                servers[pairs] = stack.enter_context(
                    recording_transformer(alone.url, as_role(uri, "transformer"), folder)
                )
                self.progress.advance(task)
            for _ in range(rounds):
                for pairs, server in servers.items():
                    found[pairs].append(measured(server, Cell("v1", 34, 16), self.seconds))
                    self.progress.advance(task)
        return "\n## As the tables grow\n\n" + page.growth_table(found)

    def report(self) -> str:
        uri = self.database("report")
        sizes = (10_000, 100_000) if self.quick else (10_000, 100_000, 1_000_000)
        task = self.progress.add_task("report", total=len(sizes))
        compared, filled = [], 0
        for pairs in sizes:
            fill(uri, filled + 1, pairs)
            filled = pairs
            compared.append(compare(as_role(uri, "report"), pairs))
            self.progress.advance(task)
        return "\n## The report\n\n" + page.compare_table(compared)


if __name__ == "__main__":
    main()
