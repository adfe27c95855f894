"""The topology without a mesh: a follower brings every recorded call to its shadow."""

from __future__ import annotations

import os
import random
import signal
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from calls import BODY, get, post, post_at_once, post_chunked
from runs import Start, up
from test_grpc import DOUBLED, MOST_NUMBERS, infer
from waiting import until

from shadow_local.stack import Stack

LARGE = b'{"values": ["1.5"], "padding": "' + b"x" * 7_000_000 + b'"}'
PAIRS = """
SELECT count(DISTINCT pair_id), count(*) FROM inference_requests r
JOIN inference_responses a USING (record_id, request_time, pair_id) WHERE inference_service = %s
"""
# By a gateway that mirrors, other tests bring calls to the same shadows.
SOURCES = """
SELECT DISTINCT role, pair_source, request_headers->>'x-shadow-source' FROM inference_requests
WHERE request_time >= %s ORDER BY role
"""
FOLLOWED = [("primary", "generated", None), ("shadow", "x-shadow-pair-id", "follow")]
PRIMARY = "double-minimal-inference"


def counts(stack: Stack, service: str) -> tuple[int, int]:
    """Pairs, and calls, of one model."""
    with psycopg.connect(stack.database.uri) as connection:
        found = connection.execute(PAIRS, [service]).fetchone()
    assert found is not None
    return found


def wait_until_followed(stack: Stack, calls: int) -> None:
    """Return once each shadow has answered each call of the primary, and no more."""
    until(lambda: counts(stack, PRIMARY) == (calls, calls), or_say=lambda: "primary")
    for shadow in stack.candidates:
        until(
            lambda name=shadow: counts(stack, name)[0] == calls,
            or_say=lambda name=shadow: f"{counts(stack, name)} of {calls} calls followed to {name}",
        )


def test_every_call_is_followed(follow: Stack) -> None:
    """Small and large, of a length that is not announced, binary, by gRPC, refused: each is a pair,
    and the caller's answer is the primary's.
    """
    state = follow.state
    assert state is not None
    assert state.follower is not None
    before, began = counts(follow, PRIMARY)[0], datetime.now(UTC)
    answers = post_at_once(state.predict_url, 100)
    assert {body for _, _, body in answers} == {b'{"predictions":[6.6,124.6,648.0]}'}
    assert post_chunked(state.predict_url, [BODY[:9], BODY[9:]])[0] == 200
    assert post(state.predict_url, LARGE)[0] == 200
    assert post(state.predict_url, b"")[0] == 400
    assert post(state.predict_url, random.Random(3).randbytes(3000))[0] == 400
    assert infer(state.gateway_url, {"x-serving-path": state.serving_path or ""}) == DOUBLED
    large = [float(number % 1000) for number in range(MOST_NUMBERS)]
    infer(state.gateway_url, {"x-serving-path": state.serving_path or ""}, large)
    wait_until_followed(follow, before + 106)
    with psycopg.connect(follow.database.uri) as connection:
        unlike = connection.execute(
            """SELECT pair_id FROM inference_pairs
            WHERE NOT same_request OR primary_status <> shadow_status"""
        ).fetchall()
        sources = connection.execute(SOURCES, [began]).fetchall()
    assert unlike == []
    assert sources == FOLLOWED
    # The follower may still have to see the last rows.
    url = state.follower.metrics_url
    until(lambda: b"shadow_follow_lag_seconds 0.0" in get(url)[2])


def test_only_inference_passes(follow: Stack) -> None:
    """The routes are as narrow as those of the other topologies."""
    assert follow.state is not None
    entry = follow.state.predict_url.partition("v1/models")[0]
    assert get(f"{entry}v1/models/model")[0] == 200
    assert get(f"{entry}v2")[0] == 200
    for path in ("metrics", "docs", "v1/modelsx", "v2/repository/index", ""):
        assert get(entry + path)[0] == 404


def test_a_callers_ids_and_marks_are_not_taken(follow: Stack) -> None:
    """Repeated ids of a caller make no repeated pairs, and no call of it passes for a replay's."""
    assert follow.state is not None
    before, began = counts(follow, PRIMARY)[0], datetime.now(UTC)
    own = [("x-request-id", "same"), ("x-shadow-pair-id", "same"), ("x-shadow-source", "replay")]
    for _ in range(5):
        assert post(follow.state.predict_url, headers=own)[0] == 200
    wait_until_followed(follow, before + 5)
    with psycopg.connect(follow.database.uri) as connection:
        assert connection.execute(SOURCES, [began]).fetchall() == FOLLOWED


def test_what_the_shadow_misses_comes_later(follow: Stack) -> None:
    """The follower and the shadow are killed while calls come; none is lost, no caller waits."""
    state = follow.state
    assert state is not None
    assert state.shadow is not None
    assert state.follower is not None
    before = counts(follow, PRIMARY)[0]
    victims = {"follower": state.follower.pid, "shadow-transformer": state.shadow.transformer_pid}
    for name, pid in victims.items():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert {status for status, _, _ in post_at_once(state.predict_url, 100)} == {200}
        follow.restart(name, {})
        before += 100
        # What is under way at a kill may come twice: nothing is at the next one.
        wait_until_followed(follow, before)
    for shadow in follow.candidates:
        pairs, calls = counts(follow, shadow)
        assert pairs == calls


def test_up_serves_the_topology(start: Start, tmp_path: Path) -> None:
    """`make up TOPOLOGY=follow` starts it all, and ends it all."""
    run = up(start, tmp_path / "data", TOPOLOGY="follow")
    url = run.says(r"^ready: (\S+)$")[1]
    assert post(url)[2] == b'{"predictions":[6.6,124.6,648.0]}'
    run.ctrl_c()
    assert run.ends() == 0
