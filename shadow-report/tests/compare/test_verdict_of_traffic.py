"""From rows to verdict: who is promoted, who never is, and what the report says about it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from traffic import START, Compare, pair, pairs

from shadow_report.answers.paths import RequestField
from shadow_report.judging.questions import Margins


def test_an_identical_shadow_waits_with_the_count_and_is_then_promoted(compared: Compare) -> None:
    """At the default margins it takes 3,787 pairs; before, WAIT says how many are missing."""
    early = compared(pairs(2000))
    assert early.verdict == "WAIT"
    assert early.more_pairs is not None
    assert 2_000 + early.more_pairs == 3_787
    assert f"{early.more_pairs:,} more pairs" in early.reasons[0]
    enough = compared(pairs(early.more_pairs, first=2000))
    assert enough.verdict == "PROMOTE", enough.reasons
    assert enough.pairs == 2_000 + early.more_pairs


@pytest.mark.parametrize(("every", "per_second"), [(None, None), (2, 5)])
def test_the_time_is_that_of_different_requests(
    compared: Compare, every: int | None, per_second: float | None
) -> None:
    """Ten pairs a second, all of one request, or every other one of a new one."""
    report = compared(
        call
        for i in range(400)
        for call in pair(i, **({} if every and i % every else {"request": "[1]"}))
    )
    assert (report.verdict, report.compared) == ("WAIT", 400)
    assert report.more_pairs is not None
    assert "more pairs with different requests would settle it" in report.reasons[0]
    assert report.window.pairs_per_hour == pytest.approx(36_000, rel=0.01)
    if per_second is None:
        assert report.eta_seconds is None
    else:
        assert report.eta_seconds == pytest.approx(report.more_pairs / per_second, rel=0.05)


def test_factor_three_is_rejected_after_two_hundred_pairs(compared: Compare) -> None:
    """The demo: every answer differs, which two hundred pairs prove."""
    shadow = {"answer": '{"predictions": [9.9, 186.9, 972.0]}'}
    report = compared(call for i in range(200) for call in pair(i, None, shadow))
    assert report.verdict == "REJECT"
    assert "Most often predictions[*] is another number: 200 of 200" in report.reasons[0]
    assert report.disagreements == 200


RARE = {
    "NaN": ({"answer": b'{"predictions": [NaN, 124.6, 648.0]}'}, "predictions[*]: non-finite"),
    "null": ({"answer": '{"predictions": [null, 124.6, 648.0]}'}, "predictions[*]: non-finite"),
    "500": ({"answer": '{"error": "x"}', "status": 500}, "failed with 500"),
    "dropped field": ({"answer": '{"prediction": [1]}'}, "predictions: missing"),
    "changed type": ({"answer": '{"predictions": ["6.6", 124.6, 648.0]}'}, "predictions[*]: type"),
}


@pytest.mark.parametrize("fault", RARE)
def test_a_rare_fault_is_never_promoted_and_is_named(compared: Compare, fault: str) -> None:
    """One broken answer in 500 is beyond the margin of one in 1,000, however often one looks."""
    shadow, name = RARE[fault]
    looked = []
    for look in range(4):
        first = look * 5_000
        calls = [
            call
            for i in range(first, first + 5_000)
            for call in pair(i, None, shadow if i % 500 == 250 else None)
        ]
        report = compared(calls)
        looked.append(report.verdict)
        assert report.new_faults == (first + 5_000) // 500
        assert report.signatures[0].signature.startswith(name)
        gravest = report.signatures[0].in_words.partition(" and ")[0]
        assert any(f"Most often {gravest}: " in reason for reason in report.reasons)
        # A key of the shadow's own in a broken answer is not a disagreement as well.
        assert not any("the shadow's side only" in reason for reason in report.reasons)
    assert "PROMOTE" not in looked
    assert set(looked) <= {"WAIT", "REJECT"}


def test_a_rarely_flipped_label_is_not_promoted_at_its_margin(compared: Compare) -> None:
    """One label in 500 is beyond --max-disagreement 0.001."""
    calls = [
        call
        for i in range(12_000)
        for call in pair(
            i,
            {"answer": '{"predictions": ["cat"]}'},
            {"answer": '{"predictions": ["dog"]}' if i % 500 == 0 else '{"predictions": ["cat"]}'},
        )
    ]
    report = compared(calls, margins=Margins(max_disagreement=0.001))
    assert report.verdict in {"WAIT", "REJECT"}
    assert report.disagreements == 24
    assert "predictions[*] is another label" in " ".join(report.reasons)


def test_slow_answers_are_judged_only_with_an_slo(compared: Compare) -> None:
    """A slower shadow passes without --slo-ms and is rejected with it."""
    calls = [
        call
        for i in range(9_000)
        for call in pair(i, {"duration_ms": 5.0}, {"duration_ms": 50.0 if i % 10 == 0 else 5.0})
    ]
    assert compared(calls).verdict == "PROMOTE"
    report = compared(slo_ms=20.0)
    assert report.verdict == "REJECT"
    assert report.latency.slow is not None
    assert report.latency.slow.shadow_only == 900
    p99 = report.latency.shifts[-1]
    assert (p99.primary_ms, p99.shadow_ms) == (5.0, 50.0)


def test_the_least_duration_is_waited_for(compared: Compare) -> None:
    """With --min-duration even a perfect shadow waits until the window is long enough."""
    report = compared(pairs(9_000), margins=Margins(min_duration=timedelta(days=1)))
    assert report.verdict == "WAIT"
    assert report.window.hours == pytest.approx(0.25, rel=0.01)


def test_clusters_count_for_less(compared: Compare) -> None:
    """Pairs of one user that fail together have a smaller effective size."""
    calls = [
        call
        for i in range(3_000)
        for call in pair(
            i,
            None,
            {"answer": "[1]"} if i // 20 % 3 == 0 else None,
            headers={"x-user": str(i // 20)},
        )
    ]
    report = compared(calls, cluster=RequestField.of("header:X-User"))
    assert report.clusters is not None
    assert (report.clusters.by, report.clusters.clusters) == ("header:x-user", 150)
    assert report.clusters.design_effect == pytest.approx(20)
    faults = next(gate for gate in report.gates if gate.name == "faults")
    assert faults.n_eff == pytest.approx(150)
    assert faults.n_eff_reason.startswith("150 distinct header:x-users; ")


def test_a_bad_slice_is_discovered(compared: Compare) -> None:
    """Faults that gather in one value of a request field make that slice a finding, and only it."""
    calls = []
    for i in range(2_000):
        country = ("de", "fr", "it", "es")[i % 4]
        broken = country == "it" and i % 40 == 2
        calls += pair(
            i,
            None,
            {"answer": "[null]"} if broken else None,
            request=f'{{"values": ["1"], "meta": {{"country": "{country}"}}}}',
        )
    report = compared(calls, slices=(RequestField.of("meta.country"),))
    assert len(report.slices) == 4
    discovered = [found for found in report.slices if found.discovered]
    assert [(found.by, found.value) for found in discovered] == [("meta.country", "it")]
    assert (discovered[0].pairs, discovered[0].new_faults) == (500, 50)


def test_the_noise_floor_is_shown(compared: Compare) -> None:
    """A primary that answers the same request differently each time disagrees with itself."""
    calls = []
    for i in range(400):
        answer = f'{{"predictions": [{i % 8}.5]}}'
        calls += pair(i, answer=answer, request=f'{{"values": ["{i % 4}"]}}')
    report = compared(calls)
    assert report.noise.repeated_requests == 4
    assert report.noise.comparisons == 16
    assert report.disagreements == 0
    assert (report.noise.disagreements, report.noise.share) == (8, 0.5)
    assert report.noise.shadow_share == 0


def test_the_timeline_adds_up(compared: Compare) -> None:
    """Every call is in one step of the timeline."""
    report = compared(pairs(3_000) + pair(3_000, None, {"status": 500}))
    assert 30 < len(report.timeline) <= 61
    assert sum(bucket.pairs for bucket in report.timeline) == 3_001
    assert sum(bucket.new_faults for bucket in report.timeline) == 1
    assert report.timeline[0].start <= START < report.timeline[0].end
