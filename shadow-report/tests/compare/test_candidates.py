"""Several candidates against one primary: each has its own verdict, alpha is shared among them."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from traffic import SHADOW, Call, Command, Compare, pair, record

from shadow_report import SettingWrong
from shadow_report.compare import compare, compare_candidates
from shadow_report.judging.questions import Margins
from shadow_report.report import Report
from shadow_report.settings import Comparison, parse_candidates

SECOND = "quadruple-minimal-inference"
# Enough for a promotion at half the usual alpha.
PAIRS = 11_000


def with_second(calls: Iterable[Call], **second: object) -> Iterator[Call]:
    """The calls, and each one of the shadow once more as the second candidate's."""
    for call in calls:
        yield call
        if call.role == "shadow":
            own = {"service": SECOND, "recorder": uuid.UUID(int=3)}
            yield replace(call, **(own | second))  # type: ignore[arg-type]


def three_sided(count: int = PAIRS, bad_every: int = 20) -> Iterator[Call]:
    """Pairs on which the first candidate agrees, and the second is wrong now and then."""
    for i in range(count):
        wrong = {"answer": '{"predictions": [8.8, 124.6, 648.0]}'} if i % bad_every == 0 else {}
        yield from with_second(pair(i), **wrong)


def test_each_candidate_has_its_own_verdict(command: Command, tmp_path: Path) -> None:
    """One good and one bad: the good one may be promoted, the whole is not PROMOTE."""
    junit = tmp_path / "gates.xml"
    report = command(three_sided(), "--shadow", f"{SHADOW},{SECOND}", "--junit", str(junit))
    good, bad = report["candidates"]
    assert (good["shadow"]["service"], good["verdict"]) == (SHADOW, "PROMOTE")
    assert (bad["shadow"]["service"], bad["verdict"]) == (SECOND, "REJECT")
    assert report["verdict"] == "REJECT"
    assert report["exit_code"] == 10
    assert report["pairs"] == 2 * PAIRS
    assert report["reasons"][0].startswith(f"{SHADOW}: PROMOTE. All ")
    assert report["reasons"][1].startswith(f"{SECOND}: REJECT. disagreement")
    failed = [(g["candidate"], g["name"]) for g in report["gates"] if g["status"] == "fail"]
    assert set(failed) == {(SECOND, "disagreement"), (SECOND, "bad")}
    suites = ET.parse(junit).getroot().findall("testsuite")
    assert [(s.get("name"), s.get("failures")) for s in suites] == [
        (f"shadow-report.{SHADOW}", "0"),
        (f"shadow-report.{SECOND}", "2"),
    ]


def test_zero_is_for_all_of_them(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where each candidate may replace the primary the exit code is 0. The
    environment may name them.
    """
    monkeypatch.setenv("SHADOW_CANDIDATES", f"{SHADOW}, {SECOND}")
    report = command(three_sided(bad_every=PAIRS * 2))
    assert [each["verdict"] for each in report["candidates"]] == ["PROMOTE", "PROMOTE"]
    assert (report["verdict"], report["exit_code"]) == ("PROMOTE", 0)


def test_alpha_is_shared(report_uri: str, tables: str) -> None:
    """Each candidate is judged as it would be alone at half of alpha, and the report says so."""
    record(tables, three_sided(3_000))
    both = compare_candidates(report_uri, Comparison(candidates=(SHADOW, SECOND)))
    for report in both.candidates:
        alone = compare(
            report_uri, Comparison(shadow=report.shadow.service, margins=Margins(alpha=0.025))
        )
        assert report.gates == alone.gates
        assert report.settings["alpha"] == 0.025
        assert report.settings["candidates"] == [SHADOW, SECOND]
        assert "Judged at alpha 0.025, its share of 0.05 among 2 candidates." in report.notes
    assert both.alpha == 0.05


def test_a_candidate_without_calls_is_invalid(command: Command) -> None:
    """A name that recorded nothing spoils the whole and not the other's verdict."""
    report = command(three_sided(400), "--shadow", SHADOW, "--shadow", "nobody")
    here, absent = report["candidates"]
    assert here["verdict"] == "WAIT"
    assert absent["verdict"] == "INVALID"
    assert (report["verdict"], report["exit_code"]) == ("INVALID", 12)


def test_several_unnamed_are_not_guessed(compared: Compare) -> None:
    """Whether two services are rivals or one was renamed, the caller knows; the remedy is given."""
    report: Report = compared(three_sided(50))
    assert report.verdict == "INVALID"
    assert f"--shadow {SECOND},{SHADOW}" in report.reasons[0]


def test_one_name_is_the_report_of_one(command: Command) -> None:
    """With a single name nothing is shared, and the JSON is that of one shadow."""
    report = command(three_sided(50), "--shadow", SHADOW)
    assert report["settings"]["alpha"] == 0.05
    assert "candidates" not in report


def test_names_come_from_the_options_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas and repeated options mean the same; a name given twice is refused."""
    monkeypatch.setenv("SHADOW_CANDIDATES", "x,y")
    assert parse_candidates(["a,b", "c"]) == ("a", "b", "c")
    assert parse_candidates([]) == ("x", "y")
    monkeypatch.delenv("SHADOW_CANDIDATES")
    assert parse_candidates([]) == ()
    with pytest.raises(SettingWrong, match="--shadow names a twice"):
        parse_candidates(["a,b", "a"])
