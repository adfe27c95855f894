"""Gates: one share, its interval, its margin, and whether it passes, fails or waits.

A gate passes when its anytime interval at `alpha` lies within the margin. To promote, every gate
must pass, so a shadow that is beyond one margin is promoted with chance at most `alpha`, however
many gates there are and however often one looks (an intersection-union test). One failing gate
rejects, so failing is asked at `alpha` divided by the number of gates (Bonferroni). The
sentences give the bounds of the interval at `alpha`, which the gate shows, whatever decided it.

A new gate is a count in `Evidence`, a margin in `Margins` and a line in `questions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from shadow_report.report import Gate, Need, PathMargin, Status
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

    `effective_trials` is smaller than `trials` when the trials repeat each other (clusters);
    None means that they are independent. Raises ValueError unless
    0 <= events <= trials and 0 <= effective_trials <= trials.
    """

    events: int
    trials: int
    effective_trials: float | None = None

    def __post_init__(self) -> None:
        _check(self.events, self.trials, self.effective_trials)

    @property
    def n_eff(self) -> float:
        """The effective sample size."""
        return float(self.trials if self.effective_trials is None else self.effective_trials)

    @property
    def rate(self) -> float | None:
        """The observed share; None without trials."""
        return self.events / self.trials if self.trials else None

    def interval(self, alpha: float, trials: float | None = None) -> Interval:
        """Holds the true share at every look together with chance 1 - alpha.

        With `trials`: what it would be after so many trials at the same rate and design effect.
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
        """The effective sample size."""
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
    margins: by rule with a margin, the pairs that differ where it holds, among those that have a
        value there.
    """

    missing: Tally
    faults: ChangeTally
    disagreement: Tally
    slow: ChangeTally | None = None
    margins: tuple[tuple[PathMargin, Tally], ...] = ()


