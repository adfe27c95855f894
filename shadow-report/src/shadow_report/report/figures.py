"""What stands beside the gates: time, the noise floor, slices."""

from dataclasses import dataclass

from shadow_report.report.answers import PairedTable
from shadow_report.statistics.interval import Interval


@dataclass(frozen=True, slots=True)
class QuantileShift:
    """One quantile of the durations on both sides, and shadow minus primary with its interval."""

    quantile: float
    primary_ms: float
    shadow_ms: float
    shift_ms: float
    interval_ms: Interval | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Durations as each transformer measured them, of pairs that both sides answered."""

    pairs: int
    slo_ms: float | None
    slow: PairedTable | None
    shifts: tuple[QuantileShift, ...]
    median_difference_ms: float | None
    """Median of the paired differences (not the difference of the medians)."""
    caveat: str


@dataclass(frozen=True, slots=True)
class Noise:
    """How often the primary disagrees with itself when it sees the same request again."""

    repeated_requests: int
    """Request bodies that were looked at because they came more than once."""
    comparisons: int
    disagreements: int
    share: float | None
    interval: Interval | None
    shadow_share: float | None
    """The shadow's disagreement, for the comparison beside it."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The pairs of one value of a request field or header, against all other pairs."""

    by: str
    value: str
    pairs: int
    new_faults: int
    disagreements: int
    share: float
    rest_share: float
    p_value: float
    discovered: bool
    """True when the slice is worse after the false discovery rate is controlled at alpha."""
