"""Up to when calls are settled: those from the watermark on may still be under way."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from shadow_report.evidence.database import Tables
from shadow_report.evidence.services import Sides
from shadow_report.settings import Comparison


def is_mirrored(sides: Sides, settings: Comparison) -> bool:
    """Whether the entry copied the calls to the shadow; else a follower or replay sent them."""
    return sides.is_mirrored and settings.shadow_since is None


def settled_watermark(
    tables: Tables,
    sides: Sides,
    settings: Comparison,
    now: datetime,
    *,
    since: datetime | None = None,
    known: datetime | None = None,
) -> datetime:
    """Calls from here on may still be under way, to the tables or to the shadow.

    since: look for the follower's calls only among what was delivered from then on, and where it
        sent none, take the watermark that was `known` before.
    """
    settled = now - settings.settle
    if is_mirrored(sides, settings) or settings.shadow_since is not None:
        return settled
    followed = tables.followed_until(replace(sides.scope, delivered_since=since)) or known
    return settled if followed is None else min(settled, followed)
