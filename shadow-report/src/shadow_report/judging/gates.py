"""The margins that a shadow must keep, with the contract's defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from shadow_report.report import Gate, Need, Status
from shadow_report.statistics.sequences import (
    TRIALS_LIMIT,
    Interval,
    beta_binomial_interval,
    difference_interval,
    trials_until,
)
from shadow_report.wording import counted, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """What is tolerated, fixed before looking: all rates are shares of pairs from 0 to 1.

    `alpha` is the chance, over all looks together, that a shadow beyond a margin is promoted.
    Raises ValueError with the name, the value and the remedy when a value makes no sense.
    """

    min_coverage: float = 0.99
    max_faults: float = 0.001
    max_disagreement: float = 0.01
    max_slow: float = 0.01
    alpha: float = 0.05
    min_duration: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        for name in ("min_coverage", "max_faults", "max_disagreement", "max_slow"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(
                    f"{name} is {value}; set it to a share from 0 to 1, like 0.1 for 10 %."
                )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; set it between 0 and 1, say 0.05.")
        if self.min_duration < timedelta(0):
            raise ValueError(f"min_duration is {self.min_duration}; set it to zero or more.")


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something happened: `events` among `trials`.

    `effective_trials` is smaller than `trials` when the trials repeat each other (clusters, see
    `statistics.clusters`); None means that they are independent. Raises ValueError unless
    0 <= events <= trials and 0 <= effective_trials <= trials.
    """

    events: int
    trials: int
    effective_trials: float | None = None

    def __post_init__(self) -> None:
        _check(self.events, self.trials, self.effective_trials)

    @property
    def n_eff(self) -> float:
        """What the trials are worth in independent ones."""
        return float(self.trials if self.effective_trials is None else self.effective_trials)

    @property
    def rate(self) -> float | None:
        """The observed share; None without trials."""
        return self.events / self.trials if self.trials else None

    def interval(self, alpha: float, trials: float | None = None) -> Interval:
        """Holds the true share at every look together with chance 1 - alpha.

        With `trials`: what it would be after so many trials at the same rate and the same worth
        per trial.
        """
        if not self.trials:
            return Interval(0.0, 1.0)
        grown = self.n_eff * ((trials or self.trials) / self.trials)
        return beta_binomial_interval(grown * (self.events / self.trials), grown, alpha)


