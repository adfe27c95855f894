"""What would settle a gate that waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from shadow_report.counts import ChangeTally, Tally
from shadow_report.statistics.settling import TRIALS_LIMIT, trials_until
from shadow_report.wording import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many more pairs settle a gate at its present rate, and how.

    `pairs` and `towards` are None when no number of pairs does; `reason` says why.
    """

    pairs: int | None
    towards: Literal["pass", "fail"] | None
    reason: str


def what_settles(
    tally: Tally | ChangeTally, maximum: float, alpha: float, reject_alpha: float, unit: str
) -> Need:
    """The fewest further trials after which a share at its present rate clears `maximum`, or is
    beyond it; clusters are taken to grow in number as the trials do.
    """
    rate = tally.rate
    if rate is None:
        return Need(pairs=None, towards=None, reason=f"there are no {unit} yet")
    if maximum == 0 and rate == 0:
        return Need(pairs=None, towards=None, reason="no number of samples proves a share of zero")
    if rate < maximum:
        more = _more(tally, lambda n: tally.interval(alpha, n).upper <= maximum)
        towards: Literal["pass", "fail"] = "pass"
    else:
        more = _more(tally, lambda n: tally.interval(reject_alpha, n).lower > maximum)
        towards = "fail"
    if more is None:
        reason = f"{percent(rate)} is too near to be told apart in {TRIALS_LIMIT:,} {unit}"
        return Need(pairs=None, towards=None, reason=reason)
    return Need(
        pairs=more, towards=towards, reason=f"{more:,} more {unit} at this rate would {towards} it"
    )


def _more(tally: Tally | ChangeTally, is_settled: Callable[[int], bool]) -> int | None:
    total = trials_until(is_settled, tally.trials)
    return None if total is None else max(1, total - tally.trials)
