"""The served verdict, as a plain HTTP client, Flagger, Argo Rollouts and Prometheus ask for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import psycopg
import pytest
from traffic import PRIMARY, SHADOW, Call, pair, pairs, record

from embedded_postgres import Postgres, as_role
from shadow_report.compare import compare
from shadow_report.live.metrics import HELP
from shadow_report.settings import Comparison

WRONG = '{"predictions": [9.9, 186.9, 972.0]}'
PATIENCE_SECONDS = 180


@dataclass
class Served:
    """A running `shadow-report serve`."""

    process: subprocess.Popen[str]
    url: str

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of a GET, or of a POST when there is a body."""
        headers = {"content-type": "application/json"} if body is not None else {}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def until(self, path: str, wanted: Callable[[int, Any], bool]) -> tuple[int, Any]:
        """The first answer that is as wanted; text unless it is JSON."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, text = self.ask(path)
            found = json.loads(text) if text.startswith(b"{") else text.decode()
            if wanted(status, found):
                return status, found
            assert time.monotonic() < deadline, (status, found)
            assert self.process.poll() is None
            time.sleep(0.1)


@contextmanager
def serving(uri: str, *options: str, **environment: str) -> Iterator[Served]:
    """Served on a port that is free, and looked at once."""
    command = [sys.executable, "-m", "shadow_report", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command,
        env={**os.environ, "POSTGRES_URI": uri, "SERVE_EVERY": "0.2s"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving: http://127.0.0.1:"), line
        served = Served(process, line.removeprefix("serving: ").strip().rstrip("/"))
        served.until("/ready", lambda status, _: status == 200)
        yield served
    finally:
        process.kill()
        process.communicate()


VERDICTS: dict[str, tuple[int, Callable[[], list[Call]]]] = {
    "PROMOTE": (200, lambda: pairs(5000)),
    "REJECT": (412, lambda: pairs(1000, shadow={"answer": WRONG})),
    "WAIT": (425, lambda: pairs(50)),
    "INVALID": (422, list),
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_gate_opens_on_promote_only(postgres_uri: str, verdict: str) -> None:
    """200 on PROMOTE and a 4xx of its own for each other verdict, by GET as by POST, with JSON that
    says why; /verdict.json is the report of `compare`.
    """
    status, calls = VERDICTS[verdict]
    record(postgres_uri, calls())
    uri = as_role(postgres_uri, "report")
    with serving(uri) as served:
        asked_by_flagger = json.dumps(
            {"name": "model", "namespace": "prod", "phase": "Progressing", "metadata": {}}
        ).encode()
        for found_status, text in (served.ask("/gate"), served.ask("/gate", asked_by_flagger)):
            found = json.loads(text)
            assert (found_status, found["verdict"]) == (status, verdict)
            assert found["reasons"]
            assert found["age_seconds"] >= 0
        found_status, text = served.ask("/verdict.json")
        document = json.loads(text)
        assert (found_status, document["verdict"]) == (200, verdict)
        report = compare(uri, Comparison())
        assert document["pairs"] == report.pairs
        assert {gate["name"] for gate in document["gates"]} == {g.name for g in report.gates}


def test_new_calls_change_the_verdict_by_themselves(postgres_uri: str) -> None:
    """WAIT becomes PROMOTE, and a shadow that turns bad REJECT, without a restart."""
    record(postgres_uri, pairs(50))
    with serving(as_role(postgres_uri, "report")) as served:
        assert served.ask("/gate")[0] == 425
        record(postgres_uri, numbered(pairs(5000, first=50), 50))
        served.until("/gate", lambda status, _: status == 200)
        record(postgres_uri, numbered(pairs(500, first=5050, shadow={"answer": WRONG}), 5050))
        _, found = served.until("/gate", lambda status, _: status == 412)
    assert found["candidate"] == SHADOW


def numbered(calls: list[Call], first: int) -> list[Call]:
    return [replace(call, sequence=first + i // 2 + 1) for i, call in enumerate(calls)]


def test_it_comes_back_after_a_kill_with_the_same_verdict(postgres_uri: str) -> None:
    """All that it knows is in the tables."""
    record(postgres_uri, pairs(5000))
    uri = as_role(postgres_uri, "report")
    for _ in range(2):
        with serving(uri) as served:
            served.until("/gate", lambda status, _: status == 200)
            served.process.kill()


def test_a_database_that_is_away_leaves_the_verdict_and_then_wait(own_postgres: Postgres) -> None:
    """The last verdict stands with its age, past the limit the gate says WAIT and why, and once
    the database is back so is the verdict.
    """
    record(own_postgres.uri, pairs(5000))
    with serving(as_role(own_postgres.uri, "report"), "--max-age", "10s") as served:
        served.until("/gate", lambda status, _: status == 200)
        own_postgres.stop()
        try:
            served.until("/metrics", lambda _, text: "shadow_database_up 0.0" in text)
            _, found = served.until("/gate", lambda status, _: status == 425)
            assert "PROMOTE" in found["reasons"][0]
            assert "does not answer" in found["reasons"][1]
            assert found["age_seconds"] > 10
            assert json.loads(served.ask("/verdict.json")[1])["verdict"] == "WAIT"
            assert b"does not answer" in served.ask("/")[1]
            assert served.ask("/ready")[0] == served.ask("/live")[0] == 200
        finally:
            own_postgres.start()
        served.until("/gate", lambda status, _: status == 200)


def test_prometheus_reads_where_the_candidate_stands(postgres_uri: str) -> None:
    """Each figure of the gates, the evidence and the looks, by candidate."""
    record(postgres_uri, pairs(499) + pair(499, {"status": None}, {"status": None}))
    with serving(as_role(postgres_uri, "report"), "--slo-ms", "100") as served:
        _, text = served.ask("/metrics")
    lines = text.decode().splitlines()
    for sample in (
        f'shadow_verdict{{candidate="{SHADOW}",verdict="WAIT"}} 1.0',
        f'shadow_verdict{{candidate="{SHADOW}",verdict="PROMOTE"}} 0.0',
        f'shadow_pairs{{candidate="{SHADOW}"}} 500.0',
        f'shadow_coverage_ratio{{candidate="{SHADOW}"}} 1.0',
        f'shadow_effective_pairs{{candidate="{SHADOW}",gate="faults"}} 500.0',
        f'shadow_gate_estimate{{candidate="{SHADOW}",gate="slow"}} 0.0',
        f'shadow_gate_margin{{candidate="{SHADOW}",gate="disagreement"}} 0.01',
        f'shadow_gate_status{{candidate="{SHADOW}",gate="coverage",status="pass"}} 1.0',
        f'shadow_lost_records{{candidate="{SHADOW}",role="shadow"}} 0.0',
        f'shadow_unanswered_calls{{candidate="{SHADOW}",role="primary"}} 1.0',
        f'shadow_unpaired_calls{{candidate="{SHADOW}"}} 0.0',
        "shadow_database_up 1.0",
        'shadow_looks_total{kind="rebuilt"} 1.0',
    ):
        assert sample in lines
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    without = HELP.keys() - names
    assert not without, f"live/metrics.py never gives {without} a value"
    assert "shadow_look_seconds" in names


def test_calls_without_a_shadow_are_in_the_gate_and_in_no_pair(postgres_uri: str) -> None:
    """As the help of the metric says of the two figures."""
    alone = [call for call in pairs(100, first=300) if call.role == "primary"]
    record(postgres_uri, [*pairs(300), *alone, *pairs(100, first=400)])
    with serving(as_role(postgres_uri, "report")) as served:
        lines = served.ask("/metrics")[1].decode().splitlines()
    assert f'shadow_new_faults{{candidate="{SHADOW}"}} 0.0' in lines
    assert f'shadow_gate_estimate{{candidate="{SHADOW}",gate="faults"}} 0.2' in lines
    assert f"# HELP shadow_new_faults {HELP['shadow_new_faults']}" in lines
    assert "has no record of" in HELP["shadow_new_faults"]


def test_calls_that_wait_for_a_follower_are_counted(postgres_uri: str) -> None:
    """A follower that died or was stopped leaves the verdict of what it sent, and the rest waits:
    page, JSON and metrics say how much.
    """
    sent = {"headers": {"x-shadow-source": "follow"}, "source": "generated"}
    record(postgres_uri, pairs(50, source="generated", shadow=sent))
    alone = [call for call in pairs(30, first=50, source="generated") if call.role == "primary"]
    record(postgres_uri, numbered(alone, 50))
    with serving(as_role(postgres_uri, "report")) as served:
        document = json.loads(served.ask("/verdict.json")[1])
        assert (document["pairs"], document["waiting_calls"]) == (50, 30)
        assert b" 30 calls not sent to the shadow yet" in served.ask("/")[1]
        sample = f'shadow_waiting_calls{{candidate="{SHADOW}"}} 30.0'
        assert sample in served.ask("/metrics")[1].decode().splitlines()


def test_several_candidates_have_a_verdict_each(postgres_uri: str) -> None:
    """Each is asked for by its name; who names none at the gate is told the names."""
    other = "quadruple-minimal-inference"
    record(postgres_uri, pairs(6000))
    itself = {"service": other, "answer": WRONG, "recorder": uuid.UUID(int=3)}
    record(postgres_uri, [c for c in pairs(6000, shadow=itself) if c.role == "shadow"])
    with serving(as_role(postgres_uri, "report"), "--shadow", f"{SHADOW},{other}") as served:
        assert served.ask(f"/gate?candidate={SHADOW}")[0] == 200
        assert served.ask(f"/gate?candidate={other}")[0] == 412
        status, text = served.ask("/gate")
        assert status == 400
        assert SHADOW in text.decode()
        assert served.ask("/gate?candidate=nobody")[0] == 404
        page = served.ask("/")[1].decode()
        assert f'href="?candidate={other}"' in page
        document = json.loads(served.ask(f"/verdict.json?candidate={other}")[1])
        assert (document["primary"]["service"], document["settings"]["alpha"]) == (PRIMARY, 0.025)


def test_a_version_that_has_no_calls_yet_waits(postgres_uri: str) -> None:
    """After a rollout the verdict is the former version's until a call of the new one came: who
    names the version that he rolls out is not told to promote another one.
    """
    record(postgres_uri, pairs(4000, shadow={"version": "2026"}))
    with serving(as_role(postgres_uri, "report")) as served:
        status, text = served.ask("/gate?version=2026")
        assert (status, json.loads(text)["version"]) == (200, "2026")
        status, text = served.ask(f"/gate?candidate={SHADOW}&version=2027")
        assert status == 425
        (reason,) = json.loads(text)["reasons"]
        assert reason == (
            "Asked about version 2027; the calls judged are of 2026. The first call that the "
            "shadow records as 2027 changes that; if none comes, see manifests/README.md at When "
            "no pair arrives."
        )
        document = json.loads(served.ask("/verdict.json?version=2027")[1])
        assert (document["verdict"], document["reasons"]) == ("WAIT", [reason])
        assert reason.encode() in served.ask("/?version=2027")[1]
        assert reason.encode() not in served.ask("/")[1]


def test_a_version_among_others_waits(postgres_uri: str) -> None:
    """Judged with another one's calls, it is not judged; later calls alone would be."""
    former = pairs(40, shadow={"version": "2026"})
    record(postgres_uri, [*former, *pairs(40, first=40, shadow={"version": "2027"})])
    with serving(as_role(postgres_uri, "report")) as served:
        status, text = served.ask("/gate?version=2027")
        answer = json.loads(text)
        assert (status, answer["version"]) == (425, None)
        (reason,) = answer["reasons"]
        assert reason.startswith("Asked about version 2027; the calls judged are of 2026 and 2027.")
        assert reason.endswith("since its rollout alone: --since.")


