"""Replay against a real HTTP candidate and a real Postgres."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import brotli
import psycopg
import pytest
from candidate import START, Candidate, record, serving, store

from embedded_postgres import as_role
from shadow_report import OneLineError
from shadow_report.replay.calls import Selection, open_stored_calls, parse_target
from shadow_report.replay.candidate import Candidate as Address
from shadow_report.replay.run import Plan, Run, SentCounts, State, load


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of these candidates record, which a replay would wait for."""
    monkeypatch.setattr("shadow_report.replay.run.TRIAL_SECONDS", 0.5)
    monkeypatch.setattr("shadow_report.replay.run.LOOK_SECONDS", 0.1)


def plan(to: str, folder: Path, **settings: object) -> Plan:
    candidate = Address(
        target=parse_target(to),
        grpc=None,
        source="replay",
        concurrency=settings.pop("concurrency", 4),  # type: ignore[arg-type]
        timeout_seconds=20.0,
    )
    usual: dict[str, object] = {"rate": None, "original_timing": False}
    return Plan(candidate=candidate, state_file=folder / "state.json", **usual | settings)  # type: ignore[arg-type]


def new_state(to: str, **fields: object) -> State:
    state = State(parse_target(to).base, "double", None, None, datetime.now(UTC))
    return replace(state, **fields)  # type: ignore[arg-type]


def go(
    uri: str,
    plan: Plan,
    state: State | None = None,
    *,
    stop_after: int | None = None,
) -> tuple[bool, Run]:
    """Run a replay, stopped after so many calls when asked."""

    async def main() -> tuple[bool, Run]:
        run: Run

        def show(done: int, _total: int, _failed: str) -> None:
            if stop_after is not None and done >= stop_after:
                run.stop()

        async with open_stored_calls(as_role(uri, "report")) as calls:
            run = Run(plan, state or new_state(plan.target.base), show, resumed=state is not None)
            return await run.go(calls), run

    return asyncio.run(main())


def test_sends_every_call_in_order_under_its_own_pair_id(postgres_uri: str, tmp_path: Path) -> None:
    """Bodies byte for byte, the original ids, the original order."""
    store(postgres_uri, 60)
    with serving(Candidate(None)) as candidate:
        finished, run = go(postgres_uri, plan(candidate.url, tmp_path, concurrency=1))
    assert finished
    assert run.journal.counts == SentCounts(answered=60)
    assert candidate.pair_ids == [f"p{i}" for i in range(60)]
    path, body, headers = candidate.arrived[7]
    assert path == "/v1/models/model:predict"
    assert body == b'{"values": ["7.5"]}'
    assert headers["content-type"] == "application/json"


def test_sends_protocols_to_their_paths_and_raw_bodies_as_they_were(
    postgres_uri: str, tmp_path: Path
) -> None:
    """v2 goes to infer, :explain stays :explain, bytes that are not JSON stay those bytes."""
    with psycopg.connect(postgres_uri) as connection:
        for i, fields in enumerate(
            (
                {"protocol": "v2", "path": "/v2/models/model/infer"},
                {"path": "http://h/v1/models/model:explain"},
                {"body": b"\x00\xff{", "as_json": False, "headers": {"content-type": "a/b"}},
                {"headers": {"X-Tenant": "blue", "Host": "evil", "Content-Length": "3"}},
                {"body": b"", "as_json": False},
            )
        ):
            usual: dict[str, object] = {"body": b'{"values": [1]}'}
            time = START + timedelta(seconds=i)
            record(
                connection, role="primary", sequence=i + 1, pair_id=f"p{i}", time=time,
                **usual | fields,  # type: ignore[arg-type]
            )  # fmt: skip
    with serving(Candidate(None)) as candidate:
        _, run = go(postgres_uri, plan(candidate.url, tmp_path, concurrency=1))
    assert [path for path, _, _ in candidate.arrived] == [
        "/v2/models/model/infer",
        "/v1/models/model:explain",
        "/v1/models/model:predict",
        "/v1/models/model:predict",
        "/v1/models/model:predict",
    ]
    assert candidate.arrived[2][1] == b"\x00\xff{"
    assert candidate.arrived[2][2]["content-type"] == "a/b"
    assert candidate.arrived[3][2]["x-tenant"] == "blue"
    assert candidate.arrived[3][2]["host"] == f"127.0.0.1:{candidate.port}"
    assert candidate.arrived[4][1] == b""
    # The raw and the empty body are not JSON for this model: an answer all the same.
    assert run.journal.counts == SentCounts(answered=5, failed=2)


