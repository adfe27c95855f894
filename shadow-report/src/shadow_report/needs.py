"""What would settle a gate that waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from shadow_report.counts import ChangeTally, Tally
from shadow_report.statistics.settling import TRIALS_LIMIT, trials_until
from shadow_report.wording import counted, percent


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
    beyond it; clusters are taken to grow in number as the trials do. `unit` is a noun, as in
    "1 pair". Without trials: the fewest that can clear `maximum`.
    """
    rate = tally.rate
    if rate is None:
        return _from_nothing(tally, maximum, alpha, unit)
    if maximum == 0 and rate == 0:
        return Need(pairs=None, towards=None, reason="no number of samples proves a share of zero")
    if rate < maximum:
        more = _more(tally, lambda n: tally.interval(alpha, n).upper <= maximum)
        towards: Literal["pass", "fail"] = "pass"
    else:
        more = _more(tally, lambda n: tally.interval(reject_alpha, n).lower > maximum)
        towards = "fail"
    if more is None:
        reason = f"{percent(rate)} is too near to be told apart in {TRIALS_LIMIT:,} {unit}s"
        return Need(pairs=None, towards=None, reason=reason)
    reason = f"{counted(more, f'more {unit}')} at this rate would {towards} it"
    return Need(pairs=more, towards=towards, reason=reason)


def _from_nothing(tally: Tally | ChangeTally, maximum: float, alpha: float, unit: str) -> Need:
    """What the gate needs at the least, when there is nothing to judge yet."""

    def passes(trials: int) -> bool:
        return replace(tally, trials=trials, effective_trials=None).interval(alpha).upper <= maximum

    fewest = trials_until(passes, 1)
    reason = f"there are no {unit}s yet"
    if fewest is None:
        return Need(pairs=None, towards=None, reason=reason)
    least = f"{reason}; it takes {counted(fewest, unit)} at the least to pass it"
    return Need(pairs=fewest, towards="pass", reason=least)


def _more(tally: Tally | ChangeTally, is_settled: Callable[[int], bool]) -> int | None:
    total = trials_until(is_settled, tally.trials)
    return None if total is None else max(1, total - tally.trials)
