"""`shadow-report follow` against real HTTP and gRPC candidates and a real Postgres."""

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError

import grpc
import psycopg
import pytest
from candidate import Candidate, record, serving, store
from prometheus_client import generate_latest
from served import held_port

from embedded_postgres import as_role
from shadow_report import OneLineError, SettingWrong
from shadow_report.evidence.batch import CUT_REQUEST, REDACTED_REQUEST
from shadow_report.evidence.database import Duplicates, Scope, open_tables
from shadow_report.replay import delivered
from shadow_report.replay import follow as module
from shadow_report.replay.calls import parse_target, sql
from shadow_report.replay.candidate import Candidate as Address
from shadow_report.replay.candidate import Connection
from shadow_report.replay.delivered import FIRST_RECORD, PAGE, DeliveredCalls, Place, Window
from shadow_report.replay.follow import Follower, Plan, parse_part
from shadow_report.replay.metrics import served

BODY = b'{"values": ["1.5"]}'
LONG_AGO = datetime(2026, 11, 1, tzinfo=UTC)
AN_HOUR = timedelta(hours=1)
numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order of things in a tenth of the time."""
    for name, seconds in {
        "POLL_SECONDS": 0.02,
        "SETTLE_SECONDS": 0.3,
        "LONG_LOOK_SECONDS": 0.5,
        "FIRST_PROBE_SECONDS": 0.05,
        "PROBE_SECONDS": 0.2,
        "TRIAL_SECONDS": 1.0,
    }.items():
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(module, "OVERLAP", timedelta(seconds=0.2))


@pytest.fixture
def port() -> Iterator[int]:
    """A candidate's, also while there is none."""
    with held_port() as port:
        yield port


def plan(to: str, **fields: object) -> Plan:
    address = {"grpc": None, "concurrency": 4, "timeout_seconds": 60.0}
    address |= {name: fields.pop(name) for name in address.keys() & fields.keys()}
    candidate = Address(target=parse_target(to), source="follow", **address)  # type: ignore[arg-type]
    return Plan(candidate=candidate, **{"since": LONG_AGO} | fields)  # type: ignore[arg-type]


def named(caplog: pytest.LogCaptureFixture, pair_id: str) -> str:
    """The line that names a call, and says when it came."""
    (line,) = (said for said in caplog.messages if said.startswith(f"Call {pair_id} of 20"))
    return line


def call(uri: str, pair_id: str, **fields: object) -> None:
    """One recorded call of the primary."""
    usual: dict[str, object] = {"role": "primary", "sequence": next(numbers), "body": BODY}
    with psycopg.connect(uri) as connection:
        record(connection, pair_id=pair_id, **usual | fields)  # type: ignore[arg-type]


async def until(happened: Callable[[], bool]) -> None:
    """Return once it has happened; the bound is generous."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)


def followed(
    uri: str, plan: Plan, drive: Callable[[Follower], Awaitable[None]] | None = None
) -> Follower:
    """Follow while `drive` runs, as the role report; without it, to the plan's end."""
    reading = uri if "report@" in uri else as_role(uri, "report")

    async def main() -> Follower:
        async with Connection(plan.candidate) as connection:
            follower = Follower(reading, plan, connection)
            running = asyncio.create_task(follower.run())
            if drive is not None:
                driving = asyncio.ensure_future(drive(follower))
                await asyncio.wait((running, driving), return_when=asyncio.FIRST_COMPLETED)
                follower.stop()
                driving.cancel() if not driving.done() else driving.result()
            await running
            return follower

    return asyncio.run(main())


def now() -> datetime:
    return datetime.now(UTC)


def test_new_calls_are_sent_as_they_are_delivered(postgres_uri: str) -> None:
    """Each once, under its pair id, told apart from mirrored ones; then nothing lags."""
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(follower: Follower) -> None:
            for i in range(30):
                call(postgres_uri, f"p{i}")
                await until(lambda i=i: len(candidate.arrived) > i)  # type: ignore[misc]
            await until(lambda: follower.lag_seconds() == 0)

        follower = followed(postgres_uri, plan(candidate.url), drive)
    assert candidate.pair_ids == [f"p{i}" for i in range(30)]
    assert {headers["x-shadow-source"] for _, _, headers in candidate.arrived} == {"follow"}
    assert follower.metrics.summary() == "30 calls answered."
    with psycopg.connect(postgres_uri) as connection:
        marks = connection.execute(
            "SELECT DISTINCT request_headers->>'x-shadow-source' FROM inference_requests"
            " WHERE role = 'shadow'"
        ).fetchall()
    assert marks == [("follow",)]


