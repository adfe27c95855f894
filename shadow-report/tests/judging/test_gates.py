"""Each gate: when it passes, fails and waits, and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest

from shadow_report.judging.gates import judge, judge_one
from shadow_report.judging.questions import Evidence, Margins, Question
from shadow_report.judging.rates import Net, Rate, Unmirrored
from shadow_report.report import Gate, Slice
from shadow_report.statistics.block_scan import BlockScan
from shadow_report.wording import percent, percent_range

CONTRACT = Margins()
CLEAN = Rate(0, 20_000)


def _gates(
    *,
    missing: Rate | Unmirrored = CLEAN,
    faults: Rate = CLEAN,
    disagreement: Rate = CLEAN,
    bad: Rate = CLEAN,
    slow: Net | None = None,
    first_token: Net | None = None,
    noise: Rate | None = None,
    unanswered: int = 0,
    scans: Mapping[str, BlockScan] | None = None,
    slices: tuple[Slice, ...] | None = None,
    margins: Margins = CONTRACT,
) -> dict[str, Gate]:
    evidence = Evidence(
        missing=missing,
        faults=faults,
        disagreement=disagreement,
        bad=bad,
        slow=slow,
        first_token=first_token,
        first_token_ratio=1.5,
        noise=noise,
        unanswered=unanswered,
        scans=scans or {},
        slices=slices,
    )
    return {gate.name: gate for gate in judge(evidence, margins)}


def _scan(*runs: tuple[int, bool]) -> BlockScan:
    """Trials of these outcomes, a second apart."""
    events = np.concatenate([np.full(count, bad) for count, bad in runs])
    scan = BlockScan(0, events.size * 1_000_000)
    scan.add(np.arange(events.size) * 1_000_000, events)
    return scan


def test_gates_come_in_the_order_of_the_report() -> None:
    """Integrity first; time only when there is an SLO or a stream, runs and slices last."""
    assert list(_gates()) == ["coverage", "faults", "disagreement", "bad"]
    assert list(_gates(first_token=Net(0, 0, 0))) == list(_gates())
    everything = _gates(
        slow=Net(0, 0, 20_000),
        first_token=Net(0, 0, 1),
        scans={"faults": _scan((9, False))},
        slices=(),
    )
    assert list(everything)[4:] == ["slow", "first_token", "newest", "worst", "slices"]


def test_clean_evidence_passes_every_gate() -> None:
    """20,000 pairs, nothing wrong."""
    gates = _gates(
        slow=Net(0, 0, 20_000), scans={"faults": _scan((20_000, False))}, slices=(), unanswered=0
    )
    assert {gate.status for gate in gates.values()} == {"pass"}
    assert all(gate.need is None for gate in gates.values())


def test_coverage_counts_towards_a_minimum() -> None:
    """Estimate and interval are shares of paired calls, the margin a minimum."""
    gate = _gates(missing=Rate(30, 20_000))["coverage"]
    assert gate.is_minimum
    assert gate.margin == 0.99
    assert gate.estimate == pytest.approx(0.9985)
    assert 0.99 < gate.interval.lower < 0.9985 < gate.interval.upper < 1
    bound = percent(gate.interval.lower)
    assert gate.reason == (
        f"19,970 of 20,000 primary calls are paired: at least {bound}, needed 99 %."
    )


def test_coverage_fails_when_calls_are_clearly_missing() -> None:
    """A third of the calls without a shadow call."""
    gate = _gates(missing=Rate(100, 300))["coverage"]
    assert gate.status == "fail"
    assert gate.interval.upper < 0.99


def test_a_partial_mirror_is_judged_by_its_coin() -> None:
    """2,000 calls at 10 %: 180 pairs are not yet a loss, none at all is; the words say of what."""
    gate = _gates(missing=Unmirrored(180, 2_000, 0.1))["coverage"]
    assert gate.status == "wait"
    assert gate.reason.startswith("180 pairs among 2,000 primary calls, of which 10 % are mirrored")
    assert "mirror everything" in gate.reason
    assert _gates(missing=Unmirrored(0, 2_000, 0.1))["coverage"].status == "fail"
    assert _gates(missing=Unmirrored(100_000, 1_000_000, 0.1))["coverage"].status == "pass"


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_partial_mirror_needs_as_much_without_calls_as_with_some(share: float) -> None:
    """Whether none is due yet or 1,500 are: the coin is known, so is what its chance takes. The
    sentence counts calls, the need pairs, as the other gates' and the time that a WAIT takes.
    """
    few = Unmirrored(round(1_500 * share), 1_500, share)
    gates = [_gates(missing=missing)["coverage"] for missing in (Unmirrored(0, 0, share), few)]
    needs = [gate.need for gate in gates if gate.need is not None]
    assert [need.towards for need in needs] == ["pass", "pass"]
    none_yet, some = [need.pairs for need in needs if need.pairs is not None]
    assert none_yet - 1_500 * share == pytest.approx(some, rel=0.01)
    full = _gates(missing=Rate(0, 0))["coverage"].need
    assert full is not None
    assert full.pairs == 377
    assert none_yet > 20 * full.pairs
    for need in needs:
        (calls,) = re.findall(r"([\d,]+) (?:more )?calls? at", need.reason)
        assert int(calls.replace(",", "")) == pytest.approx(need.pairs / share, abs=1 / share)
        assert "mirror everything" in need.reason


def test_unanswered_calls_are_among_the_faults() -> None:
    """The sentence says how many of them."""
    gate = _gates(faults=Rate(48, 12_000), unanswered=48)["faults"]
    assert gate.status == "fail"
    assert "48 of 12,000 calls have a new fault, 48 of them without an answer" in gate.reason


def test_slow_is_judged_net_of_chance_crossings() -> None:
    """An identical shadow near the SLO crosses it on 5 % of the pairs each way, and passes."""
    assert _gates(slow=Net(5_000, 5_000, 100_000))["slow"].status == "pass"
    slower = _gates(slow=Net(7_000, 5_000, 100_000))["slow"]
    assert slower.status == "fail"
    assert slower.estimate == pytest.approx(0.02)


def test_first_tokens_are_judged_net_of_chance_too() -> None:
    """A fifth of the pairs beyond the ratio either way; then a tenth more on the shadow's side."""
    assert _gates(first_token=Net(2_000, 2_000, 10_000))["first_token"].status == "pass"
    later = _gates(first_token=Net(3_500, 2_000, 10_000))["first_token"]
    assert later.status == "fail"
    assert "3,500 of 10,000 streams" in later.reason
    assert "2,000 the other way round" in later.reason