@dataclass(frozen=True, slots=True)
class ChangeTally:
    """A paired yes/no outcome among `trials` pairs: `gained` pairs where only the shadow has it,
    `lost` pairs where only the primary has it.

    `effective_trials` and errors as in `Tally`.
    """

    gained: int
    lost: int
    trials: int
    effective_trials: float | None = None

    def __post_init__(self) -> None:
        _check(self.gained + self.lost, self.trials, self.effective_trials)
        _check(self.gained, self.trials, None)
        _check(self.lost, self.trials, None)

    @property
    def gains(self) -> Tally:
        """The gained pairs alone, whatever was lost."""
        return Tally(self.gained, self.trials, self.effective_trials)

    @property
    def n_eff(self) -> float:
        """What the pairs are worth in independent ones."""
        return self.gains.n_eff

    @property
    def rate(self) -> float | None:
        """The observed share of gained minus lost pairs; None without pairs."""
        return (self.gained - self.lost) / self.trials if self.trials else None

    def interval(self, alpha: float, trials: float | None = None) -> Interval:
        """As `Tally.interval`, for the share of gained minus the share of lost pairs."""
        if not self.trials:
            return Interval(-1.0, 1.0)
        grown = self.n_eff * ((trials or self.trials) / self.trials)
        gained, lost = grown * (self.gained / self.trials), grown * (self.lost / self.trials)
        return difference_interval(gained, lost, grown, alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All the counts that the verdict rests on.

    missing: primary calls without a shadow call, among the primary calls that should have one.
    faults: pairs where the shadow's answer is faulty and the primary's is not (failed, non-finite,
        unparseable, missing field, other type or length), and the reverse, among all pairs.
    disagreement: pairs whose answers differ beyond the tolerance, among the pairs compared.
    slow: pairs slower than the SLO on one side only, among all pairs; None without an SLO.
    """

    missing: Tally
    faults: ChangeTally
    disagreement: Tally
    slow: ChangeTally | None = None


def _check(events: int, trials: int, effective_trials: float | None) -> None:
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events among {trials} trials; give 0 <= events <= trials.")
    # A rounding error of the division by the design effect is not a mistake of the caller.
    if effective_trials is not None and not 0 <= effective_trials <= trials * (1 + 1e-9):
        raise ValueError(
            f"effective_trials is {effective_trials} for {trials} trials; give 0 to {trials}."
        )


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


def judge(evidence: Evidence, margins: Margins) -> tuple[Gate, ...]:
    """Every gate, in the order coverage, faults, disagreement, slow (only with an SLO).

    New faults are judged whatever the shadow mends. Slow answers are judged net of those that are
    slow on the primary's side only: near an SLO both sides cross it by chance, and an identical
    shadow must be able to pass.
    """
    alpha, slow = margins.alpha, evidence.slow
    reject_alpha = alpha / (3 if slow is None else 4)
    mended = f" ({evidence.faults.lost:,} mended)" if evidence.faults.lost else ""
    gates = [
        coverage_gate(evidence.missing, margins.min_coverage, alpha, reject_alpha),
        rate_gate(
            "faults",
            evidence.faults.gains,
            margins.max_faults,
            alpha,
            reject_alpha,
            what=f"have a new fault{mended}",
        ),
        rate_gate(
            "disagreement",
            evidence.disagreement,
            margins.max_disagreement,
            alpha,
            reject_alpha,
            what="disagree",
        ),
    ]
    if slow is not None:
        gates.append(change_gate("slow", slow, margins.max_slow, alpha, reject_alpha, what="slow"))
    return tuple(gates)


def rate_gate(
    name: str, tally: Tally, maximum: float, alpha: float, reject_alpha: float, *, what: str
) -> Gate:
    """A share of pairs that must stay at or under `maximum`; `what` as in "3 of 9 pairs differ"."""
    seen = f"{tally.events:,} of {counted(tally.trials, 'pair')} {what}"
    return _gate(name, tally, maximum, alpha, reject_alpha, seen=seen)


def change_gate(
    name: str, tally: ChangeTally, maximum: float, alpha: float, reject_alpha: float, *, what: str
) -> Gate:
    """A share of pairs gained minus lost that must stay at or under `maximum`; `what` is an
    adjective, as in "9 of 200 pairs are newly slow, 2 no longer slow".
    """
    seen = (
        f"{tally.gained:,} of {counted(tally.trials, 'pair')} are newly {what}, "
        f"{tally.lost:,} no longer {what}"
    )
    return _gate(name, tally, maximum, alpha, reject_alpha, seen=seen)


def coverage_gate(missing: Tally, minimum: float, alpha: float, reject_alpha: float) -> Gate:
    """The share of primary calls that have a shadow call must stay at or over `minimum`."""
    interval = missing.interval(alpha)
    covered = Interval(1 - interval.upper, 1 - interval.lower)
    status = _status(missing, 1 - minimum, alpha, reject_alpha)
    paired = missing.trials - missing.events
    seen = f"{paired:,} of {counted(missing.trials, 'primary call')} are paired"
    need = None
    if status == "wait":
        need = what_settles(missing, 1 - minimum, alpha, reject_alpha, "call")
        found = f"between {percent(covered.lower)} and {percent(covered.upper)}"
    elif status == "pass":
        found = f"at least {percent(covered.lower)}"
    else:
        found = f"at most {percent(covered.upper)}"
    return Gate(
        name="coverage",
        estimate=None if missing.rate is None else 1 - missing.rate,
        interval=covered,
        margin=minimum,
        is_minimum=True,
        n=missing.trials,
        n_eff=missing.n_eff,
        status=status,
        reason=_sentence(seen, found, f"needed {percent(minimum)}", need),
        need=need,
    )


def _gate(
    name: str,
    tally: Tally | ChangeTally,
    maximum: float,
    alpha: float,
    reject_alpha: float,
    *,
    seen: str,
) -> Gate:
    interval = tally.interval(alpha)
    status = _status(tally, maximum, alpha, reject_alpha)
    need = None
    if status == "wait":
        need = what_settles(tally, maximum, alpha, reject_alpha, "pair")
        found = f"between {percent(interval.lower)} and {percent(interval.upper)}"
    elif status == "pass":
        found = f"at most {percent(interval.upper)}"
    else:
        found = f"at least {percent(interval.lower)}"
    return Gate(
        name=name,
        estimate=tally.rate,
        interval=interval,
        margin=maximum,
        is_minimum=False,
        n=tally.trials,
        n_eff=tally.n_eff,
        status=status,
        reason=_sentence(seen, found, f"allowed {percent(maximum)}", need),
        need=need,
    )


def _status(
    tally: Tally | ChangeTally, maximum: float, alpha: float, reject_alpha: float
) -> Status:
    if not tally.trials:
        return "wait"
    if tally.interval(alpha).upper <= maximum:
        return "pass"
    return "fail" if tally.interval(reject_alpha).lower > maximum else "wait"


def _sentence(seen: str, found: str, margin: str, need: Need | None) -> str:
    after = "" if need is None else f"; {need.reason}"
    return f"{seen}: {found}, {margin}{after}."
