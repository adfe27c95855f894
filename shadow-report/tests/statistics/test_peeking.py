"""What the gates promise when someone looks 200 times, simulated with the gates' own rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from looks import (
    ALPHA,
    changes_at,
    clears,
    events_at,
    exceeds,
    look_times,
    share_ever,
)
from statsmodels.stats.proportion import proportion_confint

from shadow_report.judging.gates import judge
from shadow_report.judging.questions import Evidence, Margins
from shadow_report.judging.rates import Net, Rate
from shadow_report.judging.verdict import Verdict, decide
from shadow_report.statistics.sequences import log_net_evidence_below

REJECT_ALPHA = ALPHA / 4
TIMES = look_times(200_000)
TRIALS = TIMES.astype(np.float64)


@given(
    st.integers(1, 200_000).flatmap(lambda n: st.tuples(st.integers(0, min(n, 900)), st.just(n)))
)
def test_the_simulated_rule_is_the_rule_of_the_gates(counts: tuple[int, int]) -> None:
    """The vectorised rule of these simulations and `judge` always say the same."""
    events, trials = counts
    evidence = Evidence(
        missing=Rate(events, trials),
        faults=Rate(events, trials),
        disagreement=Rate(events, trials),
        bad=Rate(events, trials),
    )
    k, n = np.array([float(events)]), np.array([float(trials)])
    for gate, maximum in zip(judge(evidence, Margins()), (0.01, 0.001, 0.01, 0.01), strict=True):
        assert (gate.status == "pass") == clears(k, n, maximum)[0]
        assert (gate.status == "fail") == exceeds(k, n, maximum, REJECT_ALPHA)[0]


@pytest.mark.parametrize("margin", [0.001, 0.01], ids=["faults", "disagreement and coverage"])
def test_shadow_at_the_margin_is_promoted_in_at_most_alpha(margin: float) -> None:
    """The hardest bad shadow, exactly at the margin, passes a gate in at most 5 % of the runs."""
    events = events_at(TIMES, margin, runs=4_000, seed=3)
    assert share_ever(clears(events, TRIALS, margin)) <= ALPHA


@pytest.mark.parametrize("margin", [0.001, 0.01], ids=["faults", "disagreement and coverage"])
def test_shadow_at_the_margin_is_rejected_in_at_most_its_share_of_alpha(margin: float) -> None:
    """A shadow that just keeps the margin fails each of four gates in at most alpha/4."""
    events = events_at(TIMES, margin, runs=4_000, seed=4)
    assert share_ever(exceeds(events, TRIALS, margin, REJECT_ALPHA)) <= REJECT_ALPHA


def test_slow_gate_keeps_both_promises() -> None:
    """Net slow answers at the margin: promoted in at most alpha, rejected in at most alpha/5."""
    times = look_times(50_000)
    gained, lost = changes_at(times, 0.03, 0.02, runs=1_600, seed=5)
    passes, fails = (
        np.array([log_net_evidence_below(*counts, times, m) >= limit for counts in counted])
        for counted, m, limit in (
            (zip(gained, lost, strict=True), 0.01, -math.log(ALPHA)),
            (zip(lost, gained, strict=True), -0.01, -math.log(ALPHA / 5)),
        )
    )
    assert share_ever(passes) <= ALPHA
    assert share_ever(fails) <= ALPHA / 5
    # The gate's own rule is this one.
    for look in range(0, times.size, 20):
        counts = int(gained[0, look]), int(lost[0, look]), int(times[look])
        bounds = Net(*counts).bounds(ALPHA, ALPHA / 5)
        assert (bounds.upper <= 0.01) == passes[0, look]
        assert (bounds.lower > 0.01) == fails[0, look]


def test_one_fault_in_500_is_never_promoted() -> None:
    """500 runs of 200 looks up to 200,000 pairs: not one look would promote."""
    events = events_at(TIMES, 1 / 500, runs=500, seed=6)
    assert not clears(events, TRIALS, 0.001).any()


def test_one_fault_in_500_is_rejected_in_the_end() -> None:
    """And it does not wait for ever: nearly every run rejects by 200,000 pairs."""
    events = events_at(TIMES, 1 / 500, runs=500, seed=7)
    assert share_ever(exceeds(events, TRIALS, 0.001, REJECT_ALPHA)) >= 0.99


def test_label_flipped_one_time_in_500_never_passes_a_tenth_of_a_percent() -> None:
    """`--max-disagreement 0.001` with the flip alone, looked at after every single pair."""
    flips = np.random.default_rng(8).random((100, 40_000)) < 1 / 500
    events = flips.cumsum(axis=1).astype(np.float64)
    assert not clears(events, np.arange(1.0, 40_001), 0.001).any()


def test_fixed_horizon_interval_would_promote_far_too_often() -> None:
    """Why the gates need a confidence sequence: Wilson's bound fails the same test."""
    times = look_times(10_000, first=100)
    events = events_at(times, 0.02, runs=2_000, seed=9)
    # Two-sided 90 %: its upper end has an error of 5 % at one look.
    _, upper = proportion_confint(events, np.broadcast_to(times, events.shape), 0.1, "wilson")
    assert share_ever(upper <= 0.02) > 0.2
    assert share_ever(clears(events, times.astype(np.float64), 0.02)) <= ALPHA


def _verdict(pairs: int, *, differing: int = 0, faulty: int = 0) -> Verdict:
    evidence = Evidence(
        missing=Rate(0, pairs),
        faults=Rate(faulty, pairs),
        disagreement=Rate(differing, pairs - faulty),
        bad=Rate(faulty + differing, pairs),
    )
    return decide(judge(evidence, Margins()), Margins()).verdict


def test_identical_shadow_is_promoted_from_3787_pairs_on() -> None:
    """Before that it is WAIT, never anything else."""
    assert {_verdict(n) for n in range(1, 3787, 40)} == {Verdict.WAIT}
    assert _verdict(3786) is Verdict.WAIT
    assert _verdict(3787) is Verdict.PROMOTE
    assert _verdict(1_000_000) is Verdict.PROMOTE


def test_shadow_whose_answers_all_differ_is_rejected_within_a_few_pairs() -> None:
    """FACTOR=3 against FACTOR=2 needs no two hundred calls."""
    assert _verdict(2, differing=2) is Verdict.REJECT
    assert _verdict(200, differing=200) is Verdict.REJECT


def test_shadow_with_one_fault_in_500_waits_and_then_is_rejected() -> None:
    """The whole verdict along the expected counts: WAIT, then REJECT, never PROMOTE."""
    outcomes = [_verdict(n, faulty=n // 500) for n in range(500, 60_001, 500)]
    assert set(outcomes) == {Verdict.WAIT, Verdict.REJECT}
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome is Verdict.REJECT)
