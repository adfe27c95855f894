"""The command line: exit codes of the contract, files, and failures in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from traffic import PRIMARY, pair, pairs, record

from embedded_postgres import Postgres, as_role
from shadow_report.cli import main


def run(monkeypatch: pytest.MonkeyPatch, uri: str | None, *options: str) -> int:
    """The exit code of `shadow-report compare` with these options."""
    if uri is None:
        monkeypatch.delenv("POSTGRES_URI", raising=False)
    else:
        monkeypatch.setenv("POSTGRES_URI", uri)
    monkeypatch.setattr(sys, "argv", ["shadow-report", "compare", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_exit_codes_are_the_contracts(
    monkeypatch: pytest.MonkeyPatch, postgres_uri: str, report_uri: str
) -> None:
    """INVALID 12 without calls, WAIT 11 with few, REJECT 10 and PROMOTE 0 with enough."""
    assert run(monkeypatch, report_uri) == 12
    record(postgres_uri, pairs(100))
    assert run(monkeypatch, report_uri) == 11
    record(postgres_uri, pairs(9_000, first=100))
    assert run(monkeypatch, report_uri) == 0
    record(postgres_uri, [c for i in range(9_100, 9_600) for c in pair(i, None, {"answer": "[]"})])
    assert run(monkeypatch, report_uri) == 10


def test_json_has_the_contracts_keys(
    monkeypatch: pytest.MonkeyPatch, postgres_uri: str, report_uri: str, tmp_path: Path
) -> None:
    """--json writes the report with the fixed top-level keys."""
    record(postgres_uri, pairs(200) + pair(200, None, {"answer": b"NaN"}))
    file = tmp_path / "report.json"
    code = run(monkeypatch, report_uri, "--json", str(file), "--slo-ms", "100")
    report = json.loads(file.read_text())
    assert {"schema_version", "verdict", "reasons", "pairs", "gates"} <= report.keys()
    assert (report["verdict"], code, report["pairs"]) == ("WAIT", 11, 201)
    assert [gate["name"] for gate in report["gates"]] == [
        "coverage", "faults", "disagreement", "slow",
    ]  # fmt: skip
    assert report["settings"]["slo_ms"] == 100
    assert len(report["settings_sha256"]) == 64


def assert_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Exactly one line on stderr, with these words in it."""
    error = capsys.readouterr().err
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


def test_a_missing_uri_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, None) == 2
    assert_one_line(capsys, "POSTGRES_URI is not set")


def test_an_unreachable_server_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the server without the password."""
    assert run(monkeypatch, "postgresql://report:s3cret@127.0.0.1:9/inference") == 1
    error = capsys.readouterr().err
    assert "127.0.0.1:9/inference" in error
    assert "s3cret" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("uri", ["nonsense", "http://example.org/", "postgresql://[::1/x"])
def test_a_wrong_uri_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    assert run(monkeypatch, uri) == 1
    assert_one_line(capsys, "POSTGRES_URI")


def test_missing_tables_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_postgres_uri: str
) -> None:
    assert run(monkeypatch, empty_postgres_uri) == 1
    assert_one_line(capsys, "make schema")


def test_a_wrong_role_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], postgres_uri: str
) -> None:
    assert run(monkeypatch, as_role(postgres_uri, "transformer")) == 1
    assert_one_line(capsys, "role report")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--last", "5 minutes"), ("--last", "5 minutes", "15m")),
        (("--since", "yesterday"), ("--since", "2026-")),
        (("--last", "1h", "--since", "2026-01-01"), ("one of them",)),
        (("--since", "2026-01-02", "--until", "2026-01-01"), ("--since before --until",)),
        (("--tolerance", "predictions[*]"), ("--tolerance", "predictions[*]=0.01")),
        (("--tolerance", "a=1,2,3"), ("--tolerance",)),
        (("--tolerance", "a=nan"), ("--tolerance",)),
        (("--ignore", "a..b"), ("--ignore", "a..b")),
        (("--slice", "header:"), ("--slice", "header:x-country")),
        (("--mirrored-share", "0"), ("--mirrored-share",)),
        (("--max-disagreement", "2"), ("max_disagreement",)),
        (("--alpha", "0"), ("alpha",)),
        (("--abs-tol", "-1"), ("tolerance",)),
        (("--slo-ms", "0"), ("--slo-ms",)),
    ],
)
def test_usage_errors_name_the_option_the_value_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    assert run(monkeypatch, "postgresql://127.0.0.1:9/x", *options) == 2
    assert_one_line(capsys, *words)


def test_an_unwritable_file_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    postgres_uri: str,
    report_uri: str,
    tmp_path: Path,
) -> None:
    """The report is printed all the same; the file's failure is the exit code."""
    record(postgres_uri, pairs(10))
    assert run(monkeypatch, report_uri, "--json", str(tmp_path / "no" / "report.json")) == 1
    assert_one_line(capsys, "report.json")


def test_ctrl_c_ends_cleanly(own_postgres: Postgres) -> None:
    """SIGINT while Postgres is busy: one line, exit 130, no session left behind."""
    record(own_postgres.uri, pairs(10))
    with psycopg.connect(own_postgres.uri) as blocker:
        blocker.execute("LOCK TABLE inference_responses IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-c", "from shadow_report.cli import main; main()", "compare"],
            env=os.environ | {"POSTGRES_URI": as_role(own_postgres.uri, "report")},
            stderr=subprocess.PIPE,
            text=True,
        )
        with psycopg.connect(own_postgres.uri, autocommit=True) as watcher:
            query = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'shadow-report' AND wait_event_type = 'Lock'"
            )
            while watcher.execute(query).fetchone() == (0,):
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
            assert process.returncode == 130
            assert error.strip().splitlines() == ["shadow-report: Interrupted."]


def test_the_service_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, postgres_uri: str, report_uri: str
) -> None:
    record(postgres_uri, pairs(10))
    assert run(monkeypatch, report_uri, "--primary", PRIMARY) == 11
    assert run(monkeypatch, report_uri, "--primary", "other") == 12
