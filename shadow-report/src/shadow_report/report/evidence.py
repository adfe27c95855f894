"""The evidence: its window, both sides, and whether the pairs may stand for the traffic."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Window:
    """What was looked at. `began` is the first mirrored call: coverage counts from there."""

    since: datetime | None
    until: datetime | None
    began: datetime | None
    first_pair: datetime | None
    last_pair: datetime | None
    hours: float
    pairs_per_hour: float | None
    settle_seconds: float
    in_flight: int
    """Calls newer than the settle time whose other half is not there yet; left out."""
    warm_up_seconds: float
    warm_up_pairs: int
    """Pairs of the warm-up; left out."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one side recorded in the window, since mirroring began."""

    role: str
    service: str
    calls: int
    unpaired: int
    duplicates: int
    """Further calls with a pair id that this side had recorded already; only the first counts."""
    unanswered: int
    """Calls without a response row: the process died in the middle of them."""
    failed: int
    lost_records: int
    """Calls that were numbered but are not in the tables (`inference_gaps`)."""
    cut_requests: int
    cut_responses: int
    unparseable: int
    model_names: dict[str, int]
    model_versions: dict[str, int]
    protocols: dict[str, int]
    pair_sources: dict[str, int]
    recorders: int
    first_call: datetime | None
    last_call: datetime | None
    delivery_lag_seconds: float | None
    """Longest time between a call and its row in the tables."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about the evidence. Only what is `unsound` makes the verdict INVALID."""

    code: str
    unsound: bool
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class MissingContrast:
    """How the primary calls without a shadow call differ from the others in one respect."""

    respect: str
    """`request size`, `status` or `hour`."""
    missing: str
    paired: str
    distance: float
    """0 = alike, 1 = nothing in common (Kolmogorov-Smirnov D, or total variation)."""
    p_value: float | None
    unlike: bool


@dataclass(frozen=True, slots=True)
class Integrity:
    """Whether the pairs may stand for the traffic."""

    primary_calls: int
    paired: int
    expected_share: float
    """Share of the primary's calls that should have been mirrored (1 unless set)."""
    coverage: float | None
    """Pairs over expected pairs."""
    different_requests: int
    """Pairs whose sides did not receive the same request body; not compared."""
    clock_skew_ms: float | None
    """Median of the shadow's request time minus the primary's."""
    missing: tuple[MissingContrast, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Clusters:
    """How far the pairs repeat each other: n_eff = pairs / design effect."""

    by: str
    clusters: int
    pairs: int
    design_effect: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """One step of the timeline; all buckets are equally long."""

    start: datetime
    seconds: float
    primary_calls: int
    pairs: int
    new_faults: int
    disagreements: int
    slow: int
