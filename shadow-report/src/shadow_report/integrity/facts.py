"""What the findings are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shadow_report.report import MissingContrast, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the findings are drawn from."""

    primary: Side
    shadow: Side
    other_primaries: tuple[str, ...]
    other_shadows: tuple[str, ...]
    pairs: int
    """Pairs with the same request on both sides."""
    different_requests: int
    cut_pairs: int
    in_flight: int
    warm_up: int
    uniform_since: datetime | None
    """From here on each side has one service, model and version; None where there is no such time.
    """
    settle_seconds: float
    clock_skew_ms: float | None
    coverage: float | None
    mirrored_share: float
    min_coverage: float
    missing: tuple[MissingContrast, ...]