@pytest.mark.parametrize("in_order", [False, True])
def test_what_is_there_is_sent_to_the_end(postgres_uri: str, in_order: bool) -> None:
    """With an end it stops by itself; yesterday's calls tonight, one after the other if asked."""
    store(postgres_uri, 60)
    with serving(Candidate(postgres_uri)) as candidate:
        follower = followed(postgres_uri, plan(candidate.url, until=now(), in_order=in_order))
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(60))
    assert candidate.most_at_once == (1 if in_order else candidate.most_at_once)
    assert candidate.most_at_once <= 4
    assert follower.metrics.summary() == "60 calls answered."


def test_the_tables_alone_say_what_is_done(postgres_uri: str) -> None:
    """A follower that starts again sends what has no answer of this candidate, and nothing else."""
    store(postgres_uri, 20)
    store(postgres_uri, 20, role="shadow", service="another-shadow")
    for i in range(0, 20, 2):
        call(postgres_uri, f"p{i}", role="shadow", service="candidate")
    with serving(Candidate(postgres_uri)) as candidate:
        asked = plan(candidate.url, until=now(), shadow="candidate")
        followed(postgres_uri, asked)
        assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(1, 20, 2))
        followed(postgres_uri, asked)
    assert len(candidate.arrived) == 10


def test_without_a_start_it_goes_on_from_the_candidates_first_call(postgres_uri: str) -> None:
    """Calls before the candidate's first one are not followed, later ones are."""
    began = now() - timedelta(hours=2)
    for i in range(20):
        call(postgres_uri, f"p{i}", time=began + timedelta(minutes=i))
    call(postgres_uri, "p10", role="shadow", service="candidate")
    with serving(Candidate(postgres_uri)) as candidate:
        followed(postgres_uri, plan(candidate.url, since=None, until=now()))
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(11, 20))


def test_late_deliveries_are_sent(postgres_uri: str) -> None:
    """What a stuck recorder delivers hours later is behind in time and not passed over."""
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(_: Follower) -> None:
            call(postgres_uri, "fresh")
            await until(lambda: len(candidate.arrived) == 1)
            call(postgres_uri, "late", time=now() - timedelta(hours=5))
            await until(lambda: len(candidate.arrived) == 2)

        followed(postgres_uri, plan(candidate.url), drive)
    assert candidate.pair_ids == ["fresh", "late"]


def test_a_delivery_that_takes_long_is_seen_at_its_end(postgres_uri: str) -> None:
    """Rows of a transaction that ends after later ones were read are sent all the same."""
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(_: Follower) -> None:
            with psycopg.connect(postgres_uri) as slow:
                record(slow, role="primary", sequence=1, pair_id="slow", body=BODY)
                await asyncio.sleep(1)  # longer than OVERLAP here
                call(postgres_uri, "quick")
                await until(lambda: len(candidate.arrived) == 1)
                await asyncio.sleep(0.5)
            await until(lambda: len(candidate.arrived) == 2)

        followed(postgres_uri, plan(candidate.url), drive)
    assert candidate.pair_ids == ["quick", "slow"]


def test_a_candidate_that_is_down_costs_nothing(postgres_uri: str, port: int) -> None:
    """Calls wait; when it is there again each is answered once."""
    candidate = Candidate(postgres_uri)

    async def drive(follower: Follower) -> None:
        for i in range(10):
            call(postgres_uri, f"p{i}")
        await until(lambda: b"candidate_ready 0.0" in metrics_of(follower))
        await until(lambda: follower.lag_seconds() > 0.5)
        with serving(candidate, port):
            await until(lambda: len(candidate.arrived) == 10)
            await until(lambda: follower.lag_seconds() == 0)
        for i in range(10, 20):
            call(postgres_uri, f"p{i}")
        await asyncio.sleep(0.5)
        with serving(candidate, port):
            await until(lambda: len(candidate.arrived) == 20)
            await until(lambda: follower.lag_seconds() == 0)

    follower = followed(postgres_uri, plan(f"http://127.0.0.1:{port}"), drive)
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(20))
    assert follower.metrics.summary() == "20 calls answered."