def test_all_that_is_bad_is_allowed_what_the_largest_kind_is() -> None:
    """Three kinds of 0.7 % keep each their 1 %, and are 2.1 % together; who allows more of one
    kind, or of all, said so.
    """
    three = Rate(504, 24_000)
    assert _gates(bad=three)["bad"].status == "fail"
    assert _gates(bad=three, margins=Margins(max_disagreement=0.1))["bad"].status == "pass"
    assert _gates(bad=three, margins=Margins(max_bad=0.03))["bad"].status == "pass"


def test_waiting_gate_says_how_many_more_pairs_would_settle_it() -> None:
    """After 200 clean calls: the 3,787 of the margin less the 200 that are there."""
    gate = _gates(faults=Rate(0, 200))["faults"]
    assert gate.status == "wait"
    assert gate.need is not None
    assert (gate.need.pairs, gate.need.towards) == (3_587, "pass")
    assert gate.reason == (
        f"0 of 200 calls have a new fault: between 0 % and {percent(gate.interval.upper)}, "
        "allowed 0.1 %; 3,587 more calls at this rate would pass it."
    )


@pytest.mark.parametrize("events", [0, 1, 3, 40, 100])
def test_the_need_is_exact(events: int) -> None:
    """With so many more pairs at the same rate the gate is settled, with one fewer it is not."""
    count = Rate(events, 1_000 * max(1, events))
    question = Question(name="x", count=count, margin=0.002, seen="some differ", bad="differ")
    gate = judge_one(question, 0.05, 0.01)
    if gate.need is None:
        assert gate.status == "pass"
        return
    assert gate.need.pairs is not None
    total = count.trials + gate.need.pairs
    before = count.bounds(0.05, 0.01, total - 1).upper
    assert count.bounds(0.05, 0.01, total).upper <= 0.002 < before


