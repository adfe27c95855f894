"""docs/benchmarks.md: every table of one run, with the machine and the versions."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.hop import ALONE, RECORDING, SILENT, STOCK, Cell, Measurement, Rounds
from bench.load import Load
from bench.servers import HERE
from bench.stream import Streams
from bench.tables import Compared, Moved

PACKAGES = ("kserve", "uvicorn", "uvloop", "aiohttp", "httpx", "psycopg", "orjson")
FIGURES: tuple[tuple[str, Callable[[Measurement], float], int], ...] = (
    ("calls/s", lambda m: m.load.calls_per_s, 0),
    ("p50 ms", lambda m: m.load.p50_ms, 2),
    ("p99 ms", lambda m: m.load.p99_ms, 2),
    ("CPU ms/call", lambda m: m.cpu_ms, 3),
    ("of its delivery", lambda m: m.delivery_cpu_ms, 3),
)
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
        [HERE.transformer_python, "-c", program], capture_output=True, text=True, check=True
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


def ratio(of: Iterable[float], to: Iterable[float]) -> str:
    """The ratio of two medians."""
    divisor = statistics.median(to)
    return f"{statistics.median(of) / divisor:.2f}" if divisor else "-"


def paired_ratio(of: Sequence[float], to: Sequence[float]) -> str:
    """The ratio in each round, whose spread is the noise: `0.98 (0.91-1.05)`."""
    found = [one / other for one, other in zip(of, to, strict=True) if other]
    return spread(found, 2) if found else "-"


def hop_tables(found: Rounds) -> str:
    """A table of figures for each kind of load and one of ratios."""
    rows = [
        [str(cell), name, *(spread(map(value, rounds), digits) for _, value, digits in FIGURES)]
        for (cell, name), rounds in found.items()
    ]
    head = ["load, connections", "", *(title for title, _, _ in FIGURES)]
    return table(head, rows) + "\n" + ratio_table(found)


def ratio_table(found: Rounds) -> str:
    """What the figures are for: medians of one run against each other."""
    calls, _, p99, cpu, _ = (value for _, value, _ in FIGURES)
    columns = (
        ("c/b calls/s (aim: 4)", STOCK, calls),
        ("c/b p99 (0.2)", STOCK, p99),
        ("c/b CPU (0.3)", STOCK, cpu),
        ("c/d calls/s (0.9)", SILENT, calls),
        ("c/d CPU", SILENT, cpu),
        ("c/a calls/s", ALONE, calls),
    )
    rows = [
        [
            str(cell),
            *(
                ratio(map(value, found[cell, RECORDING]), map(value, found[cell, other]))
                for _, other, value in columns
            ),
        ]
        for cell in _cells(found)
    ]
    return table(["load, connections", *(title for title, _, _ in columns)], rows)


def side_by_side(found: Rounds, ours: str, theirs: str) -> str:
    """Of each kind of load the ratios of one checkout to another, with their noise."""
    rows = [
        [
            str(cell),
            name,
            *(
                paired_ratio(
                    [value(m) for m in found[cell, f"{name}: {ours}"]],
                    [value(m) for m in found[cell, f"{name}: {theirs}"]],
                )
                for _, value, _ in FIGURES
            ),
        ]
        for cell in _cells(found)
        for name in (RECORDING, SILENT)
    ]
    return table(["load, connections", "", *(title for title, _, _ in FIGURES)], rows)


def _cells(found: Rounds) -> list[Cell]:
    return list(dict.fromkeys(cell for cell, _ in found))


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


def stream_table(found: Streams) -> str:
    """First tokens and tokens per second of each target."""
    head = ["", "first, p50 ms", "at once, p50 ms", "p99 ms", "events/s", "of the predictor's"]
    alone = [one.events_per_s for one in found[ALONE]]
    return table(
        head,
        [
            [
                name,
                spread([one.first_ms for one in rounds], 2),
                spread([one.paced_p50_ms for one in rounds], 2),
                spread([one.paced_p99_ms for one in rounds], 2),
                spread([one.events_per_s for one in rounds]),
                ratio([one.events_per_s for one in rounds], alone),
            ]
            for name, rounds in found.items()
        ],
    )


def delivery_table(moved: dict[str, list[Moved]]) -> str:
    head = ["checkout", "delivered rows/s", "bare COPY rows/s", "ratio"]
    rows = [
        [
            name,
            spread(one.delivered_rows_per_s for one in rounds),
            spread(one.copied_rows_per_s for one in rounds),
            spread((one.delivered_rows_per_s / one.copied_rows_per_s for one in rounds), 2),
        ]
        for name, rounds in moved.items()
    ]
    return table(head, rows)


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


def compare_table(compared: dict[str, list[Compared]]) -> str:
    head = ["checkout", "pairs", "seconds", "peak MiB", "COPY of the rows, seconds", "ratio"]
    rows = [
        [
            name,
            f"{one.pairs:,}",
            f"{one.seconds:.1f}",
            f"{one.peak_mib:.0f}",
            f"{one.copy_seconds:.1f}",
            f"{one.seconds / one.copy_seconds:.1f}",
        ]
        for name, rounds in compared.items()
        for one in rounds
    ]
    return table(head, rows)