def metrics_of(follower: Follower) -> bytes:
    return generate_latest(follower.metrics.registry)


def test_answers_of_a_gateway_are_not_the_candidates(postgres_uri: str) -> None:
    """A 503 that nobody recorded is not an answer; the call is sent again to a ready candidate."""
    store(postgres_uri, 8)
    candidate = Candidate(None, status_of=lambda number: 503 if number <= 4 else 200, together=4)
    candidate.is_ready = False
    with serving(candidate):

        async def drive(follower: Follower) -> None:
            await until(lambda: len(candidate.arrived) == 4)
            await asyncio.sleep(0.5)
            assert len(candidate.arrived) == 4  # nothing more is sent to a candidate that is down
            candidate.uri = postgres_uri
            candidate.is_ready = True
            await until(lambda: follower.lag_seconds() == 0)

        follower = followed(postgres_uri, plan(candidate.url), drive)
    assert Counter(candidate.pair_ids).total() == 12
    assert set(candidate.pair_ids) == {f"p{i}" for i in range(8)}
    assert follower.metrics.summary() == "8 calls answered."


def test_a_recorded_503_is_an_answer(postgres_uri: str) -> None:
    """Evidence like any other, and not asked for twice."""
    store(postgres_uri, 8)
    with serving(Candidate(postgres_uri, status_of=lambda _: 503)) as candidate:
        follower = followed(postgres_uri, plan(candidate.url, until=now()))
    assert len(candidate.arrived) == 8
    assert follower.metrics.summary() == "8 calls answered (8 with an error status)."


