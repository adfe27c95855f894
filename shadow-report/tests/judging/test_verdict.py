"""The verdict: which of the four, why, and when it may change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from shadow_report.judging.gates import judge
from shadow_report.judging.questions import Evidence, Margins
from shadow_report.judging.rates import Rate
from shadow_report.judging.verdict import Decision, Verdict, decide
from shadow_report.statistics.block_scan import BlockScan

HOUR = timedelta(hours=1)
CONTRACT = Margins()
NO_TIME = timedelta(0)


def _decide(
    pairs: int = 20_000,
    *,
    missing: int = 0,
    faulty: int = 0,
    differing: int = 0,
    margins: Margins = CONTRACT,
    problems: tuple[str, ...] = (),
    duration: timedelta = NO_TIME,
    pairs_per_second: float | None = None,
    details: dict[str, str] | None = None,
) -> Decision:
    evidence = Evidence(
        missing=Rate(missing, pairs + missing),
        faults=Rate(faulty, pairs),
        disagreement=Rate(differing, pairs - faulty),
        bad=Rate(faulty + differing, pairs),
    )
    return decide(
        judge(evidence, margins),
        margins,
        problems=problems,
        duration=duration,
        pairs_per_second=pairs_per_second,
        details=details,
    )


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(Verdict.PROMOTE, 0), (Verdict.REJECT, 10), (Verdict.WAIT, 11), (Verdict.INVALID, 12)],
)
def test_exit_codes_are_those_of_the_contract(outcome: Verdict, code: int) -> None:
    """Scripts gate on them."""
    assert outcome.exit_code == code


def test_promotes_when_every_gate_passes() -> None:
    """With the gates and one reason."""
    verdict = _decide()
    assert verdict.verdict is Verdict.PROMOTE
    assert verdict.reasons == ("All 4 gates pass at alpha 0.05, however often one looks.",)
    assert len(verdict.gates) == 4
    assert verdict.more_pairs is None


def test_a_promotion_counts_the_gates_with_figures_and_names_the_others() -> None:
    """Runs of calls and slices in which nothing was found are in no row of the table."""
    clean, scan = Rate(0, 20_000), BlockScan(0, 20_000)
    scan.add(np.arange(20_000), np.zeros(20_000, dtype=bool))
    evidence = Evidence(
        missing=clean, faults=clean, disagreement=clean, bad=clean, scans={"faults": scan}
    )
    found = decide(judge(evidence, CONTRACT), CONTRACT)
    assert len(found.gates) == 6
    assert found.reasons == (
        (
            "All 4 gates pass at alpha 0.05, however often one looks; "
            "no run of calls is worse than allowed."
        ),
    )
    with_slices = decide(judge(replace(evidence, slices=()), CONTRACT), CONTRACT)
    assert "; no run of calls and no slice is worse than allowed." in with_slices.reasons[0]


def test_what_repeats_itself_waits_for_other_calls() -> None:
    """200 calls of one request, where each further one of another is worth one."""
    repeated = Rate(0, 200, 1.0, lambda trials: trials - 199)
    evidence = Evidence(
        missing=Rate(0, 200),
        faults=repeated,
        disagreement=repeated,
        bad=repeated,
        further=dict.fromkeys(("faults", "disagreement", "bad"), "with different requests"),
    )
    gates = judge(evidence, CONTRACT)
    found = decide(gates, CONTRACT)
    assert found.more_pairs == 3_786
    assert found.reasons[0] == (
        "3,786 more pairs with different requests would settle it as PROMOTE."
    )
    # A hundred pairs a second take no time off it where none of them has another request.
    for rate, when, seconds in ((0.0, "", None), (2.0, ", 32 min at the present rate", 1_893.0)):
        rates = dict.fromkeys(("faults", "disagreement", "bad"), rate)
        found = decide(gates, CONTRACT, pairs_per_second=100, further_per_second=rates)
        assert found.reasons[0].endswith(f"would settle it as PROMOTE{when}.")
        assert (found.eta and found.eta.total_seconds()) == seconds


def test_rejects_when_one_gate_fails_and_names_it() -> None:
    """The demo: 200 pairs, all different, while other gates still wait."""
    verdict = _decide(200, differing=200, details={"disagreement": "All at scores[*]."})
    assert verdict.verdict is Verdict.REJECT
    assert verdict.reasons == (
        "disagreement: 200 of 200 pairs disagree: at least 96.27 %, allowed 1 %. All at scores[*].",
    )
    assert verdict.more_pairs is None


def test_waits_with_the_count_and_the_time() -> None:
    """200 clean pairs at two a second: 3,587 more, half an hour."""
    verdict = _decide(200, pairs_per_second=2)
    assert verdict.verdict is Verdict.WAIT
    assert verdict.more_pairs == 3_587
    assert verdict.eta == timedelta(seconds=1_793.5)
    assert verdict.reasons[0] == (
        "3,587 more pairs like these would settle it as PROMOTE, 30 min at the present rate."
    )
    assert [reason.split(":")[0] for reason in verdict.reasons[1:]] == [
        "coverage",
        "faults",
        "disagreement",
        "bad",
    ]


def test_waits_without_a_time_when_no_pairs_arrive() -> None:
    """An unknown or a zero rate gives the count alone."""
    for rate in (None, 0.0, 1e-12):
        verdict = _decide(200, pairs_per_second=rate)
        assert verdict.more_pairs == 3_587
        assert verdict.eta is None


def test_wait_that_heads_for_a_reject_says_so() -> None:
    """More pairs like these would not help the shadow."""
    verdict = _decide(3_000, faulty=6)
    assert verdict.verdict is Verdict.WAIT
    assert "would settle it as REJECT" in verdict.reasons[0]
    newest = replace(verdict.gates[0], name="newest", status="wait", need=None)
    bad_now = decide((*verdict.gates, newest), Margins())
    assert "pairs like these would settle it as REJECT" in bad_now.reasons[0]
    heading_for_invalid = _decide(400, missing=7)
    assert "would settle it as INVALID" in heading_for_invalid.reasons[0]


def test_wait_that_never_ends_gives_no_count() -> None:
    """A rate at the margin, or a margin of zero: the gate's reason tells why."""
    verdict = _decide(margins=Margins(max_disagreement=0), pairs_per_second=5)
    assert verdict.verdict is Verdict.WAIT
    assert (verdict.more_pairs, verdict.eta) == (None, None)
    would = "What would: allow more than 0 %: no number of samples proves a share of zero."
    assert would in verdict.reasons[0]