def _check(events: int, trials: int, effective_trials: float | None) -> None:
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events among {trials} trials; give 0 <= events <= trials.")
    # A rounding error of the division by the design effect is not a mistake of the caller.
    if effective_trials is not None and not 0 <= effective_trials <= trials * (1 + 1e-9):
        raise ValueError(
            f"effective_trials is {effective_trials} for {trials} trials; give 0 to {trials}."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A gate before it is judged.

    tally: how often the bad thing happened.
    margin: the largest share of it; with `is_minimum` the least share of its absence, which is
        then also what the gate shows.
    seen: the count in words, as in "3 of 9 pairs disagree". unit: what is counted.
    """

    name: str
    tally: Tally | ChangeTally
    margin: float
    seen: str
    unit: str = "pair"
    is_minimum: bool = False
    path: str | None = None

    @property
    def maximum(self) -> float:
        """The largest share of the bad thing."""
        return 1 - self.margin if self.is_minimum else self.margin


def questions(evidence: Evidence, margins: Margins) -> tuple[Question, ...]:
    """Every gate, in the order coverage, faults, disagreement, slow (only with an SLO).

    New faults are judged whatever the shadow mends. Slow answers are judged net of those that are
    slow on the primary's side only: near an SLO both sides cross it by chance, and an identical
    shadow must be able to pass.
    """
    missing, faults, slow = evidence.missing, evidence.faults, evidence.slow
    paired = missing.trials - missing.events
    mended = f" ({faults.lost:,} mended)" if faults.lost else ""
    asked = [
        Question(
            name="coverage",
            tally=missing,
            margin=margins.min_coverage,
            seen=f"{_of(paired, missing.trials, 'primary call')} are paired",
            unit="call",
            is_minimum=True,
        ),
        Question(
            name="faults",
            tally=faults.gains,
            margin=margins.max_faults,
            seen=f"{_of(faults.gained, faults.trials)} have a new fault{mended}",
        ),
        Question(
            name="disagreement",
            tally=evidence.disagreement,
            margin=margins.max_disagreement,
            seen=f"{_of(evidence.disagreement.events, evidence.disagreement.trials)} disagree",
        ),
    ]
    if slow is not None:
        seen = f"{_of(slow.gained, slow.trials)} are newly slow, {slow.lost:,} no longer slow"
        asked.append(Question(name="slow", tally=slow, margin=margins.max_slow, seen=seen))
    return (*asked, *(_of_margin(found, tally) for found, tally in evidence.margins))


def _of_margin(found: PathMargin, tally: Tally) -> Question:
    share = percent(tally.rate) if tally.trials else "none"
    return Question(
        name=f"{found.path} ({found.kind})",
        tally=tally,
        margin=found.margin,
        seen=f"{found.path} differs in {share} of {counted(tally.trials, 'pair')}",
        path=found.path,
    )


def judge(evidence: Evidence, margins: Margins) -> tuple[Gate, ...]:
    """Every gate of `questions`, judged."""
    asked = questions(evidence, margins)
    return tuple(judge_one(each, margins.alpha, margins.alpha / len(asked)) for each in asked)


def judge_one(question: Question, alpha: float, reject_alpha: float) -> Gate:
    """One gate: passing is asked at `alpha`, failing at `reject_alpha`."""
    tally, maximum = question.tally, question.maximum
    interval, rate = tally.interval(alpha), tally.rate
    status: Status = "wait"
    if tally.trials and interval.upper <= maximum:
        status = "pass"
    elif tally.trials and tally.interval(reject_alpha).lower > maximum:
        status = "fail"
    need = _need(question, alpha, reject_alpha) if status == "wait" else None
    if question.is_minimum:
        interval = Interval(1 - interval.upper, 1 - interval.lower)
        rate = None if rate is None else 1 - rate
    return Gate(
        name=question.name,
        estimate=rate,
        interval=interval,
        margin=question.margin,
        is_minimum=question.is_minimum,
        n=tally.trials,
        n_eff=tally.n_eff,
        status=status,
        reason=_reason(question, interval, status, need),
        need=need,
        path=question.path,
    )


def _of(events: int, trials: int, noun: str = "pair") -> str:
    return f"{events:,} of {counted(trials, noun)}"


def _reason(question: Question, interval: Interval, status: Status, need: Need | None) -> str:
    if status == "wait":
        found = f"between {percent(interval.lower)} and {percent(interval.upper)}"
    elif (status == "pass") == question.is_minimum:
        found = f"at least {percent(interval.lower)}"
    else:
        found = f"at most {percent(interval.upper)}"
    margin = f"{'needed' if question.is_minimum else 'allowed'} {percent(question.margin)}"
    return f"{question.seen}: {found}, {margin}{'' if need is None else f'; {need.reason}'}."


def _need(question: Question, alpha: float, reject_alpha: float) -> Need:
    """The fewest further trials after which the gate passes, or fails, at its present rate;
    clusters are taken to grow in number as the trials do. Without trials: the fewest that can pass.
    """
    tally, maximum, unit = question.tally, question.maximum, question.unit
    rate = tally.rate
    if rate is None:
        return _need_from_nothing(question, alpha)
    if maximum == 0 and rate == 0:
        return Need(pairs=None, towards=None, reason="no number of samples proves a share of zero")
    towards: Literal["pass", "fail"] = "pass" if rate < maximum else "fail"

    def is_settled(trials: int) -> bool:
        if towards == "pass":
            return tally.interval(alpha, trials).upper <= maximum
        return tally.interval(reject_alpha, trials).lower > maximum

    total = trials_until(is_settled, tally.trials)
    if total is None:
        reason = f"{percent(rate)} is too near to be told apart in {TRIALS_LIMIT:,} {unit}s"
        return Need(pairs=None, towards=None, reason=reason)
    more = max(1, total - tally.trials)
    reason = f"{counted(more, f'more {unit}')} at this rate would {towards} it"
    return Need(pairs=more, towards=towards, reason=reason)


def _need_from_nothing(question: Question, alpha: float) -> Need:
    def passes(trials: int) -> bool:
        tally = replace(question.tally, trials=trials, effective_trials=None)
        return tally.interval(alpha).upper <= question.maximum

    fewest = trials_until(passes, 1)
    reason = f"there are no {question.unit}s yet"
    if fewest is None:
        return Need(pairs=None, towards=None, reason=reason)
    least = f"{reason}; it takes {counted(fewest, question.unit)} at the least to pass it"
    return Need(pairs=fewest, towards="pass", reason=least)