def test_a_call_that_breaks_the_candidate_is_given_up(
    postgres_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After five attempts with a candidate that is ready; it is counted and named."""
    call(postgres_uri, "poison", body=b'{"values": ["666"]}')
    call(postgres_uri, "good")
    candidate = Candidate(postgres_uri)
    candidate.breaks_on = b"666"
    with serving(candidate):
        follower = followed(postgres_uri, plan(candidate.url, until=now()))
    assert Counter(candidate.pair_ids) == {"poison": 5, "good": 1}
    assert follower.metrics.summary() == "1 calls answered; 1 without an answer."
    assert "UTC stays without a pair: no answer 5 times" in named(caplog, "poison")


def test_an_answer_whose_record_is_lost_is_asked_for_once_more(
    postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that goes takes its spool with it; a candidate that never records is not asked on."""
    monkeypatch.setattr(module, "LOST_SECONDS", 3.0)
    call(postgres_uri, "lost")
    with serving(Candidate(None)) as candidate:

        async def drive(follower: Follower) -> None:
            await until(lambda: len(candidate.arrived) == 1)
            candidate.uri = postgres_uri
            await until(lambda: len(candidate.arrived) == 2)
            await until(lambda: not follower.unconfirmed)
            candidate.uri = None
            call(postgres_uri, "never")
            await until(lambda: "not recorded" in follower.metrics.summary())

        follower = followed(postgres_uri, plan(candidate.url), drive)
    assert candidate.pair_ids == ["lost", "lost", "never", "never"]
    assert follower.metrics.summary() == "2 calls answered; 1 not recorded."


def test_what_cannot_be_sent_again_is_counted_and_named(
    postgres_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut, redacted, gRPC without an address, a header of two lines: never guessed."""
    call(postgres_uri, "cut", cut=True, as_json=False)
    call(postgres_uri, "redacted", body=b'{"values": "[redacted]"}')
    call(postgres_uri, "wire", protocol="grpc", as_json=False)
    call(postgres_uri, "two\nlines")
    call(postgres_uri, "fine")
    with serving(Candidate(postgres_uri)) as candidate:
        follower = followed(postgres_uri, plan(candidate.url, until=now()))
    assert candidate.pair_ids == ["fine"]
    assert follower.metrics.summary() == (
        "1 calls answered; 1 skipped: body cut; 1 skipped: body redacted; "
        "1 skipped: gRPC, without --to-grpc; 1 skipped: header that cannot be sent."
    )
    assert named(caplog, "redacted").endswith("UTC stays without a pair: body redacted.")
    assert b'shadow_follow_skipped_total{reason="body cut"} 1.0' in metrics_of(follower)


def test_bodies_arrive_as_they_were(postgres_uri: str) -> None:
    """From none to 8 MB, JSON or not, byte for byte."""
    bodies = {
        "none": b"",
        "binary": bytes(range(256)),
        "large": b'{"values": ["1"], "padding": "' + b"x" * 2**20 + b'"}',
        "huge": random.Random(5).randbytes(8_000_000),
    }
    for name, body in bodies.items():
        headers = {"content-type": "application/octet-stream"} if name != "large" else {}
        call(postgres_uri, name, body=body, as_json=name == "large", headers=headers)
    with serving(Candidate(postgres_uri)) as candidate:
        followed(postgres_uri, plan(candidate.url, until=now()))
    assert {h["x-shadow-pair-id"]: body for _, body, h in candidate.arrived} == bodies


def test_followers_share_the_calls(postgres_uri: str) -> None:
    """Three followers send each call once; each has its own by pair id."""
    store(postgres_uri, 90)
    parts = []
    for number in (1, 2, 3):
        with serving(Candidate(postgres_uri)) as candidate:
            followed(postgres_uri, plan(candidate.url, until=now(), share=(number, 3)))
        parts.append(set(candidate.pair_ids))
    assert sum(map(len, parts)) == len(set.union(*parts)) == 90
    assert min(map(len, parts)) > 15


def test_no_more_at_once_and_no_faster_than_asked(postgres_uri: str) -> None:
    """A ceiling on open calls, which is reached."""
    store(postgres_uri, 30)
    with serving(Candidate(postgres_uri, together=3)) as candidate:
        asked = plan(candidate.url, until=now(), concurrency=3, rate=1000.0)
        followed(postgres_uri, asked)
    assert candidate.most_at_once == 3


@pytest.mark.parametrize("role", ["primary", "shadow"])
def test_several_services_have_to_be_chosen_from(postgres_uri: str, role: str) -> None:
    """Nothing is sent on a guess."""
    store(postgres_uri, 3)
    for service in ("one", "two"):
        call(postgres_uri, "p1", role=role, service=service)
    refused = pytest.raises(OneLineError, match=f"choose one with --{role}")
    with serving(Candidate(postgres_uri)) as candidate, refused:
        followed(postgres_uri, plan(candidate.url, until=now()))
    assert candidate.arrived == []


def test_a_candidate_that_records_as_primary_gets_one_call(postgres_uri: str) -> None:
    """Promoted, and nobody has called it since: what it was sent is named, and ends it."""
    store(postgres_uri, 50)
    refused = pytest.raises(OneLineError, match=r"candidate has recorded call p\d+.* as primary;")
    with serving(Candidate(postgres_uri, role="primary")) as candidate, refused:
        followed(postgres_uri, plan(candidate.url, shadow="candidate", until=now()))
    assert len(candidate.arrived) == 1


def test_the_primary_itself_is_not_followed(postgres_uri: str) -> None:
    """A wrong --to: its own rows are told from the calls that were sent to it by their header."""
    store(postgres_uri, 50)
    refused = pytest.raises(OneLineError, match=r"double has recorded call .* as primary;")
    wrong = Candidate(postgres_uri, role="primary", service="double")
    with serving(wrong) as candidate, refused:
        followed(postgres_uri, plan(candidate.url, primary="double", until=now()))
    assert len(candidate.arrived) == 1


def test_what_others_follow_into_a_primary_ends_no_follower_of_another(postgres_uri: str) -> None:
    """Each of its calls was sent to the primary too, by somebody's mistake."""
    store(postgres_uri, 20)
    with serving(Candidate(postgres_uri)) as candidate:
        began = now()
        for i in range(20):
            sent = {"x-shadow-source": "follow"}
            call(postgres_uri, f"p{i}", service="double", headers=sent)
        with psycopg.connect(postgres_uri) as connection:
            # As if they came while this one follows.
            later = "UPDATE inference_requests SET created_at = now() + interval '1 minute'"
            connection.execute(f"{later} WHERE request_headers ->> 'x-shadow-source' = 'follow'")
        asked = plan(candidate.url, primary="double", shadow="candidate", until=began)
        followed(postgres_uri, asked)
    assert len(candidate.arrived) == 20


def test_who_answers_callers_is_sent_nothing(postgres_uri: str) -> None:
    """The tables say so before the first call, from the newest call that a primary has recorded."""
    store(postgres_uri, 20)
    call(postgres_uri, "promoted", service="candidate")
    refused = pytest.raises(OneLineError, match="candidate answers callers")
    with serving(Candidate(postgres_uri, role="primary")) as candidate, refused:
        asked = plan(candidate.url, primary="double", shadow="candidate", until=now())
        followed(postgres_uri, asked)
    assert candidate.arrived == []


@pytest.mark.parametrize("has_callers", [True, False])
def test_after_the_way_back_it_is_followed_again(postgres_uri: str, has_callers: bool) -> None:
    """Its rows as primary are history once another one answers, or nobody has called for minutes;
    so are those of calls that were sent to it meanwhile.
    """
    store(postgres_uri, 20)
    for pair_id in ("p1", "p2", "promoted"):
        call(postgres_uri, pair_id, service="candidate", headers={"x-shadow-source": "follow"})
    if has_callers:
        call(postgres_uri, "p20", service="double")
    else:
        with psycopg.connect(postgres_uri) as connection:
            connection.execute("UPDATE inference_requests SET created_at = now() - %s", [AN_HOUR])
    with serving(Candidate(postgres_uri)) as candidate:
        asked = plan(candidate.url, primary="double", shadow="candidate", until=now())
        followed(postgres_uri, asked)
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(20 + has_callers))


def test_a_candidate_that_is_promoted_meanwhile_ends_it(postgres_uri: str) -> None:
    """A Job outlives the stage that suspends its CronJob."""
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(follower: Follower) -> None:
            for i in itertools.count():
                call(postgres_uri, f"p{i}")
                await until(lambda i=i: len(candidate.arrived) > i)  # type: ignore[misc]
                if i == 10:
                    candidate.role = "primary"

        asked = plan(candidate.url, primary="double", shadow="candidate")
        with pytest.raises(OneLineError, match="as primary; nothing more is sent"):
            followed(postgres_uri, asked, drive)
    assert len(candidate.arrived) > 10


def test_missing_tables_are_one_line(empty_postgres_uri: str) -> None:
    """What will never answer ends it, with the remedy."""
    with pytest.raises(OneLineError, match="make schema"):
        followed(empty_postgres_uri, plan("http://127.0.0.1:1"))


@pytest.mark.parametrize(("text", "part"), [("1/1", (1, 1)), (" 2/3 ", (2, 3))])
def test_parts(text: str, part: tuple[int, int]) -> None:
    assert parse_part(text) == part


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "-1/2", "a/b"])
def test_no_parts(text: str) -> None:
    """Anything else is a usage error that shows the right form."""
    with pytest.raises(SettingWrong, match="write 1/3, 2/3 and 3/3"):
        parse_part(text)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_and_readiness(postgres_uri: str) -> None:
    """Ready once the tables were read; /metrics has the lag and the counts."""
    store(postgres_uri, 5)
    with serving(Candidate(postgres_uri)) as candidate, psycopg.connect(postgres_uri) as locking:
        locking.execute("LOCK TABLE inference_requests IN ACCESS EXCLUSIVE MODE")

        async def drive(follower: Follower) -> None:
            async with served(follower.metrics, 0, "127.0.0.1") as port:
                base = f"http://127.0.0.1:{port}"
                status, text = await asyncio.to_thread(get, f"{base}/ready")
                assert (status, text) == (503, "The tables were not read yet.\n")
                locking.rollback()
                await until(lambda: len(candidate.arrived) == 5 and not follower.lag_seconds())
                assert await asyncio.to_thread(get, f"{base}/ready") == (200, "ready\n")
                _, text = await asyncio.to_thread(get, f"{base}/metrics")
                assert 'shadow_follow_calls_total{outcome="answered"} 5.0' in text
                assert "shadow_follow_lag_seconds 0.0" in text

        followed(postgres_uri, plan(candidate.url), drive)


