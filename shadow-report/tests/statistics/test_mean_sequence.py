"""The anytime interval of a mean, and why it waits for enough differing pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from looks import ALPHA, changes_at, look_times

from shadow_report.statistics.samples import Moments
from shadow_report.statistics.sequences import MIN_NONZERO, UNKNOWN, mean_interval

RUNS = 400


def _ever_misses(values: np.ndarray, mean: float, looks: np.ndarray) -> float:
    """The share of runs (rows) in which the sequence misses `mean` at any look."""
    sums, squares = values.cumsum(axis=1)[:, looks - 1], (values**2).cumsum(axis=1)[:, looks - 1]
    missed = 0
    for run in range(values.shape[0]):
        for n, total, square in zip(looks, sums[run], squares[run], strict=True):
            moments = Moments(int(n), total / n, square - total * total / n)
            lower, upper = mean_interval(moments, ALPHA, int(n))
            if not lower <= mean <= upper:
                missed += 1
                break
    return missed / values.shape[0]


@pytest.mark.parametrize("kind", ["normal", "heavy-tailed", "skewed"])
def test_true_mean_is_missed_at_any_of_200_looks_in_at_most_alpha(kind: str) -> None:
    """Also for the heavy tails and the skew of latencies, from 500 values on."""
    random = np.random.default_rng(31)
    size = (RUNS, 10_000)
    values, mean = {
        "normal": lambda: (random.normal(2, 1, size), 2.0),
        "heavy-tailed": lambda: (random.standard_t(3, size), 0.0),
        "skewed": lambda: (random.lognormal(0, 1, size), math.exp(0.5)),
    }[kind]()
    assert _ever_misses(values, mean, look_times(10_000, first=500)) <= ALPHA


@pytest.mark.parametrize(("nonzero_known", "ceiling"), [(True, ALPHA), (False, 1.0)])
def test_paired_changes_keep_alpha_only_once_enough_pairs_differ(
    nonzero_known: bool, ceiling: float
) -> None:
    """From a first look at two differing pairs it misses more than alpha; after 20 it does not."""
    times = look_times(50_000, first=500)
    gained, lost = changes_at(times, 0.003, 0.001, runs=RUNS, seed=32)
    missed = 0
    for run in range(RUNS):
        for n, plus, minus in zip(times, gained[run], lost[run], strict=True):
            changed, net = plus + minus, plus - minus
            moments = Moments(int(n), net / n, changed - net * net / n)
            lower, upper = mean_interval(
                moments, ALPHA, int(changed) if nonzero_known else MIN_NONZERO
            )
            if not math.isnan(lower) and not lower <= 0.002 <= upper:
                missed += 1
                break
    assert missed / RUNS <= ceiling
    assert nonzero_known or missed / RUNS > 2 * ALPHA


def test_too_few_values_give_no_interval() -> None:
    """The variance of a handful of values is a guess, so there is no answer."""
    few = Moments.of(np.arange(MIN_NONZERO - 1))
    assert mean_interval(few, ALPHA, few.n) is UNKNOWN
    assert mean_interval(Moments(10_000, 0.001, 5.0), ALPHA, nonzero=MIN_NONZERO - 1) is UNKNOWN


def test_width_matches_the_published_formula() -> None:
    """Theorem 2.2 of arXiv:2103.06476 with rho tuned to 5,000 values, written out once more."""
    n, sd = 700, 3.0
    rho2 = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA) + 1)) / 5_000
    half = sd * math.sqrt(
        2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / ALPHA)
    )
    interval = mean_interval(Moments(n, 1.0, sd**2 * (n - 1)), ALPHA, n)
    assert interval == pytest.approx((1 - half, 1 + half))
