"""Unsound evidence is INVALID, and the report says what is wrong and how to mend it."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.console import Console
from traffic import PRIMARY, SHADOW, START, Call, Command, Compare, pair, pairs

from shadow_report.judging.questions import Margins
from shadow_report.output import print_report
from shadow_report.output.page import render_page
from shadow_report.report import Finding, Report
from shadow_report.settings import parse_time

SAME = '{"predictions": [6.6, 124.6, 648.0]}'
# A call of now has not settled yet, however long it takes to store and to compare it.
LONG = timedelta(minutes=10)
IN_FLIGHT = (
    "of the last 600 s, by the later stamp of both sides, left out: the pair or an answer may "
    "still come."
)


def finding(report: Report, code: str) -> Finding:
    return next(found for found in report.integrity.findings if found.code == code)


def assert_invalid(report: Report, code: str, *words: str) -> None:
    """The verdict is INVALID, and for this reason, in these words."""
    assert report.verdict == "INVALID", report.reasons
    found = finding(report, code)
    assert found.unsound
    text = f"{found.what} {found.remedy}"
    assert text in report.reasons
    for word in words:
        assert word in text


def test_empty_tables(compared: Compare) -> None:
    assert_invalid(compared(), "no-calls", "not one call", "POSTGRES_URI")


@pytest.mark.parametrize(
    ("window", "remedy"),
    [
        ({"since": START + timedelta(hours=1)}, "widen the window to that call's day (--last 3d)"),
        ({"until": START - timedelta(days=9)}, "give a later --until"),
        ({"since": START + timedelta(days=900)}, "begins in the future: give an earlier --since"),
    ],
)
def test_a_window_without_a_call_names_the_newest_one(
    compared: Compare, window: dict[str, datetime], remedy: str
) -> None:
    """And how to have it in the window."""
    came = START - timedelta(days=2, hours=1)
    calls = [replace(call, time=came) for call in pairs(3)]
    newest = f"came at {came:%Y-%m-%d %H:%M:%S} UTC"
    report = compared(calls, **window)
    assert_invalid(report, "no-calls", "not one call", newest, remedy)
    if since := window.get("since"):
        assert f"in the window since {since:%Y-%m-%d %H:%M:%S} UTC" in report.reasons[0]


def test_no_shadow_calls(compared: Compare) -> None:
    calls = [call for call in pairs(50) if call.role == "primary"]
    assert_invalid(
        compared(calls), "no-shadow-calls", "50 calls", "Is mirroring on?", "--model_name", "log"
    )


@pytest.mark.parametrize(
    ("role", "code"), [("shadow", "no-shadow-calls"), ("primary", "no-primary-calls")]
)
def test_a_name_without_a_call_is_asked_for(compared: Compare, role: str, code: str) -> None:
    """First, and only where the calls that are there have another."""
    calls = pairs(50)
    asked = f"name, as --{role} has it?"
    report = compared(calls, **{role: "misspelt"})
    assert_invalid(report, code, f"Is misspelt the {role}'s {asked}")
    alone = [call for call in calls if call.role != role]
    report = compared(alone, **{role: PRIMARY if role == "primary" else SHADOW})
    assert asked not in " ".join(report.reasons)


UNMIRRORED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "too large": (
        {"request": '"%s"' % ("9" * 1_000_000)},
        "unmirrored-bodies",
        "1 MB",
        "topology follow): a follower sends every body that was recorded whole",
    ),
    "chunked": (
        {"headers": {"transfer-encoding": "chunked"}},
        "unmirrored-bodies",
        "chunked",
        "content-length",
    ),
    "past the entry": ({"source": "x-request-id"}, "past-entry", "past the entry", "entry's path"),
}


@pytest.mark.parametrize("unmirrored", UNMIRRORED)
@pytest.mark.parametrize("sent", [0, 30], ids=["none sent", "some sent"])
def test_calls_that_were_never_sent_lead_where_they_are_all_that_is_missing(
    compared: Compare, unmirrored: str, sent: int
) -> None:
    """The reasons name the cause and its remedy; whether the shadow is up is not asked."""
    how, code, *words = UNMIRRORED[unmirrored]
    never = [replace(call, **how) for call in pairs(20, first=sent) if call.role == "primary"]
    report = compared(pairs(sent) + never)
    if sent or code != "past-entry":
        assert_invalid(report, code, *words)
    else:  # then they may be a follower's to send
        assert_invalid(report, "no-shadow-calls", "through an entry", *words[1:], "follower up")
        reason = report.reasons[0]
        assert reason.index("send callers to the entry's path") < reason.index("follower up")
    assert "Is the shadow up" not in " ".join(report.reasons)
    assert "stopped shadow" not in " ".join(report.reasons)


def test_a_shadow_that_is_down_is_not_excused_by_some_chunked_calls(compared: Compare) -> None:
    """They explain a part of what is missing; the rest is still asked for."""
    calls = pairs(20) + pairs(20, first=20, headers={"transfer-encoding": "chunked"})
    alone = [call for call in calls if call.role == "primary"]
    for first, code, words in (
        ([], "no-shadow-calls", "Is the shadow up"),
        (pairs(50, time=START - timedelta(seconds=1)), "coverage", "stopped shadow"),
    ):
        ids = [replace(call, pair_id=f"first-{call.pair_id}") for call in first]
        report = compared(ids + alone)
        assert report.verdict == "INVALID"
        assert words in finding(report, code).remedy
        assert words in report.reasons[0]
        assert not finding(report, "unmirrored-bodies").unsound
        alone = []


def test_no_primary_calls(compared: Compare) -> None:
    calls = [call for call in pairs(50) if call.role == "shadow"]
    assert_invalid(compared(calls), "no-primary-calls", "SHADOW_ROLE=primary")


def test_calls_of_a_shadow_alone_are_not_said_to_be_under_way(compared: Compare) -> None:
    """However new they are: under another primary's name no one of them has its pair to come."""
    new = [replace(call, time=datetime.now(UTC)) for call in pairs(50, first=50)]
    report = compared([*pairs(50), *new], primary="misspelt")
    assert_invalid(report, "no-primary-calls", "Is misspelt the primary's name")
    assert report.window.in_flight == 50
    assert "in-flight" not in {finding.code for finding in report.integrity.findings}


