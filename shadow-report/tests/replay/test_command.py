"""`shadow-report replay` as a person runs it: a process, its lines, its exit code."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from candidate import Candidate, serving, store

from embedded_postgres import as_role
from shadow_report import OneLineError, SettingWrong
from shadow_report.replay.calls import parse_target
from shadow_report.replay.candidate import Candidate as Address
from shadow_report.replay.run import Plan, replay

SINCE = "2026-11-20T00:00:00Z"


def plan_to(to: str, state_file: Path) -> Plan:
    return Plan(
        candidate=Address(
            target=parse_target(to),
            grpc=None,
            source="replay",
            concurrency=4,
            timeout_seconds=60.0,
        ),
        rate=None,
        original_timing=False,
        state_file=state_file,
    )


def command(uri: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """`shadow-report replay`, its working folder being `folder`."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("shadow-report"), "replay", *options],
        env={**os.environ, "POSTGRES_URI": uri and as_role(uri, "report")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=180)
    return process.returncode, out, errors


@pytest.mark.parametrize("live_shadow", ["triple", "candidate"])
def test_ends_with_the_comparison_of_that_run(
    postgres_uri: str, tmp_path: Path, live_shadow: str
) -> None:
    """A candidate is judged by its own answers, not by those of the live shadow before it."""
    store(postgres_uri, 80)
    store(postgres_uri, 80, factor=3, role="shadow", service=live_shadow)
    with serving(Candidate(postgres_uri)) as candidate:
        code, out, errors = finished(command(postgres_uri, tmp_path, "--to", candidate.url))
    assert "80 calls answered." in errors
    assert out.startswith(" WAIT ")
    assert "80 compared" in out
    assert "candidate" in out
    assert code == 11
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_candidate_is_rejected(postgres_uri: str, tmp_path: Path) -> None:
    """The exit code is that of compare, also at a rate and in a window."""
    store(postgres_uri, 80)
    with serving(Candidate(postgres_uri, factor=3)) as candidate:
        url = f"{candidate.url}/v1/models/model:predict"
        options = ("--to", url, "--since", SINCE, "--rate", "400/s", "--concurrency", "2")
        code, out, _ = finished(command(postgres_uri, tmp_path, *options))
    assert out.startswith(" REJECT ")
    assert code == 10


