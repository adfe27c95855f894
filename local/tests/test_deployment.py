"""Calls through the real Envoy to the real models, and what they leave in Postgres."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from backends import answering, refusing, resetting, stuck
from calls import CLIENT_IDS, post, post_at_once
from gateways import StartGateway, ports_of
from psycopg import errors
from stored import rows, wait_for_pairs
from waiting import until

from embedded_postgres import as_role
from shadow_local.stack import Stack


def predict_url(stack: Stack) -> str:
    assert stack.state is not None
    return stack.state.predict_url


def test_sample_request_is_answered_by_the_primary_and_leaves_one_pair(stack: Stack) -> None:
    """The README's call gets exactly the primary's answer, and both answers are in one row."""
    status, headers, body = post(predict_url(stack))
    assert (status, body) == (200, b'{"predictions":[6.6,124.6,648.0]}')
    pair_id = headers["x-shadow-pair-id"]
    wait_for_pairs(stack, [pair_id])
    [pair] = rows(stack, "SELECT * FROM inference_pairs WHERE pair_id = ANY(%s)", [pair_id])
    assert pair["request_data"] == {"values": ["3.3", "62.3", "324"]}
    assert pair["primary_response"] == {"predictions": [6.6, 124.6, 648.0]}
    assert pair["shadow_response"]["predictions"] == pytest.approx([9.9, 186.9, 972.0])
    assert (pair["primary_status"], pair["shadow_status"]) == (200, 200)
    assert pair["primary_service"] == "double-minimal-inference"
    assert pair["shadow_service"] == "triple-minimal-inference"
    assert pair["same_request"]


def test_both_sides_stored_the_same_request(stack: Stack) -> None:
    """The mirrored copy is the caller's body byte for byte, and carries no credentials."""
    body = '{"values": [1.10, 2e1],  "näme": "\\u00fc"}'.encode()
    sent = [("authorization", "Bearer s3cret"), ("x-api-key", "s3cret"), ("cookie", "s3cret")]
    _, headers, _ = post(predict_url(stack), body, sent)
    pair_id = headers["x-shadow-pair-id"]
    wait_for_pairs(stack, [pair_id])
    query = "SELECT * FROM inference_requests WHERE pair_id = ANY(%s) ORDER BY role"
    primary, shadow = rows(stack, query, [pair_id])
    assert (primary["role"], shadow["role"]) == ("primary", "shadow")
    assert primary["request_sha256"] == shadow["request_sha256"]
    assert primary["request_size"] == shadow["request_size"] == len(body)
    assert primary["pair_source"] == shadow["pair_source"] == "x-shadow-pair-id"
    assert "s3cret" not in json.dumps([primary["request_headers"], shadow["request_headers"]])


def test_500_calls_at_once_leave_500_pairs_and_nothing_else(stack: Stack) -> None:
    """Nothing is lost and nothing doubled when callers come in a crowd."""
    began = datetime.now(UTC)
    answers = post_at_once(predict_url(stack), 500)
    assert {status for status, _, _ in answers} == {200}
    pair_ids = [headers["x-shadow-pair-id"] for _, headers, _ in answers]
    assert len(set(pair_ids)) == 500
    wait_for_pairs(stack, pair_ids)
    with psycopg.connect(stack.database.uri) as connection:
        query = "SELECT pair_id, role FROM inference_requests WHERE request_time >= %s"
        stored = connection.execute(query, [began]).fetchall()
        gaps = connection.execute("SELECT * FROM inference_gaps").fetchall()
    expected = [(pair_id, role) for pair_id in pair_ids for role in ("primary", "shadow")]
    assert sorted(stored) == sorted(expected)
    assert gaps == []


@pytest.mark.parametrize("ids", CLIENT_IDS.values(), ids=CLIENT_IDS.keys())
def test_any_request_id_of_the_caller_pairs(stack: Stack, ids: list[str]) -> None:
    """Whatever x-request-id a caller makes up, its call is one pair under the answer's pair id."""
    _, headers, _ = post(predict_url(stack), headers=[("x-request-id", value) for value in ids])
    wait_for_pairs(stack, [headers["x-shadow-pair-id"]])