@contextmanager
def grpc_serving(uri: str, arrived: list[tuple[bytes, dict[str, str]]]) -> Iterator[str]:
    """A gRPC candidate that records; the third call fails."""

    def infer(wire: bytes, context: grpc.ServicerContext) -> bytes:
        headers = dict(context.invocation_metadata())
        arrived.append((wire, headers))
        status = 400 if wire == b"bad" else 200
        pair_id = headers["x-shadow-pair-id"]
        call(uri, pair_id, role="shadow", service="candidate", protocol="grpc", status=status)
        if status != 200:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no message")
        return b"answer"

    handler = grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    )
    server = grpc.server(futures.ThreadPoolExecutor(4), (handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_grpc_calls_are_sent_as_they_were(postgres_uri: str) -> None:
    """The message byte for byte with the call's own metadata; a refusal is an answer."""
    arrived: list[tuple[bytes, dict[str, str]]] = []
    for name, wire in {"good": b"\x0a\x05model\x1a\x02id", "bad": b"bad"}.items():
        fields = {"headers": {"x-tenant": "blue", "content-type": "application/grpc"}}
        call(postgres_uri, name, protocol="grpc", body=wire, as_json=False, **fields)
    with grpc_serving(postgres_uri, arrived) as address:
        follower = followed(postgres_uri, plan("http://127.0.0.1:1", grpc=address, until=now()))
    assert sorted(wire for wire, _ in arrived) == [b"\x0a\x05model\x1a\x02id", b"bad"]
    assert {headers["x-tenant"] for _, headers in arrived} == {"blue"}
    assert {headers["x-shadow-source"] for _, headers in arrived} == {"follow"}
    assert follower.metrics.summary() == "2 calls answered (1 with an error status)."


def test_a_database_that_goes_and_comes_is_waited_for(
    postgres_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connections are cut; calls that came meanwhile are sent, none twice."""
    caplog.set_level("INFO")
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(_: Follower) -> None:
            for i in range(30):
                call(postgres_uri, f"p{i}")
                if i % 5 == 0:
                    await until(lambda i=i: len(candidate.arrived) >= i)  # type: ignore[misc]
                    cut_connections(postgres_uri)
            await until(lambda: len(candidate.arrived) >= 30)

        followed(postgres_uri, plan(candidate.url), drive)
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(30))
    assert "The database answers again." in caplog.text


def test_a_right_that_is_taken_away_is_waited_for(postgres_uri: str) -> None:
    """As by a script that makes the tables' rights anew; it is not ready meanwhile."""
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(follower: Follower) -> None:
            call(postgres_uri, "before")
            await until(lambda: len(candidate.arrived) == 1)
            with psycopg.connect(postgres_uri, autocommit=True) as connection:
                connection.execute("REVOKE SELECT ON inference_requests FROM report")
                await until(lambda: "make schema" in (follower.metrics.why_not_ready() or ""))
                assert b"shadow_follow_database_ready 0.0" in metrics_of(follower)
                call(postgres_uri, "after")
                connection.execute("GRANT SELECT ON inference_requests TO report")
            await until(lambda: len(candidate.arrived) == 2)
            await until(lambda: follower.metrics.why_not_ready() is None)

        followed(as_role(postgres_uri, "report"), plan(candidate.url), drive)
    assert candidate.pair_ids == ["before", "after"]


def test_a_database_that_hangs_is_not_ready(
    postgres_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connections stay open and no answer comes, which no timeout of theirs notices."""
    caplog.set_level("INFO")
    with serving(Candidate(postgres_uri)) as candidate:

        async def drive(follower: Follower) -> None:
            call(postgres_uri, "before")
            await until(lambda: len(candidate.arrived) == 1)
            assert follower.metrics.why_not_ready() is None
            call(postgres_uri, "after")
            with stopped(backends(postgres_uri)), monkeypatch.context() as short:
                short.setattr(delivered, "SILENT_SECONDS", 0.3)
                await until(lambda: "not answered" in (follower.metrics.why_not_ready() or ""))
                assert b"shadow_follow_database_ready 0.0" in metrics_of(follower)
            await until(lambda: len(candidate.arrived) == 2)
            await until(lambda: follower.metrics.why_not_ready() is None)

        followed(postgres_uri, plan(candidate.url), drive)
    assert candidate.pair_ids == ["before", "after"]
    assert caplog.text.count("has not answered for") == 1
    assert "The database answers again." in caplog.text


def backends(uri: str) -> list[int]:
    """The server's processes that answer a follower."""
    with psycopg.connect(uri) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE application_name = 'shadow-report follow' AND datname = current_database()"
        )
        return [pid for (pid,) in rows]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_it_can_be_stopped_while_the_database_is_away() -> None:
    """SIGTERM does not wait for a server that may never come."""

    async def drive(follower: Follower) -> None:
        await until(lambda: "does not answer" in (follower.metrics.why_not_ready() or ""))

    follower = followed(
        "postgresql://report@127.0.0.1:1/nowhere", plan("http://127.0.0.1:1"), drive
    )
    assert follower.metrics.summary() == "0 calls answered."


def cut_connections(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'shadow-report follow' AND datname = current_database()"
        )


def test_holds_no_lock(postgres_uri: str) -> None:
    """Between its questions a follower has no transaction open, so `maintain` may drop days."""
    store(postgres_uri, 20)
    with serving(Candidate(postgres_uri, delay_seconds=0.05)) as candidate:

        async def drive(_: Follower) -> None:
            await until(lambda: len(candidate.arrived) >= 5)
            for _ in range(20):
                with psycopg.connect(postgres_uri) as other:
                    row = other.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
                        " AND application_name = 'shadow-report follow'"
                    ).fetchone()
                assert row == (0,)
                await asyncio.sleep(0.01)

        followed(postgres_uri, plan(candidate.url), drive)


def test_killed_at_random_each_call_is_answered(
    postgres_uri: str, tmp_path: Path, port: int
) -> None:
    """Of two followers that share the calls one after the other is killed and started again, and so
    is their candidate: no call is left out, and only what was under way at a kill comes twice.
    """
    chance, calls, concurrency = random.Random(11), 400, 4
    candidate = Candidate(postgres_uri)
    kills = 0

    def start(part: int) -> subprocess.Popen[bytes]:
        options = ["--to", f"http://127.0.0.1:{port}", "--concurrency", str(concurrency)]
        options += ["--since", "1d", "--shadow", "candidate", "--share", f"{part + 1}/2"]
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(
                [Path(sys.executable).with_name("shadow-report"), "follow", *options],
                env={**os.environ, "POSTGRES_URI": as_role(postgres_uri, "report")},
                stderr=log,
                stdout=log,
            )

    stored = threading.Event()

    def traffic() -> None:
        for i in range(calls):
            call(postgres_uri, f"p{i}")
            time.sleep(0.02)
        stored.set()

    storing = threading.Thread(target=traffic)
    storing.start()
    running = [start(0), start(1)]
    dead: int | None = None
    try:
        while True:
            with serving(candidate, port):
                stored.wait(chance.uniform(1, 4))
                if dead is not None:
                    running[dead] = start(dead)
                if stored.is_set() and kills >= 2:
                    deadline = time.monotonic() + 120
                    while len(set(candidate.pair_ids)) < calls and time.monotonic() < deadline:
                        time.sleep(0.05)
                    break
                # Until the next kill the other one is alone.
                dead = kills % 2
                running[dead].kill()
                running[dead].wait()
                kills += 1
        for process in running:
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0, (tmp_path / "log").read_text()
    finally:
        storing.join()
        for process in running:
            process.kill()
            process.wait()
    with psycopg.connect(postgres_uri) as connection:
        pairs, twice = connection.execute(
            """SELECT count(DISTINCT pair_id), count(*) - count(DISTINCT pair_id)
            FROM inference_requests WHERE role = 'shadow'"""
        ).fetchone() or (0, 0)
    assert pairs == calls, (tmp_path / "log").read_text()
    assert twice <= 2 * concurrency * (kills + 1)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_calls_that_were_followed_later_are_compared(postgres_uri: str, tmp_path: Path) -> None:
    """Yesterday's window with the answers of tonight: complete, and judged like any other."""
    store(postgres_uri, 80)
    until, began = LONG_AGO + timedelta(days=24), now()
    with serving(Candidate(postgres_uri)) as candidate:
        followed(postgres_uri, plan(candidate.url, until=now()))
    options = ["--since", LONG_AGO.isoformat(), "--until", until.isoformat()]
    options += ["--shadow-since", began.isoformat(), "--json", str(tmp_path / "report.json")]
    compared = subprocess.run(
        [Path(sys.executable).with_name("shadow-report"), "compare", *options],
        env={**os.environ, "POSTGRES_URI": as_role(postgres_uri, "report")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert compared.returncode == 11, compared.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["integrity"]["coverage"] == 1.0
    assert report["integrity"]["paired"] == 80


def test_a_backlog_without_statistics_is_read_by_its_index(postgres_uri: str) -> None:
    """A page of many costs a page, and not a sort of all that waits."""
    backlog = """
        INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,
            pair_source, role, inference_service, model_name, protocol, predict_url,
            request_headers, request_size, request_sha256, created_at)
        SELECT gen_random_uuid(), at, gen_random_uuid(), 1, 'p' || i, 'generated', 'primary',
            'double', 'model', 'v1', '/', '{}', 0, '', at
        FROM generate_series(1, 100000) AS i, LATERAL (
            SELECT now() - interval '1 hour' + i * interval '10 ms' AS at) AS times"""
    with psycopg.connect(postgres_uri, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(backlog)
        asked = {
            "after_time": LONG_AGO,
            "after_record": FIRST_RECORD,
            "before": now(),
            "primary": "double",
            "since": LONG_AGO,
            "until": "infinity",
            "limit": PAGE // 4,
        }
        rows = connection.execute(b"EXPLAIN " + sql("delivered"), asked).fetchall()
    plan = "\n".join(row[0] for row in rows)
    assert "Index Scan using inference_requests_" in plan
    assert "Bitmap" not in plan


def test_compare_says_of_each_call_what_the_follower_does(postgres_uri: str) -> None:
    """Whether a stored call can be sent again, and why not, is one rule in SQL and in Python."""
    odd = {
        "cut": {"request_raw": b"{", "request_data": None, "request_truncated": True},
        "redacted and too large": {"request_data": None, "request_truncated": True},
        "redacted gRPC": {"protocol": "grpc"},
        "shortened by redaction": {"request_size": 500},
        "gzip": {"request_raw": b"\x1f\x8b1", "request_data": None, "request_size": 3},
    }
    for pair_id in odd:
        call(postgres_uri, pair_id)
    call(postgres_uri, "json")
    call(postgres_uri, "empty", body=b"", as_json=False)
    call(postgres_uri, "text", body="é".encode(), as_json=False)
    call(postgres_uri, "accents", body='{"é": "ü"}'.encode())
    call(postgres_uri, "redacted", body=b'{"values": "[redacted]"}')
    call(postgres_uri, "redacted bytes", body=b'\x00"[redacted]"', as_json=False)
    call(postgres_uri, "gRPC", body=b"\x0a\x05model", as_json=False, protocol="grpc")
    call(postgres_uri, "any", role="shadow")
    with psycopg.connect(postgres_uri) as connection:
        for pair_id, columns in odd.items():
            for column, value in columns.items():
                change = f"UPDATE inference_requests SET {column} = %s WHERE pair_id = %s"
                connection.execute(change.encode(), [value, pair_id])
    window = Window(None, LONG_AGO, None)

    async def withheld() -> dict[str, str | None]:
        tables = DeliveredCalls(postgres_uri, lambda _: None)
        stored = await tables.calls(await tables.page(Place(LONG_AGO), None, window))
        await tables.close()
        return {call.pair_id: call.withheld for call in stored}

    said: dict[str, str | None] = {}
    with open_tables(postgres_uri) as tables:
        none = Duplicates(primary=0, shadow=0, resent=0, joined=False)
        scope = Scope(primary="double", shadow="triple", since=LONG_AGO, until=None)
        for batch in tables.pairs(scope, none, with_requests=False, followed=True):
            for row, flags in enumerate(batch.integers("flags").tolist()):
                why = "body cut" if flags & CUT_REQUEST else None
                why = "body redacted" if flags & REDACTED_REQUEST else why
                said[batch.pair_id(row)] = why
    del said["any"]
    assert said == asyncio.run(withheld())
    assert Counter(said.values()) == {None: 6, "body cut": 1, "body redacted": 5}
