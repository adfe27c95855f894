"""Each gate: when it passes, fails and waits, and what it says."""

from __future__ import annotations

import pytest

from shadow_report.judging.gates import (
    ChangeTally,
    Evidence,
    Margins,
    Question,
    Tally,
    judge,
    judge_one,
)
from shadow_report.report import Gate
from shadow_report.wording import percent

CONTRACT = Margins()
NONE_MISSING, NO_FAULTS = Tally(0, 20_000), ChangeTally(0, 0, 20_000)


def _gates(
    missing: Tally = NONE_MISSING,
    faults: ChangeTally = NO_FAULTS,
    disagreement: Tally = NONE_MISSING,
    slow: ChangeTally | None = None,
    margins: Margins = CONTRACT,
) -> dict[str, Gate]:
    evidence = Evidence(missing=missing, faults=faults, disagreement=disagreement, slow=slow)
    return {gate.name: gate for gate in judge(evidence, margins)}


def test_gates_come_in_the_order_of_the_report() -> None:
    """Integrity first; time only when there is an SLO."""
    assert list(_gates()) == ["coverage", "faults", "disagreement"]
    with_slo = _gates(slow=ChangeTally(0, 0, 20_000))
    assert list(with_slo) == ["coverage", "faults", "disagreement", "slow"]


def test_clean_evidence_passes_every_gate() -> None:
    """20,000 pairs, nothing wrong."""
    gates = _gates(slow=ChangeTally(0, 0, 20_000))
    assert {gate.status for gate in gates.values()} == {"pass"}
    assert all(gate.need is None for gate in gates.values())


def test_coverage_counts_towards_a_minimum() -> None:
    """Estimate and interval are shares of paired calls, the margin a minimum."""
    gate = _gates(missing=Tally(30, 20_000))["coverage"]
    assert gate.is_minimum
    assert gate.margin == 0.99
    assert gate.estimate == pytest.approx(0.9985)
    assert 0.99 < gate.interval.lower < 0.9985 < gate.interval.upper < 1
    assert (
        gate.reason == "19,970 of 20,000 primary calls are paired: at least 99.711 %, needed 99 %."
    )


def test_coverage_fails_when_calls_are_clearly_missing() -> None:
    """A third of the calls without a shadow call."""
    gate = _gates(missing=Tally(100, 300))["coverage"]
    assert gate.status == "fail"
    assert gate.interval.upper < 0.99


def test_faults_are_judged_whatever_is_mended() -> None:
    """A shadow that breaks 1 in 500 and mends as many does not pass."""
    gate = _gates(faults=ChangeTally(200, 200, 100_000))["faults"]
    assert gate.status == "fail"
    assert gate.estimate == pytest.approx(0.002)
    assert "(200 mended)" in gate.reason


def test_slow_is_judged_net_of_chance_crossings() -> None:
    """An identical shadow near the SLO crosses it on 5 % of the pairs each way, and passes."""
    assert _gates(slow=ChangeTally(5_000, 5_000, 100_000))["slow"].status == "pass"
    slower = _gates(slow=ChangeTally(7_000, 5_000, 100_000))["slow"]
    assert slower.status == "fail"
    assert slower.estimate == pytest.approx(0.02)


def test_waiting_gate_says_how_many_more_pairs_would_settle_it() -> None:
    """After 200 clean pairs: the 8,062 of the margin less the 200 that are there."""
    gate = _gates(faults=ChangeTally(0, 0, 200))["faults"]
    assert gate.status == "wait"
    assert gate.need is not None
    assert (gate.need.pairs, gate.need.towards) == (7_862, "pass")
    assert gate.reason == (
        "0 of 200 pairs have a new fault: between 0 % and 3.06 %, allowed 0.1 %; "
        "7,862 more pairs at this rate would pass it."
    )


@pytest.mark.parametrize("events", [0, 1, 3, 40, 100])
def test_the_need_is_exact(events: int) -> None:
    """With so many more pairs at the same rate the gate is settled, with one fewer it is not."""
    tally = Tally(events, 1_000 * max(1, events))
    gate = judge_one(Question(name="x", tally=tally, margin=0.002, seen="some differ"), 0.05, 0.01)
    if gate.need is None:
        assert gate.status == "pass"
        return
    assert gate.need.pairs is not None
    total = tally.trials + gate.need.pairs
    assert tally.interval(0.05, total).upper <= 0.002 < tally.interval(0.05, total - 1).upper


def test_rate_above_the_margin_needs_pairs_to_fail() -> None:
    """Six faults in 3,000: too early to reject, and the need says where it is heading."""
    gate = _gates(faults=ChangeTally(6, 0, 3_000))["faults"]
    assert gate.status == "wait"
    assert gate.need is not None
    assert gate.need.towards == "fail"
    assert gate.need.pairs is not None
    assert gate.need.pairs > 1_000


def test_rate_at_the_margin_is_never_settled() -> None:
    """Exactly the margin: the report says so instead of giving a date."""
    gate = _gates(disagreement=Tally(200, 20_000))["disagreement"]
    assert gate.need is not None
    assert gate.need.pairs is None
    assert "too near to be told apart" in gate.reason


def test_margin_of_zero_waits_or_fails() -> None:
    """No sample proves a share of zero, one event disproves it."""
    margins = Margins(max_disagreement=0)
    clean = _gates(margins=margins)["disagreement"]
    assert clean.status == "wait"
    assert "no number of samples proves a share of zero" in clean.reason
    assert _gates(disagreement=Tally(1, 20_000), margins=margins)["disagreement"].status == "fail"


def test_no_pairs_wait() -> None:
    """Without a pair nothing is estimated, whatever the margin."""
    gate = _gates(disagreement=Tally(0, 0), margins=Margins(max_disagreement=1))["disagreement"]
    assert gate.status == "wait"
    assert gate.estimate is None
    assert gate.interval == (0, 1)
    assert "there are no pairs yet" in gate.reason


def test_a_failing_gate_says_the_bound_of_its_interval() -> None:
    """One figure, in the sentence as in the table; it is decided at alpha over the gates."""
    gates = _gates(missing=Tally(100, 300), disagreement=Tally(200, 200))
    coverage, disagreement = gates["coverage"], gates["disagreement"]
    assert (coverage.status, disagreement.status) == ("fail", "fail")
    assert f"at most {percent(coverage.interval.upper)}, needed 99 %" in coverage.reason
    assert f"at least {percent(disagreement.interval.lower)}, allowed 1 %" in disagreement.reason


def test_a_gate_just_beyond_at_alpha_waits() -> None:
    """Failing is asked at alpha over the number of gates, whatever bound is shown."""
    tally = next(
        t
        for t in (Tally(n, 2_000) for n in range(20, 80))
        if t.interval(0.05).lower > 0.01 >= t.interval(0.05 / 3).lower
    )
    assert _gates(disagreement=tally)["disagreement"].status == "wait"


def test_clusters_delay_the_pass() -> None:
    """10,000 clean pairs, effectively 1,000, wait, and need as many as make up for it."""
    gate = _gates(faults=ChangeTally(0, 0, 10_000, 1_000))["faults"]
    assert gate.status == "wait"
    assert (gate.n, gate.n_eff) == (10_000, 1_000)
    assert gate.need is not None
    assert gate.need.pairs == pytest.approx(70_620, abs=10)
