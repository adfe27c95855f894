"""The finished comparison as plain data: all that an output shows, nothing that it must compute.

Written as JSON, the top-level keys `schema_version`, `verdict`, `reasons`, `pairs` and
`gates` are fixed by contract, all others may grow. Counts are whole numbers of pairs or calls
unless the name says otherwise; shares lie between 0 and 1; times are UTC; durations carry their
unit in the name. None means that there was nothing to compute the figure from.
"""

from dataclasses import dataclass
from datetime import datetime

from shadow_report.gates import Gate
from shadow_report.report.answers import (
    Example,
    Labels,
    Numbers,
    PairedTable,
    PathReport,
    Signature,
    StatusPair,
)
from shadow_report.report.evidence import (
    Bucket,
    Clusters,
    Finding,
    Integrity,
    MissingContrast,
    Side,
    Window,
)
from shadow_report.report.figures import Latency, Noise, QuantileShift, Slice

__all__ = [
    "SCHEMA_VERSION",
    "Bucket",
    "Clusters",
    "Example",
    "Finding",
    "Integrity",
    "Labels",
    "Latency",
    "MissingContrast",
    "Noise",
    "Numbers",
    "PairedTable",
    "PathReport",
    "QuantileShift",
    "Report",
    "Side",
    "Signature",
    "Slice",
    "StatusPair",
    "Window",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Report:
    """The whole comparison. Outputs read it; nothing writes to it."""

    schema_version: int
    verdict: str
    """`PROMOTE`, `REJECT`, `WAIT` or `INVALID`."""
    reasons: tuple[str, ...]
    """Whole sentences, the most important first."""
    pairs: int
    """Pairs that the verdict rests on."""
    gates: tuple[Gate, ...]
    more_pairs: int | None
    """For WAIT: how many more pairs would settle it, if they are like these."""
    eta_seconds: float | None
    """For WAIT: how long that takes at the present rate of pairs."""
    tool_version: str
    generated_at: datetime
    settings: dict[str, object]
    """Every setting that the result depends on, without the connection."""
    settings_sha256: str
    window: Window
    primary: Side
    shadow: Side
    integrity: Integrity
    outcomes: dict[str, int]
    """Pairs by outcome: `equal`, `within tolerance`, `number`, `label`, `missing`, `failed` ..."""
    errors: PairedTable
    statuses: tuple[StatusPair, ...]
    new_faults: int
    disagreements: int
    paths: tuple[PathReport, ...]
    latency: Latency
    noise: Noise
    clusters: Clusters | None
    slices: tuple[Slice, ...]
    signatures: tuple[Signature, ...]
    timeline: tuple[Bucket, ...]
    notes: tuple[str, ...]
    """What to know beside the verdict: what was left out, what a figure does not prove."""
