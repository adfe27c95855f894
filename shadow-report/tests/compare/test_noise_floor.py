"""The noise floor: from the primary's own calls sent once more, whose rows are nowhere else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traffic import Call, Command, pair

YES, NO = '{"label": "yes"}', '{"label": "no"}'


def noisy(count: int, share: float, seed: int) -> list[Call]:
    """Pairs of two runs of one model that differ in about this share."""
    chance = np.random.default_rng(seed)
    answers = np.where(chance.random(count) < share, NO, YES).tolist()
    return [call for i, answer in enumerate(answers) for call in pair(i, None, {"answer": answer}, answer=YES)]  # fmt: skip # noqa: E501


def once_more(calls: list[Call], share: float, seed: int, **changes: Any) -> list[Call]:
    """The primary's answers to its own calls, sent an hour later."""
    chance = np.random.default_rng(seed)
    return [
        replace(
            call,
            pair_id=f"itself:{call.pair_id}",
            time=call.time + timedelta(hours=1),
            answer=NO if chance.random() < share else YES,
            headers={"x-shadow-source": "replay"},
            **changes,
        )
        for call in calls
        if call.role == "primary"
    ]


def gate(report: dict[str, Any], name: str = "disagreement") -> dict[str, Any]:
    return next(gate for gate in report["gates"] if gate["name"] == name)


def test_the_excess_over_the_primary_itself_is_judged(command: Command) -> None:
    """30 % of the answers differ, and so do the primary's own: no more than that is promoted."""
    calls = noisy(12_000, 0.30, 1)
    assert command([*calls, *once_more(calls, 0.30, 2)])["verdict"] == "REJECT"
    options = ("--noise-floor", "auto", "--max-disagreement", "6%")
    report = command([], *options)
    assert report["verdict"] == "PROMOTE"
    assert report["noise"]["source"] == "replay"
    assert report["noise"]["comparisons"] == 12_000
    reason = gate(report)["reason"]
    assert "the primary differs from itself in 29." in reason or "itself in 30." in reason
    assert "excess at most" in reason
    assert "allowed 6 %" in reason
    assert "judged by their excess over the noise." in report["remarks"][0]


@pytest.mark.parametrize(
    ("share", "floor", "told"),
    [(0.30, "auto", False), (0.98, "auto", True), (0.98, "97%", True), (0.98, "off", False)],
)
def test_noise_in_most_answers_is_said_to_hide_the_rest(
    command: Command, share: float, floor: str, told: bool
) -> None:
    """Beside 98 % no shadow can differ in 5 % more: whoever reads PROMOTE there has to know."""
    calls = noisy(300, share, 1)
    report = command([*calls, *once_more(calls, share, 2)], "--noise-floor", floor)
    assert any("hides what the shadow changes" in remark for remark in report["remarks"]) is told


@pytest.mark.parametrize("floor", ["auto", "off"])
@pytest.mark.parametrize("margin", ["", ",margin=40%"])
def test_where_a_margin_leaves_noise_out_that_is_said(
    command: Command, tmp_path: Path, floor: str, margin: str
) -> None:
    """0 % reads as no noise at all, and is all that is left when the place has a margin."""
    calls = noisy(300, 0.30, 1)
    options = ("--rule", f"label=label{margin}", "--noise-floor", floor)
    report = command([*calls, *once_more(calls, 0.30, 2)], *options)
    page = " ".join((tmp_path / "r.html").read_text().split())
    assert any("in 0 % of 300 answers" in remark for remark in report["remarks"]) is (
        floor == "auto" and bool(margin)
    )
    held = "a margin, which has to hold the noise too"
    assert any(held in remark for remark in report["remarks"]) is (floor == "auto" and bool(margin))
    assert (f"leave out the places whose rules have {held}." in page) is bool(margin)


@pytest.mark.parametrize(("allowed", "verdict"), [("1%", "PROMOTE"), ("5%", "WAIT")])
def test_a_gate_that_no_shadow_could_fail_passes_none(
    command: Command, allowed: str, verdict: str
) -> None:
    """Above 96 % of noise none differs in 5 % more, be it wrong in every call."""
    calls = noisy(9_000, 0.96, 1)
    floor = ("--noise-floor", "96%", "--max-disagreement", allowed, "--max-bad", allowed)
    report = command(calls, *floor)
    assert report["verdict"] == verdict
    blind = "More pairs like these settle nothing. What would: beside so much noise no shadow could"
    assert report["reasons"][0].startswith(blind) == (verdict == "WAIT")