@pytest.mark.parametrize(
    ("compress", "headers"),
    [
        (gzip.compress, {"content-encoding": "gzip"}),
        (gzip.compress, {}),
        (zlib.compress, {"Content-Encoding": "deflate"}),
        (brotli.compress, {"content-encoding": "br"}),
    ],
)
def test_a_compressed_body_is_sent_as_it_was(
    postgres_uri: str,
    tmp_path: Path,
    compress: Callable[[bytes], bytes],
    headers: dict[str, str],
) -> None:
    """The stored bytes with their encoding, which the candidate's server then undoes."""
    body = b'{"values": ["7.5"]}'
    sent = compress(body)
    store(postgres_uri, 3, body=sent, as_json=False, headers=headers, answer=b"{}")
    with serving(Candidate(None)) as candidate:
        _, run = go(postgres_uri, plan(candidate.url, tmp_path))
    assert run.journal.counts == SentCounts(answered=3)
    assert [arrived for _, arrived, _ in candidate.arrived] == [body] * 3
    assert {int(found["content-length"]) for _, _, found in candidate.arrived} == {len(sent)}


def test_skips_and_counts_what_cannot_be_sent(postgres_uri: str, tmp_path: Path) -> None:
    """Cut bodies and gRPC calls are skipped by name; a repeated pair id is sent once."""
    store(postgres_uri, 3)
    with psycopg.connect(postgres_uri) as connection:
        for i, fields in enumerate(
            (
                {"pair_id": "cut", "cut": True, "as_json": False},
                {"pair_id": "wire", "protocol": "grpc", "as_json": False},
                {"pair_id": "p1"},
                {"pair_id": "two\nlines"},
            )
        ):
            time = START + timedelta(minutes=1 + i)
            record(
                connection,
                role="primary",
                sequence=50 + i,
                body=b"{}",
                time=time,
                **fields,  # type: ignore[arg-type]
            )
    with serving(Candidate(None)) as candidate:
        finished, run = go(postgres_uri, plan(candidate.url, tmp_path))
    assert finished
    assert sorted(candidate.pair_ids) == ["p0", "p1", "p2"]
    assert run.journal.counts.skipped == {
        "body cut": 1,
        "gRPC, without --to-grpc": 1,
        "header that cannot be sent": 1,
    }


def test_window_and_primary_bound_the_calls(postgres_uri: str, tmp_path: Path) -> None:
    """Only the asked primary's calls from since on and before until."""
    store(postgres_uri, 10)
    store(postgres_uri, 10, service="other", path="/v1/models/other:predict")
    state = new_state(
        "http://x", since=START + timedelta(seconds=3), until=START + timedelta(seconds=6)
    )
    with serving(Candidate(None)) as candidate:
        go(
            postgres_uri,
            plan(candidate.url, tmp_path, concurrency=1),
            replace(state, to=candidate.url),
        )
    assert candidate.pair_ids == ["p3", "p4", "p5"]


def test_never_more_at_once_than_asked(postgres_uri: str, tmp_path: Path) -> None:
    """A slow candidate gets at most `concurrency` calls at a time, and gets to that many."""
    store(postgres_uri, 30)
    with serving(Candidate(None, delay_seconds=0.05)) as candidate:
        go(postgres_uri, plan(candidate.url, tmp_path, concurrency=3))
    assert candidate.most_at_once == 3