def test_ids_that_never_match(compared: Compare) -> None:
    """Each side has calls and no pair id in common."""
    calls = [replace(call, pair_id=f"{call.pair_id}-{call.role}") for call in pairs(50)]
    assert_invalid(compared(calls), "no-pairs", "no pair among them")


@pytest.mark.parametrize("since", [None, START - timedelta(hours=1)])
def test_calls_before_the_first_pair_are_left_out_and_told(
    compared: Compare, capsys: pytest.CaptureFixture[str], since: datetime | None
) -> None:
    """They were bad to whoever looked before it came, and are in no figure from then on."""
    alone = [call for call in pairs(20) if call.role == "primary"]
    report = compared(alone, since=since)
    assert report.verdict == "INVALID"
    assert report.window.before_first_pair == 0
    report = compared(pairs(50, first=20), since=since)
    assert (report.window.before_first_pair, report.primary.calls, report.pairs) == (20, 50, 50)
    assert report.integrity.coverage == 1
    print_report(report, Console(width=200))
    assert (
        "20 calls of the primary from before this shadow's first pair, left out. A shadow may come"
    ) in capsys.readouterr().out
    page = " ".join(render_page(report).split())
    assert "<dt>left out, before the first pair</dt><dd>20</dd>" in page


@pytest.mark.parametrize("since", [None, START - timedelta(hours=1), START])
def test_versions_are_counted_of_all_calls_that_are_judged(
    compared: Compare, since: datetime | None
) -> None:
    """Callers overlap: the copy of a later call may be the earliest record of all."""
    late = {0: 5, 1: -110, 2: 3, 3: -300}  # ms after its primary's, of calls 100 ms apart
    calls = [
        replace(call, time=call.time + timedelta(milliseconds=late.get(i // 2, 0)))
        if call.role == "shadow"
        else call
        for i, call in enumerate(pairs(50))
    ]
    report = compared(calls, since=since)
    for side in (report.primary, report.shadow):
        assert side.calls == sum(side.model_versions.values()) == 50
    assert report.shadow.first_call == min(call.time for call in calls)


def test_what_is_sent_straight_to_the_shadow_is_no_copy(compared: Compare) -> None:
    """One call to see whether the shadow is up leaves the question whether mirroring is on."""
    calls = [call for call in pairs(50) if call.role == "primary"]
    tried = [
        replace(call, source="x-request-id") for call in pairs(1, first=50) if call.role == "shadow"
    ]
    words = "1 shadow call", "no shadow call carries x-shadow-pair-id", "Is mirroring on?"
    assert_invalid(compared(calls + tried), "no-pairs", *words)


TEN, THIRTEEN, TWENTY, TWENTY_FIVE = (
    START + timedelta(seconds=seconds) for seconds in (10, 13, 20, 25)
)
SHARE = "only if mirror-percentage is another, say so"
# Which of 300 calls in 30 s have no shadow call; when that was; from when on there is none.
OUTAGES: dict[str, tuple[Collection[int], str, datetime | None]] = {
    "once": (
        range(100, 200),
        f"It was missed from {TEN:%Y-%m-%d %H:%M:%S} to {TWENTY:%Y-%m-%d %H:%M:%S} UTC alone.",
        TWENTY,
    ),
    "for less than its steps": (
        {109, *range(110, 123)},
        f"It was missed from {TEN:%Y-%m-%d %H:%M:%S} to {THIRTEEN:%Y-%m-%d %H:%M:%S} UTC alone.",
        THIRTEEN,
    ),
    "going on": (range(200, 300), f"It was met until {TWENTY:%Y-%m-%d %H:%M:%S} UTC.", None),
    "twice": ({*range(50, 100), *range(150, 250)}, SHARE, TWENTY_FIVE),
    "in part": (range(100, 200, 3), SHARE, TWENTY),
    "all the time": (range(2, 300, 3), SHARE, None),
    "now and then": (range(5, 285, 12), SHARE, None),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_when_the_shadow_was_away_is_said(compared: Compare, outage: str) -> None:
    """Where that was one stretch; and the window after the last call that is missing, where so many
    after it are not by chance.
    """
    missing, when, since = OUTAGES[outage]
    report = compared(
        [call for i in range(300) for call in pair(i) if call.role == "primary" or i not in missing]
    )
    assert report.verdict == "INVALID"
    (reason,) = (said for said in report.reasons if said.startswith("coverage: "))
    assert "Look for a stopped shadow" in reason
    assert when in reason
    assert ("It was" in reason) is (when != SHARE)
    assert (SHARE in reason) is (when == SHARE)
    assert ("Or was mirror-percentage lower then, or" in reason) is (when != SHARE)
    advised = re.findall(r"judge later calls alone: --since (\S+)\.", reason)
    assert [*map(datetime.fromisoformat, advised)] == ([] if since is None else [since])


FAULTY: dict[str, tuple[Collection[int], tuple[datetime, datetime] | None]] = {
    "an outage": (range(100, 200), (TEN, TWENTY)),
    "its edges": ({109, *range(110, 123)}, (TEN, THIRTEEN)),
    "going on": (range(200, 300), None),
    "just over": (range(200, 299), None),
    "some of the calls, and then none": (range(100, 200, 3), (TEN, TWENTY)),
    "now and then": (range(5, 285, 12), None),
}


@pytest.mark.parametrize("is_answered", [True, False], ids=["500", "no answer"])
@pytest.mark.parametrize("when", FAULTY)
def test_when_the_faults_of_an_outage_were_is_said(
    compared: Compare, when: str, is_answered: bool
) -> None:
    """With the time from which on there is none; not of a model that answers some calls wrongly."""
    faulty, said = FAULTY[when]
    failed = {"status": 500, "answer": None}
    calls = [
        call
        for i in range(300)
        for call in pair(i, None, failed if i in faulty else None)
        if is_answered or call.role == "primary" or i not in faulty
    ]
    margins = Margins(min_coverage=0.5)
    report = compared(calls, margins=margins)
    assert report.verdict == "REJECT"
    (reason,) = (said for said in report.reasons if said.startswith("faults: "))
    assert ("All new faults are" in reason) is (said is not None)
    if said:
        begin, end = said
        assert f"from {begin:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC" in reason
        assert f"judge later calls alone: --since {end:%Y-%m-%dT%H:%M:%S}Z." in reason
        after = compared([], since=end)
        assert (after.new_faults, after.primary.unpaired) == (0, 0)
    share = compared([], margins=margins, mirrored_share=0.9)
    assert is_answered or not any("All new faults" in reason for reason in share.reasons)


@pytest.mark.parametrize(("first", "last"), [(1000, 1999), (999, 2000), (960, 2050), (1007, 1993)])
def test_the_window_after_an_outage_has_none_of_its_calls(
    compared: Compare, first: int, last: int
) -> None:
    """However few of them are in a second with hundreds of others, before it or after."""
    calls = [
        replace(call, time=START + i * timedelta(milliseconds=5))
        for i in range(3_000)
        for call in pair(i)
        if call.role == "primary" or not first <= i <= last
    ]
    report = compared(calls)
    (reason,) = (said for said in report.reasons if said.startswith("coverage: "))
    begin, end = (START + timedelta(seconds=s) for s in (first // 200, last // 200 + 1))
    assert f"from {begin:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC alone." in reason
    assert f"judge later calls alone: --since {end:%Y-%m-%dT%H:%M:%S}Z." in reason
    after = compared([], since=end)
    assert (after.primary.unpaired, after.verdict != "INVALID") == (0, True)


@pytest.mark.parametrize("past", [False, True], ids=["not copied", "past the entry"])
def test_once_calls_are_paired_again_the_window_after_is_named(
    compared: Compare, past: bool
) -> None:
    """However large the share was that was missing before, and whatever the cause."""
    source = {"source": "x-request-id"} if past else {}
    calls = [
        replace(call, **(source if i < 150 and i % 2 else {}))
        for i in range(300)
        for call in pair(i)
        if call.role == "primary" or i >= 150 or not i % 2
    ]
    report = compared(calls)
    since = START + timedelta(seconds=15)
    advised = f"judge later calls alone: --since {since:%Y-%m-%dT%H:%M:%S}Z"
    assert advised in finding(report, "past-entry" if past else "coverage").remedy
    assert any(advised in reason for reason in report.reasons)
    assert compared([], since=since).verdict != "INVALID"


def test_what_no_mirror_sends_is_said_beside_another_cause(compared: Compare) -> None:
    """Of all that is missing a part came past the entry; the rest is asked for."""
    calls = [
        replace(call, source="x-request-id") if 200 <= i < 250 else call
        for i in range(300)
        for call in pair(i)
        if call.role == "primary" or i < 150
    ]
    report = compared(calls)
    assert "50 calls of those without one came past the entry. It was met until" in " ".join(
        report.reasons
    )


def is_kept(call: Call, share: float) -> bool:
    """As minimal-transformer/README.md says of RECORD_SAMPLE: by the hash of the pair id."""
    return int(hashlib.sha256(call.pair_id.encode()).hexdigest()[:16], 16) < share * 2**64


@pytest.mark.parametrize("shares", [(1.0, 0.5), (1.0, 0.9), (0.6, 0.3), (1.0, 0.1)])
def test_a_record_sample_of_one_side_is_named(
    compared: Compare, shares: tuple[float, float]
) -> None:
    """And no share that is to be mirrored, which would hide it."""
    share = dict(zip(("primary", "shadow"), shares, strict=True))
    calls = [call for call in pairs(600) if is_kept(call, share[call.role])]
    # What no mirror sends is missing for a reason of its own.
    past = [replace(call, source="x-request-id") for call in pairs(40, first=600)]
    report = compared(calls + [call for call in past if call.role == "primary"])
    remedy = finding(report, "coverage").remedy
    assert f"none that a RECORD_SAMPLE of {share['shadow']:g}" in remedy
    assert "--mirrored-share" not in " ".join(report.reasons)


@pytest.mark.parametrize("lost", [False, True])
def test_a_record_sample_of_both_sides_is_in_order(compared: Compare, lost: bool) -> None:
    """The same calls are recorded on both; what is missing besides has another cause."""
    calls = [call for call in pairs(900) if is_kept(call, 0.5)]
    gone = {call.pair_id for call in calls[::6]} if lost else set()
    report = compared([c for c in calls if c.role == "primary" or c.pair_id not in gone])
    assert (report.verdict == "INVALID") is lost
    if lost:
        assert finding(report, "coverage").remedy.startswith("Look for a stopped shadow")


def test_ids_from_x_request_id_only(compared: Compare) -> None:
    """Such ids may pair by luck; the entry VirtualService was not used."""
    report = compared(pairs(9_000, source="x-request-id"))
    assert_invalid(report, "pair-ids", "entry VirtualService", "x-request-id")


def test_calls_past_the_entry_are_said(compared: Compare) -> None:
    """Some direct calls lower the coverage and are named, by how they got their ids."""
    direct = [
        Call(role="primary", pair_id=f"direct-{i}", source="generated", time=time)
        for i, time in enumerate([START + timedelta(seconds=1)] * 3)
    ]
    report = compared(pairs(997) + direct)
    direct_calls = finding(report, "direct-calls")
    assert direct_calls.what.startswith("3 of 1,000 primary calls")
    assert "topology follow" in direct_calls.remedy
    assert report.integrity.coverage == pytest.approx(0.997)


def test_lost_coverage(compared: Compare) -> None:
    """A tenth of the calls without shadow: INVALID, and where they are missing is said."""
    calls = [
        call
        for i in range(2_000)
        for call in pair(i, request='{"values": ["%s"]}' % ("9" * (4000 if i % 10 == 5 else 1)))
        if call.role == "primary" or i % 10 != 5
    ]
    report = compared(calls)
    assert report.verdict == "INVALID"
    assert (report.primary.unpaired, report.integrity.coverage) == (200, 0.9)
    assert "--mirrored-share" in report.reasons[0]
    assert "for a part of the window, leave that out (--since)" in report.reasons[0]
    assert "a shadow too slow for the traffic (Latency on the page)" in report.reasons[0]
    assert "longer (median 4,020 bytes against median 17 bytes). No mirror" in report.reasons[0]
    unlike = {found.respect for found in report.integrity.missing if found.unlike}
    assert "request size" in unlike
    assert "buffer" in finding(report, "missing-unlike").remedy


@pytest.mark.parametrize("seconds", [2, 200])
def test_the_time_at_which_calls_are_missing_is_given(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path, seconds: int
) -> None:
    """From when to when, in the same words on the terminal, on the page and in the JSON, however
    short the window is.
    """
    calls = [
        replace(call, time=START + (call.time - START) * seconds / 20)
        for i in range(200)
        for call in pair(i)
        if call.role == "primary" or i < 100
    ]
    report = command(calls, "--verbose")
    (found,) = [found for found in report["integrity"]["missing"] if found["respect"] == "time"]
    assert found["unlike"]
    times = re.fullmatch(r"(\d+) % from (\S+ \S+) to (\S+ \S+) UTC", found["missing"])
    assert times is not None
    begins, ends = (datetime.fromisoformat(f"{time}+00:00") for time in times.groups()[1:])
    assert ends - begins >= timedelta(seconds=1)
    assert START + timedelta(seconds=seconds / 2) < ends
    assert begins <= START + timedelta(seconds=seconds)
    assert found["paired"] == "0 % in that time"
    said = f"unlike the others in time: {found['missing']} against {found['paired']}."
    assert said in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "r.html").read_text()
    assert said in page
    assert f"<td>{found['missing']}</td><td>{found['paired']}</td>" in page


def test_a_configured_mirrored_share_is_the_measure(compared: Compare) -> None:
    """Mirroring nine calls of ten on purpose is full coverage."""
    calls = [c for i in range(20_000) for c in pair(i) if c.role == "primary" or i % 10]
    report = compared(calls, mirrored_share=0.9)
    assert report.verdict == "PROMOTE", report.reasons
    assert (report.integrity.coverage, report.pairs) == (1.0, 18_000)


def test_calls_before_mirroring_began_do_not_count(compared: Compare) -> None:
    """Coverage counts from the first mirrored call on."""
    before = [
        Call(role="primary", pair_id=f"early-{i}", time=time, version="0")
        for i, time in enumerate([START - timedelta(seconds=1)] * 500)
    ]
    report = compared(before + pairs(9_000))
    assert report.verdict == "PROMOTE", report.reasons
    assert report.window.began == START
    assert report.primary.calls == 9_000


def test_different_requests(compared: Compare) -> None:
    """Pairs whose sides took different requests are not pairs; many of them are INVALID."""
    calls = [
        replace(call, request='{"values": ["9"]}')
        if call.role == "shadow" and i % 10 == 0
        else call
        for i in range(1_000)
        for call in pair(i)
    ]
    report = compared(calls)
    assert_invalid(report, "different-requests", "100 pairs", "repeat its request ids")
    assert report.pairs == 900


def test_no_pair_of_one_request_asks_for_no_header(compared: Compare) -> None:
    """Their ids match."""
    calls = [replace(c, request="[]") if c.role == "shadow" else c for c in pairs(50)]
    report = compared(calls)
    assert_invalid(report, "different-requests", "50 pairs", "rewrite the body")
    assert "Their ids match" in finding(report, "no-pairs").remedy


def test_a_body_that_one_side_refuses_to_read_is_the_same_request(compared: Compare) -> None:
    """Over its MAX_BODY_BYTES: what it did not read, nobody can call another body."""
    refusal: dict[str, object] = {"unread": True, "status": 413, "answer": '{"error": "x"}'}
    report = compared([call for i in range(1_000) for call in pair(i, None, refusal)])
    assert report.verdict == "REJECT"
    assert report.new_faults == report.pairs == 1_000
    report = compared([call for i in range(2_000, 3_000) for call in pair(i, refusal)])
    assert report.pairs == 2_000
    assert report.disagreements == 1_000


def test_a_few_different_requests_are_left_out(compared: Compare) -> None:
    calls = pairs(999) + pair(999, None, {"request": "[]", "answer": "[]"})
    report = compared(calls)
    assert not finding(report, "different-requests").unsound
    assert report.outcomes == {"equal": 999}


@pytest.mark.parametrize("role", ["primary", "shadow"])
def test_several_model_versions(compared: Compare, role: str) -> None:
    calls = [replace(c, version="2") if c.role == role else c for c in pairs(10)] + pairs(
        20, first=10
    )
    report = compared(calls)
    assert_invalid(report, "several-versions", f"The {role} changed", "1 (20 calls), 2 (10 calls)")


def since_of(report: Report, code: str) -> datetime:
    """The time that a finding gives to paste."""
    return parse_time(finding(report, code).remedy.rpartition("--since ")[2].rstrip("."), "--since")


@pytest.mark.parametrize("change", [{"version": "2"}, {"model_name": "next"}], ids=str)
def test_the_time_since_a_rollout_is_given(compared: Compare, change: dict[str, str]) -> None:
    """Old and new pods served side by side for a moment; from the given time on it is sound."""
    code = "several-versions" if "version" in change else "several-models"
    calls = [
        replace(call, **change) if call.role == "shadow" and (i >= 60 or i == 55) else call  # type: ignore[arg-type]
        for i in range(200)
        for call in pair(i)
    ]
    report = compared(calls)
    assert_invalid(report, code, "--since")
    for after in (compared(since=since_of(report, code)), compared(since_rollout=True)):
        # Pair 59 was the last of the old one, and a second passes before its rows are surely all.
        assert (after.verdict, after.pairs) == ("WAIT", 130)


def test_the_time_since_an_earlier_run_is_given(compared: Compare) -> None:
    """What ran before under other names is left behind by the given time, and the pause too."""
    earlier = [
        call
        for i in range(100)  # the shadow's copy is recorded before the primary's call
        for call in pair(i, {"service": "old"}, {"time": START, "service": "old-shadow"})
    ]
    hour = timedelta(hours=1)
    later = [replace(call, time=call.time + hour) for call in pairs(50, first=100)]
    report = compared(earlier + later)
    assert_invalid(report, "several-services", "--since")
    given = since_of(report, "several-services")
    assert timedelta(0) < later[0].time - given < timedelta(seconds=2)
    for after in (compared(since=given), compared(since_rollout=True)):
        assert (after.verdict, after.pairs, after.primary.service) == ("WAIT", 50, PRIMARY)


def test_without_a_rollout_all_calls_are_since_it(compared: Compare) -> None:
    report = compared(pairs(50), since_rollout=True)
    assert (report.verdict, report.pairs) == ("WAIT", 50)


def test_a_shadow_call_that_is_recorded_first_is_of_its_side(compared: Compare) -> None:
    """The copy's row may be some microseconds older than the call's; it counts all the same."""
    early = START - timedelta(microseconds=33)
    direct = Call(role="shadow", pair_id="direct", time=START - timedelta(hours=1), version="old")
    for report in (
        compared([*pair(0, shadow={"time": early}), direct]),
        compared(pair(1), since=START),
    ):
        assert report.shadow.model_versions == {"1": report.pairs}
        assert report.shadow.first_call == early


def test_no_time_is_given_where_versions_alternate(compared: Compare) -> None:
    """No window has one version only, but for the last call."""
    calls = [
        replace(call, version=str(i % 2)) if call.role == "primary" else call
        for i in range(100)
        for call in pair(i)
    ]
    for report in (compared(calls), compared(since_rollout=True)):
        assert_invalid(report, "several-versions")
        assert "--since" not in finding(report, "several-versions").remedy


@pytest.mark.parametrize("strays", [1, 5])
def test_the_time_after_a_stray_service_is_given_at_once(compared: Compare, strays: int) -> None:
    """However long the service had run before it: a minute's calls, then one of another name and
    version or some, then three seconds.
    """
    stray = [
        replace(call, service="stray", version="0", pair_id=f"stray-{call.pair_id}")
        for call in pairs(strays, first=600)
        if call.role == "shadow"
    ]
    calls = pairs(630) + stray
    report = compared(calls)
    assert_invalid(report, "several-services", "--since")
    for after in (
        compared(since=since_of(report, "several-services")),
        compared(since_rollout=True),
    ):
        assert (after.verdict, after.pairs) == ("WAIT", 20 - strays), after.reasons


def test_several_services(compared: Compare) -> None:
    """Two primaries in the tables: INVALID until one is chosen."""
    calls = pairs(100) + [
        replace(call, service="old", pair_id=f"old-{call.pair_id}")
        for call in pairs(50)
        if call.role == "primary"
    ]
    assert_invalid(compared(calls), "several-services", PRIMARY, "old", "--primary")
    chosen = compared(primary=PRIMARY, shadow=SHADOW)
    assert chosen.verdict == "WAIT"
    assert chosen.pairs == 100


def test_an_unknown_service_is_no_evidence(compared: Compare) -> None:
    report = compared(pairs(10), shadow="tripel")
    assert_invalid(report, "no-shadow-calls")


def test_duplicates_count_once(compared: Compare) -> None:
    """Of a repeated pair id each side's first call counts, unless a further one is worse."""
    repeated = [
        replace(call, time=call.time + timedelta(seconds=1), answer=answer)
        for call, answer in zip(pair(3), ("[0]", None), strict=True)
        for _ in range(2)
    ]
    report = compared(pairs(1_000) + [replace(c, answer=c.answer or SAME) for c in repeated])
    assert report.outcomes == {"equal": 1_000}
    assert (report.primary.duplicates, report.shadow.duplicates) == (2, 2)
    assert not finding(report, "duplicates").unsound


def test_many_duplicates(compared: Compare) -> None:
    repeated = [replace(call, time=call.time + timedelta(seconds=1)) for call in pairs(30)]
    words = "30 calls", "retry", "entry's path"
    assert_invalid(compared(pairs(100) + repeated), "duplicates", *words)


def test_lost_records(compared: Compare) -> None:
    """Holes in a recorder's numbers are lost records, told apart from calls never mirrored."""
    calls = [
        replace(call, sequence=i + 1)
        for i in range(1_000)
        for call in pair(i)
        if not (call.role == "shadow" and 100 <= i < 150)
    ]
    report = compared(calls)
    assert_invalid(report, "lost-records", "50 records of the shadow", "SPOOL_MAX_BYTES")
    assert (report.shadow.lost_records, report.primary.lost_records) == (50, 0)
    # Call 150 is the first whole one, its shadow's row 2 ms late; a second more is left out.
    after = compared(since=since_of(report, "lost-records"))
    assert (after.verdict, after.pairs, after.shadow.lost_records) == ("WAIT", 839, 0)


def test_lost_records_of_calls_sent_later(compared: Compare) -> None:
    """Their times say nothing of the primary's calls; the log has the end of the losses."""
    calls = [
        replace(call, sequence=i + 1, source="x-request-id")
        for i in range(200)
        for call in pair(i)
        if not (call.role == "shadow" and 100 <= i < 150)
    ]
    assert "Calls are recorded again" in finding(compared(calls), "lost-records").remedy


def test_losses_after_the_window_are_not_of_it(compared: Compare) -> None:
    """Nor do a recorder's later calls of another kind hide its earlier ones."""
    kinds = ("v1", "v2")
    calls = [
        replace(call, sequence=i + 1, protocol=kinds[i >= 300])
        for i in range(1_000)
        for call in pair(i)
        if not (call.role == "shadow" and (100 <= i < 150 or 700 <= i < 800))
    ]
    window = {"since": START, "until": START + timedelta(seconds=60)}
    assert compared(calls, **window).shadow.lost_records == 50


@pytest.fixture
def citus(tables: str) -> Iterator[None]:
    """The tables' database says that it is one of Citus."""

    def execute(statement: str) -> None:
        with psycopg.connect(tables) as connection:
            connection.execute("SET allow_system_table_mods = on")
            connection.execute(statement)

    execute(
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,"
        " extversion) SELECT 99999, 'citus', extowner, extnamespace, false, '14'"
        " FROM pg_extension WHERE extname = 'plpgsql'"
    )
    yield
    execute("DELETE FROM pg_extension WHERE extname = 'citus'")


@pytest.mark.usefixtures("citus")
def test_without_a_common_snapshot_only_what_is_settled_is_read(
    compared: Compare,
) -> None:
    """Citus: rows that arrive between two questions are in none of them."""
    now = datetime.now(UTC)
    calls = pairs(100) + pair(100, time=now) + pair(101, {"status": None}, time=now)
    report = compared(calls, settle=LONG)
    assert (report.pairs, report.window.in_flight, report.primary.calls) == (100, 0, 100)
    assert report.window.until is not None
    assert report.window.until <= now
    early = START + timedelta(seconds=5)
    assert compared([], until=early).window.until == early


def test_cut_bodies(compared: Compare) -> None:
    """A cut answer is not compared; many of them are not evidence."""
    report = compared(pairs(90) + pairs(10, first=90, cut=True, answer=b'{"predictions": [1'))
    counts = "10 of 100 pairs", "(10 of the primary's and 10 of the shadow's)"
    assert_invalid(report, "cut-bodies", *counts, "Raise RECORD_MAX_BODY_BYTES on both")
    assert report.outcomes == {"equal": 90, "not compared": 10}
    disagreement = next(gate for gate in report.gates if gate.name == "disagreement")
    assert disagreement.n == 90


@pytest.mark.parametrize("role", ["primary", "shadow"])
def test_bodies_cut_on_one_side_alone(compared: Compare, role: str) -> None:
    """The sides have other limits, or answers of other lengths: which one is cut is said."""
    cut = [replace(call, cut=call.role == role) for call in pairs(10, first=90)]
    report = compared(pairs(90) + cut)
    count = f"(10 of the {role}'s alone)"
    assert_invalid(report, "cut-bodies", count, "Set RECORD_MAX_BODY_BYTES alike on both sides")


def test_unparseable_on_both_sides(compared: Compare) -> None:
    report = compared(
        [call for i in range(50) for call in pair(i, {"answer": b"one"}, {"answer": b"two"})]
    )
    assert_invalid(report, "unparseable", "byte for byte")


def test_bytes_of_another_service_are_compared_as_such(compared: Compare) -> None:
    """What was passed on as it is may be a picture: equal or not, byte for byte."""
    drawn = [({"answer": b"\x89PNG1"}, {"answer": b"\x89PNG%d" % (1 + (i < 5))}) for i in range(50)]
    report = compared(
        [call for i, both in enumerate(drawn) for call in pair(i, *both, protocol="other")]
    )
    assert not finding(report, "unparseable").unsound
    assert report.outcomes == {"equal": 45, "text": 5}
    assert report.verdict == "REJECT"


def test_unanswered_calls_fail(compared: Compare) -> None:
    """A call whose process died has no response row; it failed."""
    report = compared(pairs(99) + pair(99, None, {"status": None}))
    assert report.shadow.unanswered == 1
    assert report.new_faults == 1
    found = finding(report, "unanswered")
    assert found.what == "1 call of the shadow without a response record, counted as failed."
    assert "die" in found.remedy
    assert "stuck" in found.remedy
    assert "refuses rows" in found.remedy


def test_calls_without_a_response_record_on_both_sides_are_one_finding(compared: Compare) -> None:
    """Where Postgres refuses both no gate counts the pair, so a line says that there are such."""
    lost = [call for i in range(3) for call in pair(i, {"status": None}, {"status": None})]
    report = compared([*lost, *pairs(96, first=3), *pair(99, {"status": None})])
    assert (report.pairs, report.compared, report.disagreements) == (100, 97, 1)
    assert finding(report, "unanswered").what == (
        "4 calls of the primary and 3 calls of the shadow without a response record, counted as "
        "failed."
    )
    with StringIO() as written:
        print_report(report, Console(file=written, width=200))
        assert "without a response record" in written.getvalue()
    assert "without a response record" in render_page(report)


def test_calls_in_flight_are_left_out(compared: Compare) -> None:
    """The newest incomplete calls are neither missing nor failed; complete ones count."""
    now = datetime.now(UTC) - timedelta(seconds=1)
    calls = (
        pairs(100)
        + pair(100, time=now)
        + pair(101, None, {"status": None}, time=now)
        + [Call(role="primary", pair_id="alone", time=now)]
        + [Call(role="shadow", pair_id="orphan", time=now)]
    )
    report = compared(calls, settle=LONG)
    assert (report.pairs, report.window.in_flight) == (101, 3)
    assert report.integrity.coverage == 1
    assert report.outcomes == {"equal": 101}
    assert finding(report, "in-flight").what == f"3 calls {IN_FLIGHT}"


def test_a_copy_that_has_just_come_is_in_flight_however_old_its_call_is(compared: Compare) -> None:
    """By the later stamp of the two: the copy waited at the gateway, and is not answered yet."""
    now = datetime.now(UTC)
    waited = pair(100, None, {"status": None, "time": now}, time=now - 2 * LONG)
    given_up = pair(101, None, {"status": None}, time=now - 2 * LONG)
    report = compared(pairs(100) + waited + given_up, settle=LONG)
    assert (report.pairs, report.new_faults, report.window.in_flight) == (101, 1, 1)
    assert finding(report, "in-flight").what == f"1 call {IN_FLIGHT}"


def test_a_share_that_is_looked_at_too_early_says_what_is_not_due(compared: Compare) -> None:
    """Seconds after the traffic each pair is there, and no other call is due: the coverage has
    no figure yet, and needs what a mirror of this share needs.
    """
    now = datetime.now(UTC) - timedelta(seconds=2)
    calls = [
        call for i in range(500) for call in pair(i, time=now) if i < 100 or call.role == "primary"
    ]
    report = compared(calls, mirrored_share=0.2, settle=LONG)
    coverage = report.gates[0]
    assert (report.pairs, report.primary.calls, coverage.n) == (100, 100, 0)
    assert coverage.need is not None
    assert coverage.need.pairs is not None
    assert coverage.need.pairs > 50_000
    assert finding(report, "in-flight").what == f"400 calls {IN_FLIGHT}"


def test_warm_up_is_left_out(compared: Compare) -> None:
    """Pairs of the first minute do not count, good or bad."""
    cold = [call for i in range(10) for call in pair(i, None, {"status": 503})]
    report = compared(cold + pairs(1_000, first=600), warm_up=timedelta(minutes=1))
    assert (report.pairs, report.new_faults, report.window.warm_up_pairs) == (1_000, 0, 10)


@pytest.mark.parametrize(
    ("minutes", "words", "remedy"),
    [
        (5, "300.0 s after the primary's", "copies waited for a slow shadow (Latency on the page)"),
        (-5, "300.0 s before the primary's", "The nodes' clocks differ"),
    ],
)
def test_clock_skew_is_said_and_harmless(
    compared: Compare, minutes: int, words: str, remedy: str
) -> None:
    """Pairs are joined by id, so a skewed clock costs none; the report names it."""
    report = compared(shadow_after(timedelta(minutes=minutes)))
    assert report.pairs == 200
    assert report.integrity.clock_skew_ms == pytest.approx(minutes * 60_000, abs=10)
    found = finding(report, "clock-skew")
    assert not found.unsound
    assert words in found.what
    assert remedy in found.remedy


@pytest.mark.parametrize("named", [{}, {"primary": PRIMARY, "shadow": SHADOW}], ids=["", "named"])
@pytest.mark.parametrize("seconds", [-90, -5, 5, 90])
@pytest.mark.parametrize("window", [(0, 20), (5, 10)], ids=["all", "a part"])
def test_a_window_shorter_than_the_clocks_are_apart_has_its_pairs(
    compared: Compare, seconds: int, window: tuple[int, int], named: dict[str, str]
) -> None:
    """Nothing of the shadow is in it by its own clock, or calls of other pairs are, which are not
    without their primary; nor is a shadow behind whose clock is.
    """
    since, until = (START + timedelta(seconds=second) for second in window)
    report = compared(shadow_after(timedelta(seconds=seconds)), since=since, until=until, **named)
    count = 10 * (window[1] - window[0])
    assert (report.verdict, report.pairs) == ("WAIT", count), report.reasons
    assert (report.primary.calls, report.shadow.calls) == (count, count)
    assert (report.primary.unpaired, report.shadow.unpaired) == (0, 0)
    assert [found.code for found in report.integrity.findings] == ["clock-skew"]


@pytest.mark.parametrize(
    ("second", "named", "said"),
    [
        (-63, {}, " UTC, 63 s before the first of them."),
        (83, {}, " UTC, 64 s after the last of them."),
        (0, {"shadow": "tripel"}, f"of {SHADOW}, came at "),
    ],
)
def test_a_window_without_a_shadow_call_says_where_they_are(
    compared: Compare, second: int, named: dict[str, str], said: str
) -> None:
    """The newest one of the tables, which has no pair here: when it came, and of which shadow."""
    time = START + timedelta(seconds=second)
    other = Call(role="shadow", pair_id="other", time=time)
    calls = [call for call in pairs(200) if call.role == "primary"]
    window = {"since": START, "until": START + timedelta(seconds=20)}
    report = compared([*calls, other], **window, **named)
    came = f"the newest shadow call in the tables, of {SHADOW}, came at {time:%Y-%m-%d %H:%M:%S}"
    assert_invalid(report, "no-shadow-calls", came, said)


def test_a_window_without_a_primary_call_says_where_they_are(compared: Compare) -> None:
    """By the primary's clock, which the window goes by."""
    calls = shadow_after(timedelta(seconds=90))
    window = {"since": START + timedelta(seconds=90), "until": START + timedelta(seconds=110)}
    report = compared(calls, **window)
    words = f"of {PRIMARY}, came at ", " UTC, 71 s before the first of them", "primary's clock"
    assert_invalid(report, "no-primary-calls", *words)
    report = compared(primary=PRIMARY, **window)
    assert_invalid(report, "no-calls", "not one call of the primary", f"of {PRIMARY}, came at ")


def test_a_clock_of_the_primary_that_is_ahead_is_named(compared: Compare) -> None:
    """The live verdict, which ends at our clock, has none of its calls, and the shadow's alone."""
    ahead = datetime.now(UTC) + timedelta(minutes=10)
    primaries = [replace(c, time=ahead) for c in pairs(50) if c.role == "primary"]
    calls = primaries + [call for call in pairs(50) if call.role == "shadow"]
    until = datetime.now(UTC)
    words = "stamped in the future", "clock of the primary's node"
    assert_invalid(compared(calls, until=until), "no-primary-calls", *words)
    window = {"since": until - timedelta(minutes=1), "until": until}
    assert_invalid(compared(**window), "no-calls", *words)


def test_calls_sent_later_on_purpose_have_no_skew(compared: Compare) -> None:
    """A follower comes when it comes."""
    calls = shadow_after(timedelta(minutes=5))
    report = compared([replace(call, source="x-request-id") for call in calls])
    assert report.pairs == 200
    assert "clock-skew" not in {found.code for found in report.integrity.findings}


def shadow_after(time: timedelta) -> list[Call]:
    """200 pairs whose shadow calls are stamped so much later."""
    return [
        replace(call, time=call.time + time) if call.role == "shadow" else call
        for call in pairs(200)
    ]


def test_model_names_that_differ_are_said(compared: Compare) -> None:
    calls = [
        replace(call, model_name="other") if call.role == "shadow" else call for call in pairs(9)
    ]
    assert "other" in finding(compared(calls), "model-names").what


def test_the_window_bounds_the_primary_calls(compared: Compare) -> None:
    """--since and --until cut by the primary's time; a pair is never torn apart by them."""
    report = compared(
        pairs(600), since=START + timedelta(seconds=10), until=START + timedelta(seconds=30)
    )
    assert report.pairs == 200
    assert (report.primary.calls, report.shadow.calls) == (200, 200)
    assert (report.primary.unpaired, report.shadow.unpaired) == (0, 0)


def test_a_replayed_run_is_compared_by_its_own_calls(compared: Compare) -> None:
    """With shadow_since, earlier shadow calls of the same pairs do not count."""
    later = datetime.now(UTC) - timedelta(minutes=10)
    rerun = [
        replace(call, time=later, recorded=later, answer="[1]", recorder=uuid.UUID(int=9))
        for call in pairs(100)
        if call.role == "shadow"
    ]
    report = compared(
        [replace(call, recorded=call.time) for call in pairs(100)] + rerun,
        since=START,
        until=START + timedelta(minutes=1),
        shadow_since=later - timedelta(minutes=1),
    )
    assert (report.pairs, report.shadow.calls, report.shadow.duplicates) == (100, 100, 0)
    assert report.new_faults == 100