def test_a_replay_to_the_primary_itself_tells_the_noise_floor(
    postgres_uri: str, tmp_path: Path
) -> None:
    """Under pair ids of its own, which neither a comparison nor another replay sees."""
    store(postgres_uri, 40)
    primary = Candidate(postgres_uri, service="double", role="primary")
    primary.kept = 1_000
    with serving(primary):
        options = ("--to", primary.url, "--itself")
        for _ in range(2):
            code, out, errors = finished(command(postgres_uri, tmp_path, *options))
            assert (code, "40 calls answered." in errors) == (0, True)
    assert set(primary.pair_ids) == {f"itself:p{i}" for i in range(40)}
    assert out.startswith("double differs from itself in 0 % of 80 answers (0 to ")
    assert out.endswith(
        "shadow-report compare --noise-floor auto, or "
        'make report ARGS="--noise-floor auto", judges what exceeds that.\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_noise_of_a_few_requests_says_how_many_it_takes(postgres_uri: str, tmp_path: Path) -> None:
    """Below them a comparison takes nothing off."""
    store(postgres_uri, 5)
    primary = Candidate(postgres_uri, service="double", role="primary")
    with serving(primary):
        _, out, _ = finished(command(postgres_uri, tmp_path, "--to", primary.url, "--itself"))
    assert out.endswith("judges what exceeds that, from 20 different requests on.\n")


def test_a_killed_replay_sends_every_call(postgres_uri: str, tmp_path: Path) -> None:
    """After kill -9 the tables tell which calls were answered; the others are sent."""
    store(postgres_uri, 90)
    with serving(Candidate(postgres_uri)) as candidate:
        running = command(postgres_uri, tmp_path, "--to", candidate.url, "--rate", "20/s")
        while len(candidate.arrived) < 40 and running.poll() is None:
            time.sleep(0.02)
        running.kill()
        finished(running)
        before = len(candidate.arrived)
        code, out, _ = finished(command(postgres_uri, tmp_path, "--to", candidate.url, "--resume"))
    assert 40 <= before < 90
    # Only what was under way, and not recorded yet, may come twice.
    assert set(candidate.pair_ids) == {f"p{i}" for i in range(90)}
    assert len(candidate.arrived) <= 90 + 8
    assert "90 compared" in out
    # More than 1 in 100 repeated calls make the evidence unsound.
    assert code == (12 if len(candidate.arrived) > 90 else 11)


def test_ctrl_c_keeps_the_place(postgres_uri: str, tmp_path: Path) -> None:
    """Ctrl-C lets the calls under way end and says how to go on; every call is sent once."""
    store(postgres_uri, 90)
    with serving(Candidate(postgres_uri, delay_seconds=0.02)) as candidate:
        options = ("--to", candidate.url, "--rate", "30/s")
        running = command(postgres_uri, tmp_path, *options)
        while len(candidate.arrived) < 5 and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        code, _, errors = finished(running)
        assert code == 130
        assert "Traceback" not in errors
        assert "--resume" in errors
        assert 5 <= len(candidate.arrived) < 90

        # Starting anew would send calls twice: it has to be said.
        with pytest.raises(SettingWrong, match="--resume, or delete the file"):
            asked_of(postgres_uri, tmp_path, state_file="shadow-replay.json")

        code, out, errors = finished(
            command(postgres_uri, tmp_path, "--to", candidate.url, "--resume")
        )
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(90))
    assert "90 calls answered." in errors
    assert "90 compared" in out
    assert code == 11


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--to", "http://127.0.0.1:1"), 1, "does not answer"),
        (("--to", "127.0.0.1"), 2, "--to is"),
        (("--to", "http://127.0.0.1:1", "--resume"), 1, "no unfinished replay"),
    ],
)
def test_failures_are_one_line(
    postgres_uri: str, tmp_path: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    """What, where and what to do, without a traceback."""
    store(postgres_uri, 12)
    returned, out, errors = finished(command(postgres_uri, tmp_path, *options))
    assert words in errors
    assert (returned, out) == (code, "")
    assert len(errors.splitlines()) == 1


def asked_of(uri: str, folder: Path, state_file: str = "state.json", **fields: object) -> int:
    """A replay in this process to an address where nothing listens."""
    plan = replace(plan_to("http://127.0.0.1:1", folder / state_file), **fields)
    return asyncio.run(replay(as_role(uri, "report"), plan))


def test_says_which_calls_there_are(
    postgres_uri: str, empty_postgres_uri: str, tmp_path: Path
) -> None:
    """No schema, no calls, no such primary, several primaries: each with the remedy."""
    with pytest.raises(OneLineError, match="make schema"):
        asked_of(empty_postgres_uri, tmp_path)
    with pytest.raises(OneLineError, match="no primary calls in this window"):
        asked_of(postgres_uri, tmp_path)
    store(postgres_uri, 3)
    with pytest.raises(OneLineError, match="there are calls of double"):
        asked_of(postgres_uri, tmp_path, primary="other")
    store(postgres_uri, 3, service="other")
    with pytest.raises(OneLineError, match="choose one of double, other with --primary"):
        asked_of(postgres_uri, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_candidate_that_records_nothing_is_invalid(
    postgres_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It says what is missing, and the comparison is INVALID."""
    monkeypatch.setattr("shadow_report.replay.run.RECORDS_SECONDS", 1.0)
    monkeypatch.setattr("shadow_report.replay.run.TRIAL_SECONDS", 1.0)
    store(postgres_uri, 12)
    with serving(Candidate(None)) as candidate:
        plan = plan_to(candidate.url, tmp_path / "state.json")
        uri = as_role(postgres_uri, "report")
        code = asyncio.run(replay(uri, plan))
    out, errors = capfd.readouterr()
    assert code == 12
    assert "SHADOW_ROLE=shadow" in " ".join(errors.split())
    assert out.startswith(" INVALID ")


def test_resume_to_another_address_is_refused(postgres_uri: str, tmp_path: Path) -> None:
    """A replay that is half with one candidate and half with another would prove nothing."""
    store(postgres_uri, 12)
    state = tmp_path / "state.json"
    plan = plan_to("http://127.0.0.1:1", state)
    uri = as_role(postgres_uri, "report")
    with pytest.raises(RuntimeError, match="does not answer"):
        asyncio.run(replay(uri, plan))
    elsewhere = replace(plan.candidate, target=parse_target("http://127.0.0.1:2"))
    other = replace(plan, candidate=elsewhere)
    with pytest.raises(ValueError, match="resume with that address"):
        asyncio.run(replay(uri, replace(other, resume=True)))
    state.write_text("{}")
    with pytest.raises(RuntimeError, match="is not the state of a replay"):
        asyncio.run(replay(uri, replace(plan, resume=True)))