@pytest.mark.parametrize("portion", [1, 7])
def test_stopped_and_resumed_sends_each_call_once(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    """However often it is stopped, in the end each call was sent and counted exactly once."""
    monkeypatch.setattr("shadow_report.replay.calls.PORTION_CALLS", portion)
    store(postgres_uri, 40)
    stops = 0
    with serving(Candidate(None, delay_seconds=0.002)) as candidate:
        asked = plan(candidate.url, tmp_path)
        finished, run = go(postgres_uri, asked, stop_after=9)
        while not finished:
            stops += 1
            finished, run = go(
                postgres_uri, asked, load(asked.state_file), stop_after=9 * (stops + 1)
            )
    assert stops >= 3
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(40))
    assert run.journal.counts == SentCounts(answered=40)
    assert load(asked.state_file).total == 40


def test_a_candidate_that_is_down_costs_no_call(postgres_uri: str, tmp_path: Path) -> None:
    """It stops with one line; once the candidate is there, resuming sends every call."""
    store(postgres_uri, 50)
    with serving(Candidate(None)) as candidate:
        port = candidate.port
    asked = plan(f"http://127.0.0.1:{port}", tmp_path)
    with pytest.raises(OneLineError, match=r"does not answer.*--resume"):
        go(postgres_uri, asked)
    with serving(Candidate(None), port) as candidate:
        finished, run = go(postgres_uri, asked, load(asked.state_file))
    assert finished
    assert sorted(candidate.pair_ids) == sorted(f"p{i}" for i in range(50))
    assert run.journal.counts == SentCounts(answered=50)


def test_calls_that_break_the_connection_are_counted(postgres_uri: str, tmp_path: Path) -> None:
    """A call that kills its worker gets no answer; the others go on."""
    store(postgres_uri, 30)
    broken: Callable[[int], int] = lambda number: 0 if number % 10 == 0 else 200  # noqa: E731
    with serving(Candidate(None, status_of=broken)) as candidate:
        finished, run = go(postgres_uri, plan(candidate.url, tmp_path))
    assert finished
    assert run.journal.counts == SentCounts(answered=27, unanswered=3)


def test_error_statuses_are_answers(postgres_uri: str, tmp_path: Path) -> None:
    """A 500 is evidence like any other answer: counted, and never sent again."""
    store(postgres_uri, 20)
    with serving(Candidate(None, status_of=lambda n: 500 if n % 2 else 200)) as candidate:
        finished, run = go(postgres_uri, plan(candidate.url, tmp_path))
    assert finished
    assert run.journal.counts == SentCounts(answered=20, failed=10)


@pytest.mark.parametrize("promoted_after", [0, 30])
def test_a_candidate_that_records_as_primary_ends_it(
    postgres_uri: str, tmp_path: Path, promoted_after: int
) -> None:
    """Promoted before, it gets one call; meanwhile, no more than come before the first is seen."""
    store(postgres_uri, 100)
    candidate = Candidate(postgres_uri, delay_seconds=0.2)

    def status_of(number: int) -> int:
        candidate.role = "primary" if number > promoted_after else "shadow"
        return 200

    candidate.status_of = status_of
    with serving(candidate), pytest.raises(OneLineError, match=r"candidate has recorded call p\d+"):
        go(postgres_uri, plan(candidate.url, tmp_path))
    assert len(candidate.arrived) == 1 if promoted_after == 0 else len(candidate.arrived) < 100


def test_holds_no_lock_on_the_tables(postgres_uri: str) -> None:
    """`maintain` may drop days in the middle of a replay: its order outlives its transaction."""
    store(postgres_uri, 20)

    async def main() -> int:
        held = 0
        async with open_stored_calls(as_role(postgres_uri, "report")) as calls:
            async for _ in calls.portions(Selection("double", None, None)):
                with psycopg.connect(postgres_uri) as other:
                    locks = other.execute(
                        "SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()"
                        " AND relation = 'inference_requests'::regclass"
                    ).fetchone()
                assert locks is not None
                held += locks[0]
        return held

    assert asyncio.run(main()) == 0


def test_state_file_that_cannot_be_written_is_one_line(postgres_uri: str, tmp_path: Path) -> None:
    """A folder that is not there stops the start, before any call was sent."""
    store(postgres_uri, 3)
    with serving(Candidate(None)) as candidate:
        asked = plan(candidate.url, tmp_path / "missing")
        with pytest.raises(OneLineError, match="--state"):
            go(postgres_uri, asked)
    assert candidate.arrived == []
