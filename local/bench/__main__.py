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

from bench import hop, page, stream, tables
from bench.hop import SAMPLE_CALL, Measurement, measured
from bench.servers import HERE, Checkout, Servers
from embedded_postgres import Postgres, apply_schema, as_role
from shadow_local.translate.document import repository

PAGE = repository() / "docs" / "benchmarks.md"
QUICK_BODIES, ALL_BODIES = (34,), (34, 10_000, 1_000_000)
GROWTH_PAIRS = (0, 250_000, 2_500_000)
REPORT_PAIRS = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Measure what was asked for and print it; the page is written when that was everything."""
    parts: dict[str, Callable[[Bench], str]] = {
        "hop": Bench.hop,
        "stream": Bench.stream,
        "durability": Bench.durability,
        "delivery": Bench.delivery,
        "mirror": Bench.mirror,
        "growth": Bench.growth,
        "report": Bench.report,
    }
    comparable = ["hop", "delivery", "report"]
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="small bodies, one short round")
    arguments.add_argument("--only", nargs="*", choices=list(parts), help="some of the parts")
    arguments.add_argument("--against", type=Path, help="another checkout, in interleaved rounds")
    arguments.add_argument("--bodies", nargs="*", type=int, default=list(ALL_BODIES))
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    chosen = options.only or (comparable if options.against else list(parts))
    if options.against and not set(chosen) <= set(comparable):
        arguments.error(f"--against measures {', '.join(comparable)} only")
    console = Console()
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        server = Postgres(Path(folder, "postgres"))
        server.start()
        try:
            bench = Bench(server, Path(folder), options, progress)
            sections = [page.machine()]
            for name in chosen:
                sections.append(parts[name](bench))
                console.print(sections[-1], markup=False, soft_wrap=True)
        finally:
            server.stop()
    if not (options.quick or options.only or options.against):
        page.write(PAGE, "\n".join(sections))


class Bench:
    """One run: a Postgres, a folder, how long to measure, and what."""

    def __init__(
        self, server: Postgres, folder: Path, options: argparse.Namespace, progress: Progress
    ) -> None:
        self.server, self.folder, self.progress = server, folder, progress
        self.servers = Servers(folder)
        self.quick = options.quick
        self.bodies = QUICK_BODIES if self.quick else tuple(options.bodies)
        self.rounds = 1 if self.quick else options.rounds
        self.seconds = 2.0
        self.checkouts = [HERE]
        if options.against:
            self.checkouts.append(Checkout("against", options.against.resolve()))

    def database(self, name: str) -> str:
        """A new database with the schema; its URI."""
        with psycopg.connect(self.server.uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        uri = self.server.uri.removesuffix("/postgres") + f"/{name}"
        apply_schema(uri)
        return uri

    def hop(self) -> str:
        uri = as_role(self.database("hop"), "transformer")
        loads = hop.cells(self.bodies)
        with ExitStack() as stack:
            if len(self.checkouts) > 1:
                targets = hop.of_each(stack, self.servers, uri, self.checkouts)
            else:
                targets = hop.all_targets(stack, self.servers, uri)
            found = hop.as_fast_as_they_go(targets, loads, self.rounds, self.seconds, self.progress)
            if len(self.checkouts) > 1:
                names = [checkout.name for checkout in self.checkouts]
                return f"\n## The hop, {' / '.join(names)}\n\n" + page.side_by_side(found, *names)
            rate, arrivals = hop.at_half_of_stock(
                targets, found, self.rounds, self.seconds * 2, self.progress
            )
        return (
            "\n## As fast as it goes\n\n"
            "Median and range of interleaved rounds; one round of 1 MB. The predictor is the"
            " bench's own, which answers with the request's values and computes nothing: the"
            " example, on KServe's server, would be the limit of every transformer in front of"
            " it.\n\n"
            + page.hop_tables(found)
            + f"\n## At {rate} calls/s, half of what stock reaches\n\n"
            + page.arrival_table(arrivals)
        )

    def stream(self) -> str:
        uri = as_role(self.database("stream"), "transformer")
        with ExitStack() as stack:
            targets = stream.targets(stack, self.servers, uri)
            status = stream.status_of_stock(stack, self.servers)
            found = stream.measure(targets, self.rounds, self.quick, self.progress)
        return (
            "\n## Streamed answers\n\n"
            f"Events of {stream.EVENT_BYTES} bytes. The first one of calls in a row; of"
            f" {stream.PACED} streams at once, {stream.PAUSE_MS} ms between events; and"
            f" {stream.FULL} streams as fast as they go. Stock KServe's transformer has no OpenAI"
            f" API: it answers {status}.\n\n" + page.stream_table(found)
        )

    def durability(self) -> str:
        """What SPOOL_FSYNC=1 costs, next to the default."""
        uri = as_role(self.database("durability"), "transformer")
        with (
            self.servers.predictor() as alone,
            self.servers.recording(alone, uri, "off") as off,
            self.servers.recording(alone, uri, "on", SPOOL_FSYNC="1") as on,
        ):
            servers = {"SPOOL_FSYNC=0": off, "SPOOL_FSYNC=1": on}
            rows: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(self.rounds):
                for name, server in servers.items():
                    found = measured(server, SAMPLE_CALL, self.seconds)
                    rows[name].append(found.load.calls_per_s)
        head = ["", "calls/s at 16 connections, 34 B"]
        return "\n## Durability against power loss\n\n" + page.table(
            head, [[name, page.spread(values)] for name, values in rows.items()]
        )

    def delivery(self) -> str:
        seconds = self.seconds if self.quick else 8 * self.seconds
        visits = [(n, checkout) for n in range(self.rounds) for checkout in self.checkouts]
        task = self.progress.add_task("delivery against COPY", total=len(visits))
        moved: dict[str, list[tables.Moved]] = {checkout.name: [] for checkout in self.checkouts}
        for number, checkout in visits:
            source, target = (
                self.database(f"{kind}_{checkout.name}_{number}") for kind in ("spool", "copy")
            )
            moved[checkout.name].append(
                tables.move(self.servers, checkout, source, target, seconds)
            )
            self.progress.advance(task)
        return (
            f"\n## From the spool to Postgres, the calls of {seconds:.0f} s\n\n"
            + page.delivery_table(moved)
        )

    def mirror(self) -> str:
        loads = hop.through_the_gateway(self.folder, self.rounds, self.seconds * 2)
        rate = hop.GATEWAY_CALLS_PER_S
        return f"\n## Through Envoy, {rate} calls/s\n\n" + page.arrival_table(loads)

    def growth(self) -> str:
        sizes = GROWTH_PAIRS[:2] if self.quick else GROWTH_PAIRS
        rounds = 2 * self.rounds
        task = self.progress.add_task("growth", total=len(sizes) * (rounds + 1))
        found: dict[int, list[Measurement]] = {pairs: [] for pairs in sizes}
        with ExitStack() as stack:
            alone = stack.enter_context(self.servers.predictor())
            servers = {}
            for pairs in sizes:
                uri = self.database(f"growth_{pairs}")
                tables.fill(uri, 1, pairs)
                role = as_role(uri, "transformer")
                servers[pairs] = stack.enter_context(
                    self.servers.recording(alone, role, f"growth-{pairs}")
                )
                self.progress.advance(task)
            for _ in range(rounds):
                for pairs, server in servers.items():
                    found[pairs].append(measured(server, SAMPLE_CALL, self.seconds))
                    self.progress.advance(task)
        return "\n## As the tables grow\n\n" + page.growth_table(found)

    def report(self) -> str:
        uri = self.database("report")
        sizes = REPORT_PAIRS[:2] if self.quick else REPORT_PAIRS
        rounds = self.rounds if len(self.checkouts) > 1 else 1
        task = self.progress.add_task("report", total=len(sizes))
        compared: dict[str, list[tables.Compared]] = {item.name: [] for item in self.checkouts}
        filled = 0
        for pairs in sizes:
            tables.fill(uri, filled + 1, pairs)
            filled = pairs
            for _ in range(rounds):
                for checkout in self.checkouts:
                    role = as_role(uri, "report")
                    compared[checkout.name].append(tables.compare(checkout, role, pairs))
            self.progress.advance(task)
        return "\n## The report\n\n" + page.compare_table(compared)


if __name__ == "__main__":
    main()