def test_calls_of_a_new_version_end_the_verdict_of_the_one_before(postgres_uri: str) -> None:
    """As soon as a look knows of them: to count them from the start may have to wait. Who asks
    without a version is not told to promote a former one.
    """
    record(postgres_uri, pairs(4000, shadow={"version": "2026"}))
    with ExitStack() as stack:
        with psycopg.connect(postgres_uri) as holder:
            # The first count takes three seconds, so the next begins no sooner than 27 later.
            holder.execute("LOCK inference_requests IN ACCESS EXCLUSIVE MODE")
            Timer(3, holder.commit).start()
            uri = as_role(postgres_uri, "report")
            served = stack.enter_context(serving(uri, "--settle", "0s"))
        assert served.ask("/gate")[0] == 200
        now = datetime.now(UTC)
        new = numbered(pairs(20, first=4000, shadow={"version": "2027"}), 4000)
        record(postgres_uri, [replace(call, time=now) for call in new])
        status, found = served.until("/gate", lambda status, _: status != 200)
        said = re.compile(
            f"The last verdict, PROMOTE, is of the calls before: the shadow {SHADOW}, version 2027,"
            " has calls of a new kind. The next one comes in about [0-9]+ s, once all calls have"
            " been counted from the start."
        )
        (reason,) = found["reasons"]
        assert said.fullmatch(reason)
        assert (status, found["version"]) == (425, "2026")
        (reason,) = json.loads(served.ask("/gate?version=2026")[1])["reasons"]
        assert said.fullmatch(reason)
        assert said.search(served.ask("/")[1].decode())
        document = json.loads(served.ask("/verdict.json")[1])
        assert document["verdict"] == "WAIT"
        assert said.fullmatch(document["reasons"][0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(postgres_uri: str, number: int) -> None:
    """At once and without an error, also in the middle of a look."""
    with serving(as_role(postgres_uri, "report")) as served:
        served.process.send_signal(number)
        assert served.process.wait(timeout=120) == 0


def test_a_port_that_is_taken_is_named(postgres_uri: str, tmp_path: Path) -> None:
    """One line with the remedy, exit code 1."""
    uri = as_role(postgres_uri, "report")
    with serving(uri) as served:
        port = served.url.rsplit(":", 1)[1]
        run = subprocess.run(
            [sys.executable, "-m", "shadow_report", "serve"],
            env={**os.environ, "POSTGRES_URI": uri, "SERVE_PORT": port},
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 1
    assert f"127.0.0.1:{port} cannot be served" in run.stderr
    assert "choose another --port" in run.stderr


def test_the_read_only_role_is_enough(postgres_uri: str) -> None:
    """And no lock is held between two looks."""
    record(postgres_uri, pairs(20))
    with serving(as_role(postgres_uri, "report")) as served:
        served.until("/metrics", lambda _, text: 'shadow_looks_total{kind="added"} 0.0' not in text)
        with psycopg.connect(postgres_uri, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '120s'")
            connection.execute("ALTER TABLE inference_requests ADD COLUMN of_tomorrow integer")
        served.until("/gate", lambda status, _: status == 425)
