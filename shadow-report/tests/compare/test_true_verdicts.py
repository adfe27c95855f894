"""Data that once got an untrue verdict, each with the one that is true."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from traffic import START, Call, Command, pair, pairs

from shadow_report.wording import percent

SAME = '{"predictions": [6.6, 124.6, 648.0]}'
WRONG = {"answer": '{"predictions": [9.9, 186.9, 972.0]}'}
FAILED = {"status": 500, "answer": '{"error": "x"}'}


def gate(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in report["gates"] if each["name"] == name)
    return found


def finding(report: dict[str, Any], code: str) -> dict[str, Any]:
    findings = report["integrity"]["findings"]
    found: dict[str, Any] = next(each for each in findings if each["code"] == code)
    return found


def without_shadow(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.role == "primary"]


CHANGES = {
    "null to a number": (
        {"answer": '{"discount": null, "label": "a"}'},
        {"answer": '{"discount": 50.0, "label": "a"}'},
    ),
    "text to JSON": ({"answer": b"pong"}, {}),
    "403 to 200": ({"status": 403, "answer": '{"error": "no"}'}, {}),
    "503 to 200": ({"status": 503, "answer": '{"error": "no"}'}, {}),
    "202 to 200": ({"status": 202}, {}),
    "404 to 403": ({"status": 404}, {"status": 403}),
    "error text": (
        {"status": 400, "answer": '{"error": "values"}'},
        {"status": 400, "answer": '{"error": "secret"}'},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_the_caller_sees_is_a_disagreement(command: Command, change: str) -> None:
    """Whatever it changes from: half of the calls are rejected, and none is equal."""
    primary, shadow = CHANGES[change]
    report = command(c for i in range(400) for c in pair(i, primary, {**primary, **shadow}))
    everything = command(
        c for i in range(400, 800) for c in (pair(i, primary, shadow) if i % 2 else pair(i))
    )
    assert report["pairs"] == 400
    assert everything["verdict"] in {"REJECT", "INVALID"}
    assert gate(everything, "disagreement")["status"] == "fail"
    assert everything["outcomes"]["equal"] < 800


@pytest.mark.parametrize("status", [400, 404, 500, None])
def test_errors_alike_are_not_agreement(command: Command, status: int | None) -> None:
    """However many there are: alone they promote nothing, and they do not thin out what differs."""
    error = {"status": status, "answer": None if status is None else '{"error": "x"}'}
    errors = [call for i in range(4_000) for call in pair(i, error, error)]
    report = command(errors)
    assert report["verdict"] == "WAIT"
    assert "requests that it answers with 2xx" in gate(report, "disagreement")["reason"]
    other = {"answer": '{"predictions": [6.6, 7, 648.0]}'}
    wrong = [call for i in range(4_000, 4_040) for call in pair(i, {}, other)]
    report = command(wrong + pairs(260, first=4_040))
    assert report["verdict"] == "REJECT"
    found = gate(report, "disagreement")
    assert found["n"] == 300
    more = "4,000 more without a sound answer on either side"
    assert found["reason"].startswith(f"40 of 300 pairs disagree, {more}")
    found = gate(command([], "--noise-floor", "1%"), "disagreement")
    assert found["reason"].startswith(f"40 of 300 pairs disagree (13.3 %), {more}, the noise floor")


@pytest.mark.parametrize("status", [400, 403, 499, 302])
def test_a_server_error_instead_of_another_answer_is_a_new_fault(
    command: Command, status: int
) -> None:
    """500 where the primary said 4xx, or where nobody waited for it."""
    report = command(
        pairs(10) + [c for i in range(10, 15) for c in pair(i, {"status": status}, FAILED)]
    )
    assert report["new_faults"] == 5
    assert report["signatures"][0]["signature"] == "failed with 500"


def test_calls_that_a_crash_loses_are_faults(command: Command) -> None:
    """1 call of 250 has no shadow row: coverage passes, and the shadow does not."""
    calls = [c for i in range(12_000) for c in pair(i) if c.role == "primary" or i % 250 != 7]
    report = command(calls)
    assert gate(report, "coverage")["status"] == "pass"
    assert report["verdict"] == "REJECT"
    assert (
        "48 of 12,000 calls have a new fault, 48 of them without an answer"
        in (report["reasons"][0])
    )
    assert "48 calls without a shadow call" in finding(report, "no-shadow-answer")["what"]


def test_the_page_counts_the_faults_that_their_share_is_of(
    command: Command, tmp_path: Path
) -> None:
    """Three answers failed and two never came, of 100 calls: 5 new faults, 5 %."""
    calls = pairs(95) + [c for i in range(95, 98) for c in pair(i, None, FAILED)]
    report = command(calls + without_shadow(pairs(2, first=98)))
    assert (report["new_faults"], report["integrity"]["unanswered"]) == (3, 2)
    assert gate(report, "faults")["estimate"] == 0.05
    share = f"{percent(0.05)} of the calls; 2 without an answer"
    tile = f"<b>5</b><span>new faults</span><small>{share}</small>"
    assert tile in (tmp_path / "r.html").read_text()


def test_calls_that_the_gateway_never_mirrors_are_no_faults(command: Command) -> None:
    """Too large, chunked or past the entry: against the coverage, and not against the shadow."""
    never = [
        {"request": '"%s"' % ("9" * 1_000_000)},
        {"headers": {"transfer-encoding": "chunked"}},
        {"source": "x-request-id"},
    ]
    calls = pairs(5_000)
    for i in range(9):
        calls += without_shadow(pair(5_000 + i, **never[i % 3]))
    report = command(calls)
    assert report["verdict"] == "PROMOTE", report["reasons"]
    assert report["integrity"]["unanswered"] == 0
    assert (report["primary"]["unpaired"], report["new_faults"]) == (9, 0)
    assert "6 calls" in finding(report, "unmirrored-bodies")["what"]
    assert "3 calls" in finding(report, "past-entry")["what"]


def test_callers_that_send_chunked_bodies_are_told_why_they_are_not_mirrored(
    command: Command,
) -> None:
    """A quarter of the callers: the rows know the reason, which is not the size of their bodies."""
    chunked = {"headers": {"transfer-encoding": "chunked"}}
    calls = pairs(300)
    for i in range(300, 400):
        calls += without_shadow(pair(i, chunked))
    report = command(calls)
    assert report["verdict"] == "INVALID"
    why = finding(report, "unmirrored-bodies")
    assert "100 calls" in why["what"]
    assert "chunked" in why["what"]
    assert "content-length" in why["remedy"]


def test_an_identical_shadow_near_the_slo_is_promoted(command: Command) -> None:
    """One call in twenty is slow on either side by chance, and nearly never on both."""
    random = np.random.default_rng(1)
    slow = random.random((2, 30_000)) < 0.05
    sides = np.where(slow, 120.0, 80.0)
    calls = [
        call
        for i, (p, s) in enumerate(sides.T.tolist())
        for call in pair(i, {"duration_ms": p}, {"duration_ms": s})
    ]
    report = command(calls, "--slo-ms", "100")
    slow_gate = gate(report, "slow")
    assert slow_gate["status"] == "pass", slow_gate["reason"]
    assert report["verdict"] == "PROMOTE", report["reasons"]


def mirrored_tenth(count: int, lost: float = 0.0) -> Iterator[Call]:
    """Calls of which a coin mirrors a tenth."""
    random = np.random.default_rng(7)
    coins = random.random((2, count))
    for i in range(count):
        calls = pair(i)
        yield from calls if coins[0, i] < 0.1 and coins[1, i] >= lost else calls[:1]


def test_a_healthy_partial_mirror_is_not_invalid(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By MIRROR_PERCENTAGE; it waits for the coverage and says what would know sooner."""
    monkeypatch.setenv("MIRROR_PERCENTAGE", "10")
    calls = list(mirrored_tenth(40_000))
    for first, last in ((0, 200), (200, 3_000), (3_000, 40_000)):
        begin, end = f"pair-{first}", f"pair-{last}"
        numbers = [int(call.pair_id.removeprefix("pair-")) for call in calls]
        part = [c for c, n in zip(calls, numbers, strict=True) if first <= n < last]
        report = command(part)
        assert report["verdict"] == "WAIT", (begin, end, report["reasons"])
    coverage = gate(report, "coverage")
    # But for the calls before the first pair.
    assert re.search(r"among 39,9\d\d primary calls, of which 10 % are m", coverage["reason"])
    assert "mirror everything" in coverage["reason"]
    assert gate(report, "faults")["status"] == "pass"
    assert command([], "--min-coverage", "0.8")["verdict"] == "PROMOTE"


