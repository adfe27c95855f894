"""Simulated shadows that are looked at again and again; fixed seeds, whole arrays at once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, xlog1py, xlogy

from shadow_report.statistics.sequences import (
    PRIOR_EVENTS,
    PRIOR_OTHERS,
    log_evidence_below,
)

LOOKS = 200
ALPHA = 0.05

Floats = NDArray[np.float64]


def log_evidence(events: float | Floats, trials: float | Floats, rate: float) -> Floats:
    """The logarithm of the mixture martingale against `rate`, written out for arrays of counts."""
    others = trials - events
    mixture = betaln(PRIOR_EVENTS + events, PRIOR_OTHERS + others)
    likelihood = xlogy(events, rate) + xlog1py(others, -rate)
    result = mixture - betaln(PRIOR_EVENTS, PRIOR_OTHERS) - likelihood
    return np.asarray(result, dtype=np.float64)


def look_times(last: int, first: int = 10) -> NDArray[np.int64]:
    """200 looks from `first` to `last` trials, evenly spread on a log scale."""
    return np.unique(np.geomspace(first, last, LOOKS).round().astype(np.int64))


def events_at(times: NDArray[np.int64], rate: float, runs: int, seed: int) -> Floats:
    """Events seen by each look: one row per run, one column per look."""
    steps = np.diff(times, prepend=0)
    drawn = np.random.default_rng(seed).binomial(steps, rate, size=(runs, steps.size))
    return drawn.cumsum(axis=1).astype(np.float64)


def changes_at(
    times: NDArray[np.int64], gained: float, lost: float, runs: int, seed: int
) -> tuple[Floats, Floats]:
    """Gained and lost pairs seen by each look, as `events_at`."""
    steps = np.diff(times, prepend=0)
    drawn = np.random.default_rng(seed).multinomial(
        np.broadcast_to(steps, (runs, steps.size)), [gained, lost, 1 - gained - lost]
    )
    totals = drawn.cumsum(axis=1).astype(np.float64)
    return totals[..., 0], totals[..., 1]


def clears(
    events: Floats, trials: Floats, maximum: float, alpha: float = ALPHA
) -> NDArray[np.bool]:
    """Where the upper bound of the rate is at or under `maximum`: what `judge_one` calls pass."""
    evidence = log_evidence_below(events, np.broadcast_to(trials, events.shape), maximum)
    return np.asarray(evidence >= math.log(1 / alpha))


def exceeds(events: Floats, trials: Floats, maximum: float, alpha: float) -> NDArray[np.bool]:
    """Where the lower bound of the rate is above `maximum`: what `judge_one` calls fail."""
    return (events > maximum * trials) & is_refuted(events, trials, maximum, alpha)


def is_refuted(events: Floats, trials: Floats, rate: float, alpha: float) -> NDArray[np.bool]:
    """Where `rate` lies outside the confidence sequence."""
    return log_evidence(events, np.broadcast_to(trials, events.shape), rate) >= math.log(1 / alpha)


def share_ever(flags: NDArray[np.bool]) -> float:
    """The share of runs in which any look has the flag."""
    return float(flags.any(axis=1).mean())