def test_rate_above_the_margin_needs_pairs_to_fail() -> None:
    """Six faults in 3,000: too early to reject, and the need says where it is heading."""
    gate = _gates(faults=Rate(6, 3_000))["faults"]
    assert gate.status == "wait"
    assert gate.need is not None
    assert gate.need.towards == "fail"
    assert gate.need.pairs is not None
    assert gate.need.pairs > 1_000


def test_rate_at_the_margin_is_never_settled() -> None:
    """Exactly the margin: the report says so instead of giving a date."""
    gate = _gates(disagreement=Rate(200, 20_000))["disagreement"]
    assert gate.need is not None
    assert gate.need.pairs is None
    assert "; allow more or less than 1 %: 1 % is too near to be told apart" in gate.reason


def test_margin_of_zero_waits_or_fails() -> None:
    """No sample proves a share of zero, one event disproves it."""
    margins = Margins(max_disagreement=0)
    clean = _gates(margins=margins)["disagreement"]
    assert clean.status == "wait"
    assert "; allow more than 0 %: no number of samples proves a share of zero" in clean.reason
    covered = _gates(margins=Margins(min_coverage=1))["coverage"]
    assert "; ask for less than 100 %: no number of samples" in covered.reason
    assert _gates(disagreement=Rate(1, 20_000), margins=margins)["disagreement"].status == "fail"


def test_no_pairs_wait() -> None:
    """Without a pair nothing is estimated, whatever the margin."""
    gate = _gates(faults=Rate(0, 0), disagreement=Rate(0, 0), margins=Margins(max_disagreement=1))[
        "disagreement"
    ]
    assert gate.status == "wait"
    assert gate.estimate is None
    assert gate.interval == (0, 1)
    assert "there are no pairs yet" in gate.reason


def test_pairs_of_which_none_can_agree_say_what_to_change() -> None:
    """All fail on both sides: more of them are not evidence."""
    gate = _gates(disagreement=Rate(0, 0))["disagreement"]
    assert gate.need is not None
    assert gate.need.pairs is None
    assert "send requests that it answers" in gate.reason


def test_faults_alone_do_not_blame_the_primary() -> None:
    """A shadow that is down leaves nothing to compare, however well the primary answers."""
    gate = _gates(faults=Rate(60, 60), disagreement=Rate(0, 0))["disagreement"]
    assert "all of the 60 calls have a new fault" in gate.reason
    assert "send requests" not in gate.reason


def test_a_gate_shows_the_bounds_that_decide_it() -> None:
    """Failing is asked at alpha over the number of gates, passing at alpha, and both are shown."""
    gates = _gates(missing=Rate(100, 300), disagreement=Rate(200, 200))
    coverage, disagreement = gates["coverage"], gates["disagreement"]
    assert (coverage.status, disagreement.status) == ("fail", "fail")
    assert f"at most {percent(coverage.interval.upper)}, needed 99 %" in coverage.reason
    assert f"at least {percent(disagreement.interval.lower)}, allowed 1 %" in disagreement.reason
    shown = Rate(200, 200).bounds(0.05, 0.05 / 4)
    assert disagreement.interval == shown
    undecided = next(
        rate
        for rate in (Rate(n, 2_000) for n in range(20, 80))
        if rate.bounds(0.05, 0.05).lower > 0.01 >= rate.bounds(0.05, 0.05 / 4).lower
    )
    waits = _gates(disagreement=undecided)["disagreement"]
    assert waits.status == "wait"
    assert waits.interval.lower <= 0.01


def test_clusters_delay_the_pass() -> None:
    """10,000 clean pairs, effectively 1,000, wait, and need as many as make up for it."""
    gate = _gates(faults=Rate(0, 10_000, 1_000))["faults"]
    assert gate.status == "wait"
    assert (gate.n, gate.n_eff) == (10_000, 1_000)
    assert gate.need is not None
    assert gate.need.pairs == pytest.approx(27_870, abs=10)


