"""How the answers differ: by outcome, by path, and pair by pair."""

from dataclasses import dataclass
from datetime import datetime

from shadow_report.statistics.interval import Interval


@dataclass(frozen=True, slots=True)
class PairedTable:
    """A paired 2x2 table of something bad: `shadow_only` is new, `primary_only` is mended."""

    neither: int
    shadow_only: int
    primary_only: int
    both: int


@dataclass(frozen=True, slots=True)
class StatusPair:
    """How often these two statuses came together; None is no answer."""

    primary: int | None
    shadow: int | None
    pairs: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """Figures of the numeric differences at one path; d is shadow minus primary."""

    values: int
    bias: float
    bias_interval: Interval | None
    sd: float
    mean_absolute: float
    absolute_quantiles: dict[str, float]
    """Quantiles of |d| by name (`p50`, `p90`, `p99`), within 1 % of the true value, and `max`."""
    correlation: float | None
    limits_of_agreement: Interval
    """Bland-Altman: bias +- 1.96 sd."""
    primary_quantiles: dict[str, float]
    shadow_quantiles: dict[str, float]
    distance: float
    """Kolmogorov-Smirnov D between the two sides' values (description, not a gate)."""
    histogram: tuple[tuple[float, float, int], ...]
    """(low, high, count) of d, at most a few dozen bins; low and high are +-inf free."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Figures of the labels at one path."""

    values: int
    agreement: float
    kappa: float | None
    classes: tuple[str, ...]
    """Most frequent first; rare ones are gathered as `other`."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows are the primary's classes, columns the shadow's."""
    distance: float
    """Total variation between the two sides' label shares."""


@dataclass(frozen=True, slots=True)
class PathReport:
    """One place in the answers, list positions collapsed: `predictions[*]`, `outputs.a.data[*]`."""

    path: str
    kind: str
    """`number`, `label`, `probability vector`, `text`, `boolean`, `list`, `object`, `mixed` ..."""
    pairs: int
    """Pairs in which the path stands on either side."""
    differing_pairs: int
    values: int
    agreeing: int
    """Values that are equal or within tolerance."""
    absolute_tolerance: float
    relative_tolerance: float
    faults: dict[str, int]
    """Values by outcome: `missing`, `extra`, `type`, `length`, `order`, `non-finite` ..."""
    numbers: Numbers | None
    labels: Labels | None


@dataclass(frozen=True, slots=True)
class Example:
    """One pair as evidence. Bodies are text as stored, cut for the report; `*_cut` says so."""

    pair_id: str
    request_time: datetime
    what: str
    """The first difference: `predictions[0]: 6.6 became 9.9`."""
    size: float | None
    """The largest numeric difference, relative to the larger side; None for other faults."""
    primary_status: int | None
    shadow_status: int | None
    primary_duration_ms: float | None
    shadow_duration_ms: float | None
    request: str
    primary_response: str
    shadow_response: str
    request_cut: bool
    primary_cut: bool
    shadow_cut: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """Pairs that differ in the same way (`predictions[*]: number`), most frequent first."""

    signature: str
    is_fault: bool
    """True for a new fault, False for a disagreement."""
    pairs: int
    share: float
    largest: tuple[Example, ...]
    typical: tuple[Example, ...]
