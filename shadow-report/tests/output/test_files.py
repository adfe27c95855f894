"""The JSON and the JUnit file: machine-readable whatever the report holds."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sample_reports import candidates, hostile, invalid, promoted, rejected, waiting

from shadow_report.output import write_json, write_junit, write_page
from shadow_report.report import Judged, Report


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def as_json(report: Judged, tmp_path: Path) -> Any:
    write_json(report, tmp_path / "report.json")
    return strict((tmp_path / "report.json").read_text())


def test_json_has_the_contracts_keys(tmp_path: Path) -> None:
    """schema_version, verdict, reasons, pairs and gates stand at the top."""
    report = as_json(rejected(), tmp_path)
    assert report["schema_version"] == 2
    assert report["verdict"] == "REJECT"
    assert report["pairs"] == 12480
    assert len(report["reasons"]) == 3
    assert report["gates"][2]["name"] == "disagreement"
    assert report["gates"][2]["interval"] == [0.0242, 0.0341]
    assert report["window"]["began"] == "2026-11-20T08:00:00Z"


def test_json_of_candidates_has_the_same_keys(tmp_path: Path) -> None:
    """The fixed keys speak for all of them; each report stands whole in `candidates`."""
    report = as_json(candidates(), tmp_path)
    assert list(report) == [
        "schema_version",
        "verdict",
        "reasons",
        "pairs",
        "alpha",
        "gates",
        "candidates",
    ]
    assert report["verdict"] == "REJECT"
    assert report["candidates"][0] == as_json(promoted(), tmp_path)
    named = [gate.pop("candidate") for gate in report["gates"]]
    assert named[0] == "triple-minimal-inference"
    assert report["gates"] == [gate for each in report["candidates"] for gate in each["gates"]]


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    """NaN and infinity never reach the file."""
    report = as_json(invalid(), tmp_path)
    assert report["gates"][0]["interval"] == [None, None]
    settings = {
        "slo": float("inf"),
        "n": 2**70,
        "span": timedelta(1),
        "at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    report = as_json(replace(rejected(), settings=settings), tmp_path)
    assert report["settings"] == {
        "slo": None,
        "n": str(2**70),
        "span": 86400.0,
        "at": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize("report", [rejected(), waiting(), promoted(), invalid(), hostile()])
def test_all_files_can_be_read(report: Report, tmp_path: Path) -> None:
    """Strict JSON, well-formed XML, and nothing else left in the folder."""
    as_json(report, tmp_path)
    write_junit(report, tmp_path / "report.xml")
    ElementTree.parse(tmp_path / "report.xml")
    write_page(report, tmp_path / "report.html")
    assert len(list(tmp_path.iterdir())) == 3


def junit(report: Report, tmp_path: Path) -> ElementTree.Element:
    write_junit(report, tmp_path / "report.xml")
    suite = ElementTree.parse(tmp_path / "report.xml").getroot().find("testsuite")
    assert suite is not None
    return suite


def test_junit_has_a_case_per_gate(tmp_path: Path) -> None:
    """A failing gate is a failure, a waiting one is skipped with what it waits for."""
    suite = junit(rejected(), tmp_path)
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7",
        "failures": "1",
        "errors": "0",
        "skipped": "2",
    }
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    failure = cases["disagreement"].find("failure")
    assert failure is not None
    assert failure.get("message") == "At least 2.42 % differ."
    assert "margin: at most 1 %" in (failure.text or "")
    skipped = cases["faults"].find("skipped")
    assert skipped is not None
    assert "9,400 more pairs" in (skipped.get("message") or "")


def test_junit_of_unsound_evidence_is_an_error(tmp_path: Path) -> None:
    """INVALID is an error with the remedy, and no gate counts."""
    suite = junit(invalid(), tmp_path)
    assert (suite.get("errors"), suite.get("skipped"), suite.get("failures")) == ("1", "2", "0")
    error = suite.find("testcase[@name='evidence']/error")
    assert error is not None
    assert error.text == "The shadow recorded no call. Is mirroring on?"


def test_junit_of_a_promotion_passes(tmp_path: Path) -> None:
    """Nothing but passed cases."""
    suite = junit(promoted(), tmp_path)
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "0")


def test_hostile_text_is_written_out_in_junit(tmp_path: Path) -> None:
    """Characters that XML cannot hold appear as escapes."""
    suite = junit(hostile(), tmp_path)
    assert r"\x1b[31mred\x1b[0m \x00" in (suite.findtext("system-out") or "")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A folder that is not there is an OSError, and nothing is left behind."""
    with pytest.raises(FileNotFoundError):
        write_json(rejected(), tmp_path / "missing" / "report.json")
    assert list(tmp_path.iterdir()) == []