def test_a_primary_that_always_agrees_with_itself_leaves_an_excess(command: Command) -> None:
    """Of little evidence its interval begins below zero: every reader is told what it is of."""
    calls = noisy(300, 0.03, 1)
    report = command([*calls, *once_more(calls, 0, 2)], "--noise-floor", "auto")
    assert report["verdict"] == "WAIT"
    assert gate(report)["interval"][0] < 0
    told = "itself in 0 % of 300 answers to repeated requests (noise), and the shadow with it in "
    assert told in report["remarks"][0]
    assert "are judged by their excess over the noise." in report["remarks"][0]


def test_a_shadow_that_is_noisier_is_rejected(command: Command) -> None:
    """45 % against 30 % with 5 % allowed."""
    calls = noisy(12_000, 0.45, 4)
    options = ("--noise-floor", "auto", "--max-disagreement", "5%")
    report = command([*calls, *once_more(calls, 0.30, 5)], *options)
    assert report["verdict"] == "REJECT"
    assert 0.12 < gate(report)["estimate"] < 0.18


def test_rows_of_the_primary_itself_are_nowhere_else(command: Command) -> None:
    """Neither as calls, nor as duplicates, nor against the coverage."""
    calls = noisy(300, 0, 1)
    plain = command(calls)
    report = command(once_more(calls, 1, 2))
    for part in ("outcomes", "timeline", "primary", "shadow", "statuses"):
        assert report[part] == plain[part], part
    assert report["integrity"]["coverage"] == 1
    assert report["noise"]["share"] == 1


def test_noise_of_a_few_requests_is_not_measured_yet(command: Command) -> None:
    """Neither the remark nor the gate says a share that nobody knows."""
    calls = noisy(50, 0, 1)
    report = command([*calls, *once_more(calls[:8], 0, 2)], "--noise-floor", "auto")
    few = f"{report['noise']['repeated_requests']} repeated requests"
    assert report["remarks"][0].startswith(f"The noise floor is not measured yet, by {few} so far")
    assert "more of its own calls, with other requests (" in report["remarks"][0]
    (gate,) = (gate for gate in report["gates"] if gate["name"] == "disagreement")
    assert f"the noise is not measured yet ({few}): excess at most" in gate["reason"]
    assert gate["interval"][0] is None
    assert gate["interval"][1] < 1


def test_another_version_of_the_primary_is_not_itself(command: Command) -> None:
    """What has been retrained since then does not tell how noisy it was."""
    calls = noisy(50, 0, 1)
    report = command([*calls, *once_more(calls, 1, 2, version="2")])
    assert report["noise"]["comparisons"] == 0
    said = command([], "--noise-floor", "auto")["remarks"]
    assert said[0].startswith("The noise floor is not known in this window")


@pytest.mark.parametrize(
    ("given", "passes"), [("12%", False), ("0.30", True), ("off", False), ("auto", False)]
)
def test_a_share_may_be_given(command: Command, given: str, passes: bool) -> None:
    """As it is known from elsewhere; `auto` takes nothing off where nothing is known."""
    report = command(noisy(6_000, 0.28, 7), "--noise-floor", given, "--max-disagreement", "5%")
    assert (gate(report)["status"] == "pass") is passes
    is_share = given not in {"off", "auto"}
    assert any("excess over the " in remark for remark in report["remarks"]) is is_share


@pytest.mark.parametrize(
    ("text", "setting"), [("auto", "auto"), ("off", "off"), ("0.12", 0.12), ("12%", 0.12)]
)
def test_a_file_of_rules_may_say_it(
    command: Command, tmp_path: Path, text: str, setting: object
) -> None:
    """And the option outranks it."""
    file = tmp_path / "rules.yaml"
    file.write_text(f"noise_floor: {text}\n")
    report = command(pair(0), "--rules", str(file))
    assert report["settings"]["noise_floor"] == setting
    outranked = command([], "--rules", str(file), "--noise-floor", "0.5")
    assert outranked["settings"]["noise_floor"] == 0.5


def test_what_is_no_noise_floor_is_refused(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to write instead."""
    for text in ("loud", "100%", "-1"):
        with pytest.raises(FileNotFoundError):
            command([], "--noise-floor", text)
        assert "auto" in capsys.readouterr().err


def test_a_floor_that_is_known_too_roughly_says_so(command: Command) -> None:
    """More pairs would not help; more calls to the primary itself would."""
    calls = noisy(12_000, 0.30, 1)
    report = command(
        [*calls, *once_more(calls[:400], 0.30, 2)],
        *("--noise-floor", "auto", "--max-disagreement", "6%"),
    )
    assert report["verdict"] == "WAIT"
    assert "shadow-report replay --itself" in gate(report)["reason"]