def test_a_partial_mirror_that_loses_calls_or_copies_more_is_invalid(command: Command) -> None:
    share = ("--mirrored-share", "10%")
    report = command(mirrored_tenth(30_000, lost=0.3), *share)
    assert report["verdict"] == "INVALID"
    assert report["reasons"][0].startswith("coverage: ")
    more = command([], "--mirrored-share", "5%")
    assert more["verdict"] == "INVALID"
    assert finding(more, "share-exceeded")["unsound"]


ENDINGS = {
    "dead": (20_000, 120, None),
    "failing": (30_000, 25, FAILED),
    "dead for the last 30": (30_000, 30, None),
    "wrong": (20_000, 140, WRONG),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_shadow_that_is_down_or_wrong_now_is_not_promoted(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path, ending: str
) -> None:
    """However good it was before; the first screen and the page say since when."""
    good, bad, shadow = ENDINGS[ending]
    calls = pairs(good)
    for i in range(good, good + bad):
        calls += pair(i, None, shadow) if shadow else without_shadow(pair(i))
    report = command(calls)
    assert report["verdict"] in {"WAIT", "REJECT"}
    assert gate(report, "newest")["status"] == "wait"
    since = (START + timedelta(seconds=good / 10)).strftime("%Y-%m-%d %H:%M")
    shown = " ".join(capsys.readouterr().out.split()).partition("Worst pairs")[0]
    page = (tmp_path / "r.html").read_text().partition('id="gates"')[0]
    if report["verdict"] == "WAIT":
        assert "newest: " in shown
        assert since in shown
        assert since in page
    allowed = command(
        *([], "--max-newest-block", "0", "--max-worst-block", "0", "--min-coverage", "90%"),
        *("--max-new-faults", "10%", "--max-disagreement", "10%"),
    )
    assert allowed["verdict"] == "PROMOTE"


def test_a_past_outage_holds_a_promotion_up_until_it_is_out_of_the_window(
    command: Command,
) -> None:
    """An hour ago 140 answers in a row were wrong."""
    calls = [
        call for i in range(20_000) for call in pair(i, None, WRONG if 5_000 <= i < 5_140 else None)
    ]
    report = command(calls)
    worst = gate(report, "worst")
    assert (report["verdict"], worst["status"]) == ("WAIT", "wait")
    during = START + timedelta(seconds=500)
    found = re.search(r"from (\S+ \S+) UTC to ", worst["reason"])
    assert found is not None
    # A run begins at a multiple of its width, 2^24 microseconds for one of 14 s.
    assert abs(datetime.fromisoformat(f"{found[1]}Z") - during) < timedelta(seconds=17)
    after = re.search(r"judge a window after it \(--since (\S+Z)\)", report["reasons"][0])
    assert after is not None
    assert command([], "--since", after[1])["verdict"] == "PROMOTE"
    allowed = command([], "--max-worst-block", "0", "--max-disagreement", "10%")
    assert allowed["verdict"] == "PROMOTE"


def test_calls_of_an_outage_are_left_out_of_no_window(command: Command) -> None:
    """The shadow had been mirrored to before, so a window that begins in its outage counts it."""
    outage = without_shadow(pairs(1_000, first=500))
    calls = pairs(500) + outage + pairs(5_000, first=1_500)
    since = START + timedelta(seconds=60)
    report = command(calls, "--since", since.isoformat())
    assert report["primary"]["calls"] == 5_900
    assert report["primary"]["unpaired"] == 900
    assert report["verdict"] == "INVALID"


def test_a_new_version_of_the_shadow_counts_from_its_own_first_call(command: Command) -> None:
    """What ran before it came is not its evidence, whatever an older one did."""
    older = [replace(c, version="1") for c in pairs(500)]
    newer = [
        replace(c, version="2") if c.role == "shadow" else replace(c, version="1")
        for c in pairs(5_000, first=1_500)
    ]
    calls = older + without_shadow(pairs(1_000, first=500)) + newer
    since = START + timedelta(seconds=60)
    report = command(calls, "--since", since.isoformat())
    assert (report["primary"]["calls"], report["verdict"]) == (5_000, "PROMOTE")


def test_one_request_is_one_observation(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """8,200 times the same request: the report says what n is worth, and what would be worth more:
    so many different ones promote, and fewer do not.
    """
    report = command(pairs(8_200, request='{"values": ["1"]}'))
    assert report["verdict"] == "WAIT"
    faults = gate(report, "faults")
    assert (faults["n"], faults["n_eff"]) == (8_200, 1)
    assert faults["n_eff_reason"].startswith("1 distinct request")
    assert report["clusters"]["by"] == "request"
    printed = capsys.readouterr().out
    assert "8,200 (1)" in printed

    more = report["more_pairs"]
    needed = f"{more:,} more pairs with different requests would settle it as PROMOTE"
    assert report["reasons"][0].startswith(needed)
    assert f"{more:,} more calls with different requests" in faults["reason"]
    assert faults["need"]["further"] == "with different requests"
    assert "different" in printed.partition("New faults")[2].partition("n is worth")[0]
    assert "1 distinct request; more calls of the same add nothing" in " ".join(printed.split())
    assert "more pairs needed with different requests" in (tmp_path / "r.html").read_text()
    assert command(pairs(more - 10, first=8_200))["verdict"] == "WAIT"
    assert command(pairs(10, first=8_190 + more))["verdict"] == "PROMOTE"


def test_users_who_repeat_their_request_are_as_many_observations(command: Command) -> None:
    calls = [c for i in range(9_000) for c in pair(i, request=f'{{"values": ["{i // 50}"]}}')]
    report = command(calls)
    assert report["verdict"] == "WAIT"
    assert gate(report, "faults")["n_eff"] == pytest.approx(180)


def test_the_cluster_may_be_a_field_or_a_unit_of_time(command: Command) -> None:
    """Bursts of different requests; a field that no request has changes nothing, and is said."""
    calls = [c for i in range(6_000) for c in pair(i, headers={"x-session": f"{i // 60}"})]
    assert command(calls)["verdict"] == "PROMOTE"
    by_session = command([], "--cluster", "header:x-session")
    by_minute = command([], "--cluster", "minute")
    assert gate(by_session, "faults")["n_eff"] == pytest.approx(100)
    assert gate(by_minute, "faults")["n_eff"] == pytest.approx(10, abs=1)
    assert gate(by_session, "faults")["need"]["further"] == "of another header:x-session"
    assert "pairs in other minutes would settle it" in by_minute["reasons"][0]
    assert by_minute["clusters"]["by"] == "minute"
    assert {by_session["verdict"], by_minute["verdict"]} == {"WAIT"}
    typo = command([], "--cluster", "header:x-sesion")
    assert typo["verdict"] == "PROMOTE"
    assert typo["unmatched_rules"] == ["--cluster header:x-sesion"]


def test_allowances_do_not_add_up(command: Command) -> None:
    """0.7 % missing, 0.7 % cut and 0.7 % wrong are 2.1 % bad; each alone would be allowed."""
    calls: list[Call] = []
    for i in range(6_000):
        kind = {3: "missing", 53: "cut", 103: "wrong"}.get(i % 143)
        if kind == "missing":
            calls += without_shadow(pair(i))
        elif kind == "cut":
            calls += pair(i, None, {"cut": True, "answer": b'{"predictions": [1'})
        else:
            calls += pair(i, None, WRONG if kind else None)
    report = command(calls, "--max-new-faults", "1%")
    assert report["verdict"] == "REJECT"
    assert gate(report, "bad")["status"] == "fail"
    assert report["reasons"][0].startswith("bad: 126 of 6,000 calls are bad in some way, 42 of")
    statuses = {g["name"]: g["status"] for g in report["gates"]}
    assert "fail" not in {statuses[name] for name in ("coverage", "faults", "disagreement")}
    assert report["outcomes"]["not compared"] == 42
    allowed = command([], "--max-new-faults", "2%", "--max-bad", "5%", "--max-disagreement", "2%")
    assert allowed["gates"][3]["status"] == "pass"


def test_a_retry_that_fails_is_the_pair_that_counts(command: Command) -> None:
    """75 of 8,200 pairs have a second shadow call that failed, or was wrong."""
    again = [
        replace(call, time=call.time + timedelta(seconds=1), **(FAILED if i % 2 else WRONG))
        for i in range(75)
        for call in pair(i * 100)
        if call.role == "shadow"
    ]
    report = command([*pairs(8_200), *again])
    assert report["verdict"] == "REJECT"
    assert (report["new_faults"], report["disagreements"]) == (37, 38)
    assert report["integrity"]["retried"] == 75
    assert "made 75 pairs worse" in finding(report, "duplicates")["what"]


def test_a_retry_that_answers_alike_changes_nothing(command: Command) -> None:
    again = [
        replace(call, time=call.time + timedelta(seconds=1))
        for i in range(20)
        for call in pair(i * 100)
        if call.role == "shadow"
    ]
    report = command([*pairs(5_000), *again])
    assert (report["verdict"], report["integrity"]["retried"]) == ("PROMOTE", 0)


def test_a_retry_beyond_the_windows_end_makes_no_second_pair(command: Command) -> None:
    """The window ends between a shadow's call and what it was sent once more."""
    (_, shadow), calls = pair(99), pairs(100)
    report = command(
        [*calls, replace(shadow, time=shadow.time + timedelta(seconds=1), **FAILED)],
        "--until",
        (shadow.time + timedelta(milliseconds=500)).isoformat(),
    )
    assert (report["pairs"], report["shadow"]["calls"], report["new_faults"]) == (100, 100, 1)
    assert report["shadow"]["duplicates"] == 0


def test_no_number_is_no_number(command: Command) -> None:
    """NaN on one side and null on the other are equal, both ways, alone and in lists."""
    report = command(
        pair(0, {"answer": b'{"p": [NaN, 1.0]}'}, {"answer": '{"p": [null, 1.0]}'})
        + pair(1, {"answer": '{"p": null}'}, {"answer": b'{"p": NaN}'})
        + pair(2, {"answer": b'{"p": Infinity}'}, {"answer": '{"p": null}'})
        + pair(3, {"answer": '{"p": 1.0}'}, {"answer": '{"p": null}'})
        + pair(4, {"answer": b'{"p": NaN}'}, {"answer": '{"p": 1.0}'})
    )
    assert report["outcomes"] == {"equal": 3, "non-finite": 1, "appeared": 1}


def test_a_bad_slice_holds_a_promotion_up(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """80 wrong calls of one country in 12,000; allowed on demand."""
    calls = [
        call
        for i in range(12_000)
        for call in pair(
            i,
            None,
            WRONG if i % 150 == 7 else None,
            request=f'{{"values": ["{i}"], "country": "{"it" if i % 150 == 7 else "de"}"}}',
        )
    ]
    assert command(calls)["verdict"] == "PROMOTE"
    capsys.readouterr()
    report = command([], "--slice", "country")
    assert report["verdict"] == "WAIT"
    said = "country = it: 80 of 80 pairs have a new fault or disagree"
    assert said in gate(report, "slices")["reason"]
    assert said in " ".join(capsys.readouterr().out.split()).partition("Worst pairs")[0]
    assert said in (tmp_path / "r.html").read_text().partition('id="gates"')[0]
    allowed = command([], "--slice", "country", "--allow-worse-slices")
    assert allowed["verdict"] == "PROMOTE"


def test_the_noise_floor_is_in_the_words_and_may_be_judged_above(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both models answer one call in twenty anew: rejected, with the reason why it may be noise."""
    random = np.random.default_rng(3)
    calls = []
    for i in range(8_000):
        primary, shadow = (
            {"answer": f'{{"p": [{i % 4_000}{".5" if random.random() < 0.03 else ".0"}]}}'}
            for _ in range(2)
        )
        calls += pair(i, primary, shadow, request=f'{{"values": ["{i % 4_000}"]}}')
    report = command(calls)
    assert report["verdict"] == "REJECT"
    said = "The primary disagrees with itself in"
    assert said in report["remarks"][0]
    assert said in " ".join(capsys.readouterr().out.split()).partition("Worst pairs")[0]
    assert said in (tmp_path / "r.html").read_text().partition('id="gates"')[0]
    judged_above = ("--noise-floor", "auto", "--max-disagreement", "4%")
    above = command([], *judged_above)
    assert gate(above, "disagreement")["status"] == "pass"
    assert "the primary differs from itself in" in gate(above, "disagreement")["reason"]
    wrong = [c for i in range(8_000, 10_000) for c in pair(i, {"answer": SAME}, WRONG)]
    assert (
        command(wrong, "--noise-floor", "auto", "--max-disagreement", "4%")["verdict"] == "REJECT"
    )


def test_pairs_that_fail_on_both_sides_say_what_to_change(command: Command) -> None:
    """More of them would settle nothing."""
    report = command(pairs(5_000, status=503, answer='{"error": "down"}'))
    assert report["verdict"] == "WAIT"
    assert report["more_pairs"] is None
    assert report["reasons"][0].startswith("More pairs like these settle nothing.")
    assert "send requests that it answers" in report["reasons"][0]
    assert report["outcomes"] == {"equal": 5_000}


def test_an_outage_does_not_ask_for_more_of_it(command: Command) -> None:
    """What would have to change is that the shadow answers."""
    calls = pairs(20_000) + [c for i in range(20_000, 20_010) for c in pair(i, None, FAILED)]
    report = command(calls)
    assert report["verdict"] == "WAIT"
    assert "What would: a shadow that is well again; then find out" in report["reasons"][0]


def test_a_primary_whose_rows_are_not_delivered_is_invalid(command: Command) -> None:
    """The shadow's calls show that there were more; how they went, nobody knows yet."""
    calls = pairs(5_000)
    later = [c for c in pairs(5_000, first=5_000) if c.role == "shadow"]
    report = command(calls + later)
    assert report["verdict"] == "INVALID"
    behind = finding(report, "primary-behind")
    assert behind["unsound"]
    assert "5,000 mirrored shadow calls" in behind["what"]
    for cause in ("prediction_db_oldest_unwritten_seconds", "inference_gaps", "RECORD_SAMPLE"):
        assert cause in behind["remedy"]
    assert report["integrity"]["primary_watermark"] < report["integrity"]["shadow_watermark"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_primary_that_recorded_a_share_for_a_while_is_told_from_one_that_still_does(
    command: Command, ended: bool
) -> None:
    """Later calls alone are judged from the end of that while, which the reason gives."""
    sampled = [c for i in range(3_000) for c in pair(i) if c.role == "shadow" or i % 10 < 3]
    later = pairs(3_000, first=3_000) if ended else []
    report = command(sampled + later)
    assert report["verdict"] == "INVALID"
    remedy = finding(report, "primary-behind")["remedy"]
    assert "RECORD_SAMPLE that the shadow has not" in remedy
    assert ("delivery" not in remedy) == ended
    since = re.search(r"UTC alone: .* judge later calls alone: --since (\S+Z)\.$", remedy)
    assert (since is not None) == ended
    if since is not None:
        report = command([], "--since", since[1])
        assert report["verdict"] == "WAIT"
        # From the second after the last of them, in which ten calls came.
        assert 2_980 <= report["pairs"] <= 3_000
        assert not report["integrity"]["findings"]


def test_a_few_calls_that_only_the_shadow_has_are_said(command: Command) -> None:
    """Within what coverage allows, and direct calls of the shadow are none of the mirror's."""
    direct = [
        replace(c, source="generated", pair_id=f"own-{i}")
        for i in range(300)
        for c in pair(i)
        if c.role == "shadow"
    ]
    alone = [c for c in pairs(20, first=5_000) if c.role == "shadow"]
    report = command(pairs(5_000) + alone + direct)
    assert report["verdict"] == "PROMOTE"
    assert not finding(report, "primary-behind")["unsound"]
    assert "20 mirrored shadow calls" in finding(report, "primary-behind")["what"]


def test_a_shadow_that_is_behind_is_said(command: Command) -> None:
    """And when it stopped stands in the reason, next to what may mend that."""
    report = command(pairs(3_000) + without_shadow(pairs(1_000, first=3_000)))
    assert report["verdict"] == "INVALID"
    stopped = datetime.fromisoformat(report["integrity"]["shadow_watermark"])
    what = finding(report, "shadow-behind")["what"]
    assert f"came at {stopped:%Y-%m-%d %H:%M:%S} UTC, 100 s before the primary's." in what
    (reason,) = (said for said in report["reasons"] if said.startswith("coverage: "))
    assert f". {what} Look for a stopped shadow" in reason


def test_a_shadow_that_is_not_behind_is_not_said_to_be(command: Command) -> None:
    """Where calls are missing all along."""
    lost = without_shadow(pairs(1_000, first=1_000))
    report = command(pairs(1_000) + lost + pairs(2_000, first=2_000))
    assert report["verdict"] == "INVALID"
    (reason,) = (said for said in report["reasons"] if said.startswith("coverage: "))
    assert "newest call" not in reason


RARE = {
    "500": FAILED,
    "timeout": {"status": 504, "answer": '{"error": "timeout"}'},
    "no row": None,
    "NaN": {"answer": b'{"shape": [3], "predictions": [NaN, 124.6, 648.0]}'},
    "missing field": {"answer": '{"shape": [3]}'},
    "other type": {"answer": '{"shape": [3], "predictions": ["6.6", 124.6, 648.0]}'},
    "wrong shape": {"answer": '{"shape": [3], "predictions": [6.6, 124.6]}'},
    "empty answer": {"answer": None},
}


@pytest.mark.parametrize("fault", RARE)
def test_one_fault_in_500_is_never_promoted(command: Command, fault: str) -> None:
    """Eight kinds of it, looked at again and again."""
    answer = '{"shape": [3], "predictions": [6.6, 124.6, 648.0]}'
    verdicts = set()
    for first in range(0, 12_000, 3_000):
        calls: list[Call] = []
        for i in range(first, first + 3_000):
            if i % 500 == 250:
                both = pair(i, None, RARE[fault], answer=answer)
                calls += both if RARE[fault] else without_shadow(both)
            else:
                calls += pair(i, answer=answer)
        report = command(calls)
        verdicts.add(report["verdict"])
        assert gate(report, "faults")["estimate"] == pytest.approx(1 / 500)
    assert verdicts <= {"WAIT", "REJECT"}


def test_a_replay_counts_what_it_sent_whatever_the_candidates_clock(
    compared: Any,
) -> None:
    """Three seconds behind: its first calls bear times from before the replay began."""
    began = datetime.now(UTC) - timedelta(minutes=10)
    stored = [replace(c, recorded=c.time) for c in without_shadow(pairs(5_000))]
    answers = [
        replace(
            c,
            time=began - timedelta(seconds=3) + timedelta(milliseconds=i),
            recorded=began + timedelta(milliseconds=i + 500),
            recorder=uuid.UUID(int=9),
        )
        for i, c in enumerate(c for c in pairs(5_000) if c.role == "shadow")
    ]
    window = {"until": START + timedelta(hours=1), "shadow_since": began}
    report = compared(stored + answers, **window)
    assert (report.pairs, report.integrity.coverage) == (5_000, 1.0)
    assert report.shadow.calls == 5_000
    assert report.verdict == "PROMOTE"


def test_a_replay_counts_the_calls_that_were_not_answered(compared: Any) -> None:
    """8,970 answered and 30 without an answer, the first among them, do not make a promotion."""
    began = datetime.now(UTC) - timedelta(minutes=10)
    stored = [replace(c, recorded=c.time) for c in without_shadow(pairs(3_000))]
    answers = [
        replace(c, time=began, recorded=began, recorder=uuid.UUID(int=9))
        for i, c in enumerate(c for c in pairs(3_000) if c.role == "shadow")
        if i >= 10
    ]
    window = {"until": START + timedelta(hours=1), "shadow_since": began}
    report = compared(stored + answers, **window)
    assert report.primary.calls == 3_000
    assert report.verdict != "PROMOTE"
    assert "10 of 3,000 calls have a new fault, 10 of them without an answer" in " ".join(
        report.reasons
    )


def followed(count: int, until: int, lost: tuple[int, ...] = ()) -> list[Call]:
    """Calls that a follower reads from the tables and sends a minute later, up to one of them."""
    calls: list[Call] = []
    for i in range(count):
        primary, shadow = pair(i)
        calls.append(replace(primary, source="generated"))
        if i < until and i not in lost:
            sent = {"x-shadow-source": "follow"}
            calls.append(replace(shadow, time=shadow.time + timedelta(minutes=1), headers=sent))
    return calls


def died(call: Call) -> Call:
    """An attempt before this one, of which the shadow's process left no answer."""
    return replace(call, time=call.time - timedelta(seconds=20), status=None)


def test_calls_that_a_follower_has_not_sent_yet_wait(command: Command) -> None:
    """They are in flight, however long they wait; no fault, and no part of the coverage."""
    report = command(followed(6_000, until=5_000))
    assert report["verdict"] == "PROMOTE", report["reasons"]
    assert report["window"]["in_flight"] == 1_000
    waiting = "1,000 calls that no entry mirrored, and to which no follower has come yet, left out"
    assert waiting in finding(report, "in-flight")["what"]
    assert "Is the follower up" in finding(report, "in-flight")["remedy"]
    waits = command([], "--since", (START + timedelta(seconds=550)).isoformat())
    remedy = finding(waits, "no-calls")["remedy"]
    assert remedy.index("send callers to the entry's path") < remedy.index("Is the follower up")
    late = START + timedelta(seconds=300)
    assert command([], "--since", late.isoformat())["integrity"]["mirrored_only"] == 0
    # Of a window that ends, the shadow's calls come after its end.
    early = START + timedelta(seconds=30)
    report = command([], "--until", early.isoformat())
    assert (report["pairs"], report["shadow"]["recorders"]) == (300, 1)


def test_calls_that_a_followed_shadow_did_not_answer_are_faults(command: Command) -> None:
    """The follower has passed them, and no entry that mirrors could have left them out."""
    lost = tuple(range(100, 5_000, 250))
    report = command(followed(6_000, until=5_500, lost=lost))
    assert report["integrity"]["unanswered"] == len(lost)
    assert report["verdict"] == "REJECT"


def test_what_a_follower_sent_again_counts_by_its_answer(command: Command, tables: str) -> None:
    """An attempt that died with the shadow's process does not count once another is answered."""
    calls = followed(6_000, until=6_000)
    again = [died(call) for call in calls if call.role == "shadow"][::60]
    report = command(calls + again)
    assert report["verdict"] == "PROMOTE", report["reasons"]
    assert (report["new_faults"], report["integrity"]["resent"]) == (0, 100)
    assert (report["shadow"]["duplicates"], report["shadow"]["unanswered"]) == (0, 0)
    assert "100 attempts ended without an answer" in finding(report, "resent")["what"]
    with psycopg.connect(tables) as connection:
        unanswered = "SELECT count(*) FROM inference_pairs WHERE shadow_status IS NULL"
        assert connection.execute(unanswered).fetchone() == (0,)


def test_what_was_answered_twice_or_never_is_as_bad_as_ever(command: Command) -> None:
    """Of a call sent again the worst answer counts; one that always kills the shadow is a fault."""
    calls = followed(3_000, until=3_000)
    shadow = [call for call in calls if call.role == "shadow"]
    deadly = [replace(call, status=None) for call in shadow[:5]]
    wrong = [replace(call, time=call.time + timedelta(seconds=9), **FAILED) for call in shadow[5:9]]
    rest = [call for call in calls if call not in shadow[:5]]
    again = [died(call) for call in [*deadly, *shadow[5:20]]]
    report = command([*rest, *deadly, *wrong, *again])
    assert report["new_faults"] == 9
    assert (report["integrity"]["resent"], report["integrity"]["retried"]) == (15, 4)


def test_a_mirrored_call_that_died_is_not_excused(command: Command) -> None:
    """Nobody sends a mirrored call again; a second one is a retry, and the worst of it counts."""
    calls = pairs(3_000)
    report = command(calls + [died(call) for call in calls if call.role == "shadow"][:9])
    assert (report["new_faults"], report["integrity"]["resent"]) == (9, 0)


def test_calls_that_cannot_be_sent_again_are_named(command: Command) -> None:
    """By reason, as missing; what the shadow may have failed is told apart, and a fault."""
    calls = followed(6_000, until=6_000, lost=tuple(range(100, 1_000, 100)))
    stored: dict[int, dict[str, object]] = {
        100: {"request": b'{"values": ["1', "request_cut": True},
        200: {"request": '{"values": "[redacted]"}'},
        300: {"request": b'\x00"[redacted]"'},
    }
    calls = [
        replace(call, **stored.get(int(call.pair_id[5:]), {})) if call.role == "primary" else call
        for call in calls
    ]
    report = command(calls)
    integrity = report["integrity"]
    assert (integrity["withheld_cut"], integrity["withheld_redacted"]) == (1, 2)
    assert integrity["unanswered"] == 6
    assert (
        "3 calls could not be sent again: 1 with a body stored cut, 2"
        in (finding(report, "withheld")["what"])
    )
    assert "follower" in finding(report, "no-shadow-answer")["remedy"]


def test_calls_that_no_follower_sends_lead_where_they_are_all_that_is_missing(
    command: Command,
) -> None:
    """The first reason is the setting that cuts them, and not whether the follower is up."""
    lost = tuple(range(100, 2_000, 20))
    cut = {f"pair-{i}" for i in lost}
    calls = [
        replace(call, request=b'{"values": ["1', request_cut=True) if call.pair_id in cut else call
        for call in followed(2_000, until=2_000, lost=lost)
    ]
    report = command(calls)
    assert report["verdict"] == "INVALID"
    assert finding(report, "withheld")["unsound"]
    assert "RECORD_MAX_BODY_BYTES" in report["reasons"][0]
    assert "redact the answers" not in report["reasons"][0]
    assert "follower up" not in " ".join(report["reasons"])
    # Why they have no pair is known: in what they are unlike the others says nothing.
    assert not any(found["unlike"] for found in report["integrity"]["missing"])


def test_what_a_follower_does_not_bring_is_no_matter_of_a_mirrors_limits(command: Command) -> None:
    """However long the bodies of the calls that are missing."""
    lost = tuple(range(100, 2_000, 20))
    long = {f"pair-{i}" for i in lost}
    body = b'{"values": ["%s"]}' % (b"9" * 4_000)
    calls = [
        replace(call, request=body) if call.pair_id in long else call
        for call in followed(2_000, until=2_000, lost=lost)
    ]
    report = command(calls)
    unlike = [each for each in report["integrity"]["missing"] if each["unlike"]]
    assert "request size" in {each["respect"] for each in unlike}
    assert finding(report, "missing-unlike")["remedy"].startswith("Is the follower up")
    assert "mirror-content-length" not in " ".join(report["reasons"])
