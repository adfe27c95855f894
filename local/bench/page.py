"""docs/benchmarks.md: every table of one run, with the machine and the versions."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.delivery import Moved
from bench.hop import TARGETS, Cell, Measurement, Rounds
from bench.load import Load
from bench.report import Compared
from bench.servers import TRANSFORMER_PYTHON

PACKAGES = ("kserve", "uvicorn", "uvloop", "aiohttp", "httpx", "psycopg", "orjson")


# What stands above it in the page is written by hand.
MEASURED = "<!-- From here on written by `make bench`. -->"


def write(path: Path, text: str) -> None:
    """Replace the measured part of the page."""
    by_hand, _, _ = path.read_text().partition(MEASURED)
    path.write_text(f"{by_hand}{MEASURED}\n\n{text}")


def spread(values: Iterable[float], digits: int = 0) -> str:
    """Median and range: `1234 (1200-1300)`."""
    found = sorted(values)
    middle = statistics.median(found)
    return f"{middle:.{digits}f} ({found[0]:.{digits}f}-{found[-1]:.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def machine() -> str:
    """The machine, and the versions that were measured."""
    names = ", ".join(f"'{name}'" for name in PACKAGES)
    program = "from importlib.metadata import version\n"
    program += f"print(*(name + ' ' + version(name) for name in [{names}]), sep=', ')"
    versions = subprocess.run(
        [TRANSFORMER_PYTHON, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(": ", 1)[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({model}), {memory:.0f} GiB,"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()};"
        f" {versions}."
    )


def hop_tables(found: Rounds) -> str:
    """a) to d), a table of figures for each kind of load and one of ratios."""
    cells = list(dict.fromkeys(cell for cell, _ in found))
    rows = [
        [
            f"{cell.protocol}, {cell.body_bytes} B, {cell.connections}",
            name,
            spread(m.load.calls_per_s for m in rounds),
            spread((m.load.p50_ms for m in rounds), 2),
            spread((m.load.p99_ms for m in rounds), 2),
            spread((m.cpu_ms for m in rounds), 3),
            spread((m.delivery_cpu_ms for m in rounds), 3),
        ]
        for cell in cells
        for name, rounds in ((name, found[cell, name]) for name in TARGETS)
    ]
    head = [
        "load, connections",
        "",
        "calls/s",
        "p50 ms",
        "p99 ms",
        "CPU ms/call",
        "of its delivery",
    ]
    return table(head, rows) + "\n" + ratio_table(found, cells)


def ratio_table(found: Rounds, cells: list[Cell]) -> str:
    """What the figures are for: medians of one run against each other."""

    def ratio(cell: Cell, of: int, to: int, value: Callable[[Measurement], float]) -> str:
        one, other = (
            statistics.median(value(m) for m in found[cell, TARGETS[index]]) for index in (of, to)
        )
        return f"{one / other:.2f}" if other else "-"

    rows = [
        [
            f"{cell.protocol}, {cell.body_bytes} B, {cell.connections}",
            ratio(cell, 2, 1, lambda m: m.load.calls_per_s),
            ratio(cell, 2, 1, lambda m: m.load.p99_ms),
            ratio(cell, 2, 1, lambda m: m.cpu_ms),
            ratio(cell, 2, 3, lambda m: m.load.calls_per_s),
            ratio(cell, 2, 3, lambda m: m.cpu_ms),
            ratio(cell, 2, 0, lambda m: m.load.calls_per_s),
        ]
        for cell in cells
    ]
    return table(
        [
            "load, connections",
            "c/b calls/s (aim: 4)",
            "c/b p99 (0.2)",
            "c/b CPU (0.3)",
            "c/d calls/s (0.9)",
            "c/d CPU",
            "c/a calls/s (0.55)",
        ],
        rows,
    )


def arrival_table(loads: dict[str, list[Load]]) -> str:
    return table(
        ["", "p50 ms", "p99 ms", "calls that could not start in time"],
        [
            [
                name,
                spread((load.p50_ms for load in rounds), 2),
                spread((load.p99_ms for load in rounds), 2),
                str(sum(load.dropped for load in rounds)),
            ]
            for name, rounds in loads.items()
        ],
    )


def delivery_table(moved: list[Moved]) -> str:
    ratio = [one.delivered_rows_per_s / one.copied_rows_per_s for one in moved]
    head = ["delivered rows/s", "bare COPY rows/s", "ratio"]
    row = [
        spread(one.delivered_rows_per_s for one in moved),
        spread(one.copied_rows_per_s for one in moved),
        spread(ratio, 2),
    ]
    return table(head, [row])


def growth_table(found: dict[int, list[Measurement]]) -> str:
    """Calls against the number of pairs that the tables held before; a pair is four rows."""
    smallest = statistics.median(m.load.calls_per_s for m in found[min(found)])
    head = [
        "rows in the tables before",
        "calls/s, recording",
        "of those with empty tables",
        "CPU ms/call",
    ]
    rows = [
        [
            f"{4 * pairs:,}",
            spread(m.load.calls_per_s for m in rounds),
            f"{statistics.median(m.load.calls_per_s for m in rounds) / smallest:.2f}",
            spread((m.cpu_ms for m in rounds), 3),
        ]
        for pairs, rounds in found.items()
    ]
    return table(head, rows)


def compare_table(compared: list[Compared]) -> str:
    head = ["pairs", "seconds", "peak MiB", "COPY of the rows, seconds", "ratio"]
    rows = [
        [
            f"{one.pairs:,}",
            f"{one.seconds:.1f}",
            f"{one.peak_mib:.0f}",
            f"{one.copy_seconds:.1f}",
            f"{one.seconds / one.copy_seconds:.1f}",
        ]
        for one in compared
    ]
    return table(head, rows)