def test_pair_id_of_the_caller_is_overwritten(stack: Stack) -> None:
    """A forged pair id is in no row, by the entry path and by the direct ones."""
    forged = f"forged-{uuid.uuid4()}"
    _, headers, _ = post(predict_url(stack), headers=[("x-shadow-pair-id", forged)])
    wait_for_pairs(stack, [headers["x-shadow-pair-id"]])
    assert stack.state is not None
    for url in stack.state.direct_urls.values():
        status, _, _ = post(url, headers=[("x-shadow-pair-id", forged)])
        assert status == 200
    query = "SELECT * FROM inference_requests WHERE pair_id LIKE ANY(%s)"
    assert rows(stack, query, ["%forged%"]) == []


def test_direct_paths_answer_alone(stack: Stack) -> None:
    """Each model can be tried by itself, and such a call is not a pair."""
    assert stack.state is not None
    answers = {role: json.loads(post(url)[2]) for role, url in stack.state.direct_urls.items()}
    assert answers["primary"] == {"predictions": [6.6, 124.6, 648.0]}
    assert answers["shadow"]["predictions"] == pytest.approx([9.9, 186.9, 972.0])


def test_a_refused_call_is_a_pair_too(stack: Stack) -> None:
    """A caller's mistake is answered as one by both sides, and recorded."""
    status, headers, _ = post(predict_url(stack), b'{"values": ["no number"]}')
    assert status == 400
    pair_id = headers["x-shadow-pair-id"]
    wait_for_pairs(stack, [pair_id])
    [pair] = rows(stack, "SELECT * FROM inference_pairs WHERE pair_id = ANY(%s)", [pair_id])
    assert (pair["primary_status"], pair["shadow_status"]) == (400, 400)


@pytest.mark.parametrize(
    ("topology", "suffix"),
    [("standard", False), ("standard", True), ("knative", False), ("knative", True)],
)
def test_every_topology_pairs_every_call(
    stack: Stack, start_gateway: StartGateway, topology: str, suffix: bool
) -> None:
    """With KServe's modes and Istio's Host suffix in any combination, each call is one pair."""
    assert stack.state is not None
    gateway = start_gateway(
        ports_of(stack.state.primary),
        ports_of(stack.state.shadow),
        topology,
        suffix,
    )
    answers = [post(gateway.predict_url) for _ in range(30)]
    assert {body for _, _, body in answers} == {b'{"predictions":[6.6,124.6,648.0]}'}
    wait_for_pairs(stack, [headers["x-shadow-pair-id"] for _, headers, _ in answers])


@pytest.mark.parametrize(
    "fault",
    [
        refusing,
        resetting,
        stuck,
        lambda: answering("shadow", status=500),
        lambda: answering("shadow", hold=True),
    ],
    ids=["down", "resets", "stuck", "answers 500", "slow"],
)
def test_a_broken_shadow_changes_no_answer(
    stack: Stack, start_gateway: StartGateway, fault: Any
) -> None:
    """The caller has the primary's answer, and the primary's record is kept, whatever happens."""
    assert stack.state is not None
    with fault() as shadow:
        gateway = start_gateway(ports_of(stack.state.primary), shadow.port)
        answers = [post(gateway.predict_url) for _ in range(20)]
    assert {(status, body) for status, _, body in answers} == {
        (200, b'{"predictions":[6.6,124.6,648.0]}')
    }
    pair_ids = [headers["x-shadow-pair-id"] for _, headers, _ in answers]
    query = """SELECT count(*) FROM inference_pairs
    WHERE pair_id = ANY(%s) AND primary_status = 200 AND shadow_record_id IS NULL"""
    until(lambda: rows(stack, query, pair_ids)[0]["count"] == 20)


def test_roles_may_do_no_more_than_their_task(stack: Stack) -> None:
    """The transformers' role cannot read, the report's cannot write."""
    uri = stack.database.uri
    with psycopg.connect(as_role(uri, "transformer"), autocommit=True) as connection:
        for statement in ("SELECT 1 FROM inference_requests", "DELETE FROM inference_requests"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement)
    with psycopg.connect(as_role(uri, "report"), autocommit=True) as connection:
        connection.execute("SELECT 1 FROM inference_pairs")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("DELETE FROM inference_requests")