def test_disagreement_may_be_judged_above_the_noise() -> None:
    """5 % of answers differ, and so do the primary's own: rejected, unless noise may explain it."""
    noisy, noise = Rate(1_000, 20_000), Rate(1_140, 20_000)
    given = {"disagreement": noisy, "bad": noisy, "noise": noise}
    assert _gates(**given)["disagreement"].status == "fail"  # type: ignore[arg-type]
    above = Margins(noise_floor="auto")
    judged = _gates(**given, margins=above)  # type: ignore[arg-type]
    assert judged["disagreement"].status == judged["bad"].status == "pass"
    assert "the primary differs from itself in 5.7 %: excess" in judged["disagreement"].reason
    beyond = given | {"disagreement": Rate(2_000, 20_000)}
    assert _gates(**beyond, margins=above)["disagreement"].status == "fail"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("differing", "noise"), [(Rate(25, 212), Rate(25, 213)), (Rate(7, 212), Rate(0, 213))]
)
def test_noise_that_is_known_too_roughly_is_told(differing: Rate, noise: Rate) -> None:
    """Below the margin or beyond it: no further pairs settle it, more of the primary's own do."""
    found = _gates(disagreement=differing, noise=noise, margins=Margins(noise_floor="auto"))
    gate = found["disagreement"]
    assert gate.need is not None
    assert gate.need.pairs is None
    assert "send the primary more of its own calls" in gate.reason
    assert "the same once more add little" in gate.reason


@pytest.mark.parametrize(
    ("differing", "margin", "towards"), [(81, 0.01, "fail"), (40, 0.2, "pass")]
)
def test_a_wait_that_is_the_noises_says_what_shortens_it(
    differing: int, margin: float, towards: str
) -> None:
    """As many pairs as the noise so far asks for are not needed once more of it is known."""
    known, auto = Rate(25, 98), Margins(noise_floor="auto", max_disagreement=margin)
    gate = _gates(disagreement=Rate(differing, 154), noise=known, margins=auto)["disagreement"]
    assert gate.need is not None
    assert gate.need.towards == towards
    assert "(fewer where more are sent to the primary again: make noise" in gate.reason
    given = _gates(disagreement=Rate(81, 154), margins=Margins(noise_floor=0.4))["disagreement"]
    assert "make noise" not in given.reason


@pytest.mark.parametrize(("differing", "at_most"), [(0, "1.14 %"), (100, "33 %")])
def test_noise_that_is_not_measured_bounds_nothing_from_below(differing: int, at_most: str) -> None:
    """Of a single repeated request it may be 99 %; an excess of minus 99 % would tell nothing."""
    rate, noise = Rate(differing, 400), Rate(0, 1)
    found = _gates(disagreement=rate, noise=noise, margins=Margins(noise_floor="auto"))
    gate = found["disagreement"]
    assert gate.status == "wait"
    assert percent_range(gate.interval) == f"at most {at_most}"
    told = f"the noise is not measured yet (1 repeated request): excess at most {at_most}, allowed"
    assert told in gate.reason
    known = _gates(disagreement=rate, noise=Rate(0, 20), margins=Margins(noise_floor="auto"))
    assert "differs from itself in 0 %: excess between -" in known["disagreement"].reason


def test_noise_that_is_not_measured_explains_nothing() -> None:
    """Two of ten answers differ from the primary's own: what the table shows has nothing taken off,
    and runs are not looked for, as all calls are like those that would be called bad.
    """
    given = {"noise": Rate(2, 10), "scans": {"disagreement": _scan((5, False), (5, True))}}
    gates = _gates(disagreement=Rate(5, 10), margins=Margins(noise_floor="auto"), **given)  # type: ignore[arg-type]
    assert gates["disagreement"].status == "wait"
    assert gates["disagreement"].estimate == 0.5
    assert gates["disagreement"].interval.upper > 0.5
    assert (gates["newest"].status, gates["worst"].status) == ("pass", "pass")
    clean = _gates(disagreement=Rate(0, 20_000), margins=Margins(noise_floor="auto"), **given)  # type: ignore[arg-type]
    assert clean["disagreement"].status == "pass"
    assert clean["newest"].status == "wait"


