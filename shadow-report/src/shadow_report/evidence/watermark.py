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
    tables: Tables, sides: Sides, settings: Comparison, now: datetime
) -> datetime:
    """Calls from here on may still be under way, to the tables or to the shadow."""
    followed, settled = followed_until(tables, sides, settings), now - settings.settle
    return settled if followed is None else min(settled, followed)


def followed_until(
    tables: Tables, sides: Sides, settings: Comparison, since: datetime | None = None
) -> datetime | None:
    """The primary's oldest call that a follower has not sent; None where it sent none at all, of
    those that were delivered from `since` on, or where nobody follows.
    """
    if is_mirrored(sides, settings) or settings.shadow_since is not None:
        return None
    return tables.followed_until(replace(sides.scope, delivered_since=since))
