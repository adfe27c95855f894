"""The counts that the verdict rests on, and what they say at a level of confidence."""

from __future__ import annotations

from dataclasses import dataclass

from shadow_report.statistics.binomial_sequence import beta_binomial_interval
from shadow_report.statistics.interval import Interval
from shadow_report.statistics.paired_difference import difference_interval


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