def test_newest_calls_that_are_bad_hold_up_what_the_average_hides() -> None:
    """The last 25 of 60,025, with the time and what would clear it."""
    gate = _gates(faults=Rate(25, 60_025), scans={"faults": _scan((60_000, False), (25, True))})
    newest = gate["newest"]
    assert gate["faults"].status == "pass"
    assert newest.status == "wait"
    assert newest.estimate is not None
    assert newest.estimate > 0.7
    assert "(since 2000-01-01 16:39:53 UTC) have a new fault" in newest.reason
    assert newest.need is not None
    assert newest.need.towards == "pass"
    further = f"{newest.need.pairs:,} further calls without one would pass it"
    assert f"{further}, for it may be chance then" in newest.reason


def test_a_past_outage_holds_up_and_says_when_it_was() -> None:
    """140 bad calls of 80,140; a person has to say that they do not matter."""
    scan = _scan((20_000, False), (140, True), (60_000, False))
    gates = _gates(disagreement=Rate(140, 80_140), scans={"disagreement": scan})
    newest = gates["newest"]
    assert (newest.status, newest.n, newest.has_figures) == ("pass", 80_140, False)
    worst = gates["worst"]
    assert worst.status == "wait"
    assert "2000-01-01 05:3" in worst.reason
    assert "--since" in worst.reason
    allowed = _gates(scans={"disagreement": scan}, margins=Margins(worst_factor=0))
    assert "worst" not in allowed


def test_runs_are_allowed_their_multiple_of_the_margin() -> None:
    """Twice the margin for a while passes where three times is allowed, not where once is."""
    random = np.random.default_rng(1)
    events = np.concatenate([random.random(30_000) < rate for rate in (0.005, 0.02, 0.005)])
    scan = BlockScan(0, events.size)
    scan.add(np.arange(events.size), events)
    rate = {"disagreement": Rate(int(events.sum()), events.size), "scans": {"disagreement": scan}}
    assert _gates(**rate)["worst"].status == "pass"  # type: ignore[arg-type]
    strict = Margins(worst_factor=1)
    assert _gates(**rate, margins=strict)["worst"].status == "wait"  # type: ignore[arg-type]


def test_a_gate_that_fails_needs_no_run_to_tell() -> None:
    """All answers differ: that is the average."""
    gates = _gates(disagreement=Rate(200, 200), scans={"disagreement": _scan((200, True))})
    assert gates["disagreement"].status == "fail"
    assert gates["newest"].status == gates["worst"].status == "pass"


def test_a_mirror_that_died_is_seen_in_its_newest_calls() -> None:
    """Nine of ten calls are never paired at 10 %; 260 in a row are."""
    unpaired = np.random.default_rng(3).random(50_000) >= 0.1
    for dead, status in ((0, "pass"), (260, "wait")):
        events = np.concatenate([unpaired, np.ones(dead, dtype=bool)])
        scan = BlockScan(0, events.size)
        scan.add(np.arange(events.size), events)
        pairs = int(np.count_nonzero(~events))
        gates = _gates(missing=Unmirrored(pairs, events.size, 0.1), scans={"coverage": scan})
        assert gates["newest"].status == status


SLICE = Slice("country", "it", 80, 0, 80, 1.0, 0.0001, 7e-226, True)


def test_a_discovered_slice_holds_up_unless_allowed() -> None:
    """80 calls, all wrong, in a million good ones."""
    gate = _gates(slices=(SLICE,))["slices"]
    assert gate.status == "wait"
    assert "country = it: 80 of 80 pairs have a new fault or disagree" in gate.reason
    allowed = _gates(slices=(SLICE,), margins=Margins(allow_worse_slices=True))["slices"]
    assert allowed.status == "pass"
    assert "country = it" in allowed.reason