def test_unsound_evidence_is_invalid_whatever_the_gates_say() -> None:
    """A problem comes first, the failing gates after it."""
    verdict = _decide(200, differing=200, problems=("3 ids are generated; use the header.",))
    assert verdict.verdict is Verdict.INVALID
    assert verdict.reasons[0] == "3 ids are generated; use the header."
    assert verdict.reasons[1].startswith("disagreement: ")
    assert _decide(problems=("x",)).verdict is Verdict.INVALID


def test_missing_coverage_is_invalid_and_not_a_reject() -> None:
    """Without the missing answers nobody can say what the shadow does."""
    verdict = _decide(200, missing=100, differing=200)
    assert verdict.verdict is Verdict.INVALID
    assert verdict.reasons[0].startswith("coverage: 200 of 300 primary calls are paired")


def test_nothing_to_judge_is_invalid() -> None:
    """No gates, no promotion."""
    assert decide((), Margins()).verdict is Verdict.INVALID
    assert decide((), Margins()).reasons == ("There is nothing to judge.",)


def test_without_pairs_the_least_that_promote_are_said() -> None:
    """Whether no pairs is a problem, the caller knows."""
    verdict = _decide(0)
    assert verdict.verdict is Verdict.WAIT
    assert verdict.more_pairs == 3_787
    assert verdict.reasons[0] == "There are no pairs yet; PROMOTE takes 3,787 at the least."


def test_least_duration_holds_a_promotion_back() -> None:
    """All gates pass, the window is an hour short: WAIT, no more pairs, one hour."""
    margins = Margins(min_duration=24 * HOUR)
    verdict = _decide(margins=margins, duration=23 * HOUR)
    assert verdict.verdict is Verdict.WAIT
    assert (verdict.more_pairs, verdict.eta) == (0, HOUR)
    assert verdict.reasons == ("The window is 23 h long; the least duration asked for is 24 h.",)
    assert _decide(margins=margins, duration=24 * HOUR).verdict is Verdict.PROMOTE


def test_least_duration_does_not_hold_a_reject_back() -> None:
    """A shadow that is clearly wrong needs no day to be so."""
    assert _decide(200, differing=200, margins=Margins(min_duration=24 * HOUR)).verdict is (
        Verdict.REJECT
    )


def test_time_to_wait_is_the_longer_of_pairs_and_duration() -> None:
    """3,587 pairs in an hour do not shorten a day."""
    margins = Margins(min_duration=24 * HOUR)
    verdict = _decide(200, margins=margins, duration=HOUR, pairs_per_second=100)
    assert verdict.eta == 23 * HOUR
