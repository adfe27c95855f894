"""Counts of something bad, as rates with bounds that hold at every look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shadow_report.statistics.sequences import Interval, coverage_bounds, net_bounds, rate_bounds

# A healthy mirror is called INVALID in at most this share of the cases, whatever alpha is.
MIRROR_REJECT_ALPHA = 0.01
# The noise of fewer requests may be nearly anything: of none in 20, up to a quarter.
MEASURED_REQUESTS = 20


class Count(Protocol):
    """Something bad that was counted: how often among `trials`, worth `n_eff`."""

    @property
    def trials(self) -> int:
        """Calls or pairs."""

    @property
    def n_eff(self) -> float:
        """The effective sample size."""

    @property
    def rate(self) -> float | None:
        """The observed share; None without trials."""

    @property
    def outlook(self) -> float | None:
        """The share to expect of further trials."""

    def bounds(self, alpha: float, reject_alpha: float, trials: float | None = None) -> Interval:
        """The upper bound of the share at `alpha` and the lower one at `reject_alpha`.

        With `trials`: what they would be after so many, with the outlook and the same design
        effect.
        """


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened: `events` among `trials`.

    `effective_trials` is smaller than `trials` when the trials repeat each other; None means that
    they are independent. `grown`: what so many trials will be worth; None is in proportion. Raises
    ValueError unless 0 <= events <= trials and 0 <= effective_trials <= trials.
    """

    events: int
    trials: int
    effective_trials: float | None = None
    grown: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        _check(self.events, self.trials, self.effective_trials)

    @property
    def n_eff(self) -> float:
        return float(self.trials if self.effective_trials is None else self.effective_trials)

    @property
    def rate(self) -> float | None:
        return self.events / self.trials if self.trials else None

    @property
    def outlook(self) -> float | None:
        return self.rate

    def bounds(self, alpha: float, reject_alpha: float, trials: float | None = None) -> Interval:
        if not self.trials:
            return Interval(0.0, 1.0)
        grown = _worth(self, trials)
        return rate_bounds(grown * (self.events / self.trials), grown, alpha, reject_alpha)


@dataclass(frozen=True, slots=True)
class Net:
    """A paired yes/no outcome among `trials` pairs: `gained` pairs where only the shadow has it,
    `lost` pairs where only the primary has it; the rate is that of the difference.

    `effective_trials`, `grown` and errors as in `Rate`.
    """

    gained: int
    lost: int
    trials: int
    effective_trials: float | None = None
    grown: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        _check(self.gained + self.lost, self.trials, self.effective_trials)
        _check(self.gained, self.trials, None)
        _check(self.lost, self.trials, None)

    @property
    def n_eff(self) -> float:
        return float(self.trials if self.effective_trials is None else self.effective_trials)

    @property
    def rate(self) -> float | None:
        return (self.gained - self.lost) / self.trials if self.trials else None

    @property
    def outlook(self) -> float | None:
        return self.rate

    def bounds(self, alpha: float, reject_alpha: float, trials: float | None = None) -> Interval:
        if not self.trials:
            return Interval(-1.0, 1.0)
        grown = _worth(self, trials)
        gained, lost = grown * (self.gained / self.trials), grown * (self.lost / self.trials)
        return net_bounds(gained, lost, grown, alpha, reject_alpha)


@dataclass(frozen=True, slots=True)
class Unmirrored:
    """Calls without a pair where the mirror copies each call with chance `share`: the rate is that
    among the calls that were copied, of which only their number is known, and that by chance.
    """

    pairs: int
    trials: int
    share: float

    def __post_init__(self) -> None:
        _check(self.pairs, self.trials, None)

    @property
    def n_eff(self) -> float:
        # The mirror's coin is tossed for each call by itself, whatever the calls have in common.
        return float(self.trials)

    @property
    def rate(self) -> float | None:
        return max(0.0, 1 - self.pairs / (self.trials * self.share)) if self.trials else None

    @property
    def outlook(self) -> float | None:
        # As long as chance may be all there is to it, a mirror loses nothing from here on.
        lost = self.bounds(MIRROR_REJECT_ALPHA, MIRROR_REJECT_ALPHA).lower
        return 0.0 if self.trials and lost <= 0 else self.rate

    def bounds(self, alpha: float, reject_alpha: float, trials: float | None = None) -> Interval:
        grown, pairs = float(trials or self.trials), float(self.pairs)
        if trials:
            pairs += (grown - self.trials) * self.share * (1 - (self.outlook or 0.0))
        found = coverage_bounds(
            pairs, grown, self.share, alpha, min(reject_alpha, MIRROR_REJECT_ALPHA)
        )
        return Interval(1 - found.upper, 1 - found.lower)


@dataclass(frozen=True, slots=True)
class Excess:
    """How much more often something happens than `noise` does: a known share, or a rate that was
    counted, and then each of the two gets half of alpha. As long as too little of it was counted,
    it explains nothing.

    Both bounds hold at every look, so their difference does, whatever the two have in common.
    """

    counted: Rate
    noise: Rate | float

    @property
    def floor(self) -> float:
        """The share that noise explains."""
        if isinstance(self.noise, float):
            return self.noise
        return (self.noise.rate or 0.0) if self.is_measured else 0.0

    @property
    def is_measured(self) -> bool:
        """Whether the noise is known well enough to take it off."""
        return isinstance(self.noise, float) or self.noise.n_eff >= MEASURED_REQUESTS

    @property
    def trials(self) -> int:
        return self.counted.trials

    @property
    def n_eff(self) -> float:
        return self.counted.n_eff

    @property
    def rate(self) -> float | None:
        found = self.counted.rate
        return None if found is None else found - self.floor

    @property
    def outlook(self) -> float | None:
        return self.rate

    def bounds(self, alpha: float, reject_alpha: float, trials: float | None = None) -> Interval:
        if isinstance(self.noise, float):
            found = self.counted.bounds(alpha, reject_alpha, trials)
            return Interval(found.lower - self.noise, found.upper - self.noise)
        found = self.counted.bounds(alpha / 2, reject_alpha / 2, trials)
        # Whoever passes must be above little noise, whoever fails beyond much of it.
        noise = self.noise.bounds(reject_alpha / 2, alpha / 2)
        least = noise.lower if self.is_measured else 0.0
        return Interval(found.lower - noise.upper, found.upper - least)


def _worth(count: Rate | Net, trials: float | None) -> float:
    """The effective sample size, also after so many trials."""
    if trials is None:
        return count.n_eff
    in_proportion = count.n_eff * (trials / count.trials)
    return in_proportion if count.grown is None else count.grown(trials)


def _check(events: int, trials: int, effective_trials: float | None) -> None:
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events among {trials} trials; give 0 <= events <= trials.")
    # A rounding error of the division by the design effect is not a mistake of the caller.
    if effective_trials is not None and not 0 <= effective_trials <= trials * (1 + 1e-9):
        raise ValueError(
            f"effective_trials is {effective_trials} for {trials} trials; give 0 to {trials}."
        )
