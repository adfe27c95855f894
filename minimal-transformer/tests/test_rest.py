"""REST calls through real servers: what the caller gets and what the tables hold of it."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scripted import ANSWER, SCRIPT, ScriptedPredictor, body
from serving import (
    EXPLAIN,
    INFER,
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Transformer,
    check_row,
    new_pair,
    row,
    rows,
    stored,
)


def test_v1_call_is_answered_and_recorded_in_every_column(
    transformer: Transformer, shared_uri: str
) -> None:
    """The caller gets the predictor's bytes, and the row holds both sides byte for byte."""
    pair = new_pair()
    answered = transformer.post(PREDICT, SAMPLE, x_shadow_pair_id=pair, authorization="Bearer s3")
    assert (answered.status, answered.body) == (200, SAMPLE_ANSWER)
    assert answered.headers["content-type"] == "application/json"
    found = row(shared_uri, pair)
    url = f"http://{transformer.predictor}{PREDICT}"
    check_row(found, protocol="v1", predict_url=url, sent=SAMPLE, received=SAMPLE_ANSWER)
    assert found["request_headers"]["content-type"] == "application/json"
    assert found["request_headers"]["content-length"] == str(len(SAMPLE))
    assert "authorization" not in found["request_headers"]


def test_v2_call_is_answered_and_recorded_in_every_column(
    transformer: Transformer, shared_uri: str
) -> None:
    """The Open Inference Protocol passes through with its id, names and shapes."""
    pair = new_pair()
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [[1.5, 2.5]]}
    sent = json.dumps({"id": "seven", "inputs": [tensor]}).encode()
    answered = transformer.post(INFER, sent, x_shadow_pair_id=pair)
    assert answered.status == 200
    document = json.loads(answered.body)
    assert document["id"] == "seven"
    assert np.ravel(document["outputs"][0]["data"]).tolist() == [3.0, 5.0]
    url = f"http://{transformer.predictor}{INFER}"
    found = row(shared_uri, pair)
    check_row(found, protocol="v2", predict_url=url, sent=sent, received=answered.body)


def test_v2_binary_tensors_pass_through_and_are_stored_raw(
    transformer: Transformer, shared_uri: str
) -> None:
    """A body that is not JSON is stored byte for byte, and so is its answer."""
    pair = new_pair()
    values = np.array([1.5, 2.5], "<f4").tobytes()
    size = {"binary_data_size": len(values)}
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": size}
    wanted = {"binary_data_output": True}
    head = json.dumps({"inputs": [tensor], "parameters": wanted}).encode()
    sent = head + values
    answered = transformer.post(
        INFER,
        sent,
        content_type="application/octet-stream",
        inference_header_content_length=str(len(head)),
        x_shadow_pair_id=pair,
    )
    assert answered.status == 200, answered.body
    length = int(answered.headers["inference-header-content-length"])
    assert np.frombuffer(answered.body[length:], "<f4").tolist() == [3.0, 5.0]
    found = row(shared_uri, pair)
    url = f"http://{transformer.predictor}{INFER}"
    check_row(found, protocol="v2", predict_url=url, sent=sent, received=answered.body)
    assert bytes(found["request_raw"]) == sent
    assert bytes(found["response_raw"]) == answered.body


def test_explain_without_explainer_is_501_and_recorded(
    transformer: Transformer, shared_uri: str
) -> None:
    """Explain calls are calls too; and no request header comes back as a response header."""
    pair = new_pair()
    answered = transformer.post(EXPLAIN, SAMPLE, x_shadow_pair_id=pair, authorization="Bearer s3")
    assert (answered.status, json.loads(answered.body)) == (
        501,
        {"error": "Could not find explainer_host."},
    )
    assert set(answered.headers) == {"date", "server", "content-type", "content-length"}
    found = row(shared_uri, pair)
    check_row(
        found,
        protocol="v1",
        predict_url=f"http://{transformer.predictor}{EXPLAIN}",
        sent=SAMPLE,
        status=501,
        received=answered.body,
        error="Could not find explainer_host.",
    )


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        ("answer", 200, None),
        ("created", 201, None),
        ("charset", 200, None),
        ("nan", 200, None),
        ("text", 200, None),
        ("gzip", 200, None),
        ("bad request", 400, "values[1] is not a number"),
        ("not found", 404, "no such model"),
        ("busy", 503, "busy"),
        ("broken", 500, "<h1>Oops</h1>"),
        ("empty error", 500, "the predictor answered 500 without a body"),
    ],
)
def test_predictor_answer_passes_through(
    fronting: Transformer, shared_uri: str, what: str, status: int, error: str | None
) -> None:
    """Status, type, encoding and body reach the caller unchanged, and the row holds the same."""
    pair = new_pair()
    answered = fronting.post(PREDICT, body(what), x_shadow_pair_id=pair)
    head, _, expected = SCRIPT[what].partition(b"\r\n\r\n")
    assert (answered.status, answered.body) == (status, expected)
    names = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert answered.headers["content-type"] == names["content-type"]
    assert answered.headers.get("retry-after") == names.get("retry-after")
    assert answered.headers.get("content-encoding") == names.get("content-encoding")
    check_row(
        row(shared_uri, pair),
        protocol="v1",
        predict_url=f"http://{fronting.predictor}{PREDICT}",
        sent=body(what),
        status=status,
        received=expected,
        error=error,
    )


@pytest.mark.parametrize(
    ("what", "status", "error"),
    [
        ("hang", 504, "the predictor did not answer in 10 s"),
        ("truncated", 502, "the predictor's answer was cut off"),
        ("half chunk", 502, "the predictor's answer was cut off"),
        ("garbage", 502, "the predictor's answer is not valid HTTP"),
        ("silent", 502, "the predictor closed the connection without an answer"),
        ("reset", 502, "the predictor closed the connection without an answer"),
        ("redirect", 502, "the predictor answered with a redirect (302)"),
    ],
)
def test_failed_hop_has_a_true_status_and_a_row(
    fronting: Transformer, shared_uri: str, what: str, status: int, error: str
) -> None:
    """Our own errors have KServe's body and no address, and are recorded as the caller got them."""
    pair = new_pair()
    answered = fronting.post(PREDICT, body(what), x_shadow_pair_id=pair)
    assert (answered.status, json.loads(answered.body)) == (status, {"error": error})
    assert answered.headers["content-type"] == "application/json"
    assert "location" not in answered.headers
    check_row(
        row(shared_uri, pair),
        protocol="v1",
        predict_url=f"http://{fronting.predictor}{PREDICT}",
        sent=body(what),
        status=status,
        received=answered.body,
        error=error,
    )


def test_chunked_answer_is_put_together(fronting: Transformer, shared_uri: str) -> None:
    """The caller and the row get the body without the framing."""
    pair = new_pair()
    answered = fronting.post(PREDICT, body("chunked"), x_shadow_pair_id=pair)
    assert (answered.status, answered.body) == (200, b"abcde")
    assert stored(row(shared_uri, pair), "response") == b"abcde"


def test_only_listed_headers_reach_the_predictor(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """Those that describe the body or trace the call; never credentials."""
    pair = new_pair()
    passed = {
        "content-type": "application/json; charset=utf-8",
        "accept": "application/json",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "a=b",
        "x-b3-traceid": "463ac35c9f6413ad48485a3953bb6124",
        "x-b3-spanid": "a2fb4a1d1a96d312",
        "x-request-id": "mine",
        "x-shadow-pair-id": pair,
        "inference-header-content-length": "3",
    }
    kept_back = {
        "authorization": "Bearer s3cret",
        "x-api-key": "k3y",
        "cookie": "a=b",
        "x-forwarded-for": "10.1.2.3",
        "x-custom": "1",
    }
    fronting.call("POST", PREDICT, body("answer"), passed | kept_back)
    seen = next(s for s in scripted.seen if s.headers.get("x-shadow-pair-id") == pair)
    assert passed.items() <= seen.headers.items()
    assert seen.line == f"POST {PREDICT} HTTP/1.1"
    assert set(seen.headers) == set(passed) | {"host", "content-length"}


def test_only_listed_headers_reach_the_caller(fronting: Transformer) -> None:
    """A predictor's cookies, server name and internal headers stay inside."""
    answered = fronting.post(PREDICT, body("chatty"))
    assert set(answered.headers) == {"date", "server", "content-type", "content-length"}
    assert answered.headers["server"] == "uvicorn"


def test_predictor_that_is_away_is_503(away: Transformer, shared_uri: str) -> None:
    """An unreachable predictor is unavailable, and the call is recorded."""
    pair = new_pair()
    answered = away.post(PREDICT, SAMPLE, x_shadow_pair_id=pair)
    assert (answered.status, json.loads(answered.body)) == (
        503,
        {"error": "the predictor is unreachable"},
    )
    found = row(shared_uri, pair)
    assert (found["status_code"], found["error"]) == (503, "the predictor is unreachable")


def test_connection_closed_while_idle_costs_no_call(
    fronting: Transformer, scripted: ScriptedPredictor, shared_uri: str
) -> None:
    """A reused connection that the predictor closes unanswered is tried once more on a new one."""
    assert fronting.post(PREDICT, body("answer")).status == 200
    pair = new_pair()
    scripted.drop_next = 1
    answered = fronting.post(PREDICT, body("answer"), x_shadow_pair_id=pair)
    assert (answered.status, answered.body) == (200, ANSWER)
    assert sum(s.headers.get("x-shadow-pair-id") == pair for s in scripted.seen) == 2
    assert row(shared_uri, pair)["status_code"] == 200


def test_what_an_idle_connection_lost_goes_on_a_new_one(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """Also when other idle ones are there: a predictor that closes one may have closed them all."""
    with ThreadPoolExecutor(4) as callers:
        slow = [callers.submit(fronting.post, PREDICT, body("slow 0.5")) for _ in range(4)]
        assert [call.result().status for call in slow] == [200] * 4
    before = scripted.connections
    scripted.drop_next = 1
    assert fronting.post(PREDICT, body("answer")).status == 200
    assert scripted.connections == before + 1


def test_fresh_connection_closed_unanswered_is_not_tried_again(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """The predictor may have worked on it, so without --predictor_request_retries it is a 502."""
    scripted.close_connections()
    fronting.post(PREDICT, body("silent"))
    pair = new_pair()
    answered = fronting.post(PREDICT, body("silent"), x_shadow_pair_id=pair)
    assert answered.status == 502
    assert sum(s.headers.get("x-shadow-pair-id") == pair for s in scripted.seen) == 1


def test_retries_do_what_their_help_says(
    retrying: Transformer, scripted: ScriptedPredictor
) -> None:
    """--predictor_request_retries 2 survives two lost connections, and answers are not retried."""
    scripted.close_connections()
    retrying.post(PREDICT, body("silent"))
    scripted.drop_next = 2
    assert retrying.post(PREDICT, body("answer")).status == 200
    before = len(scripted.seen)
    assert retrying.post(PREDICT, body("busy")).status == 503
    assert len(scripted.seen) == before + 1


def test_bodies_that_are_no_json_pass_unread(fronting: Transformer, shared_uri: str) -> None:
    """Whatever bytes arrive are the predictor's to judge; the row holds them all."""
    for sent in (b"", b"\xff\xfe\x00", b'{"a": NaN}', b'"\\ud800"', b'"\\u0000"', b"[" * 10_000):
        pair = new_pair()
        answered = fronting.post(PREDICT, sent, x_shadow_pair_id=pair)
        assert (answered.status, answered.body) == (200, ANSWER)
        found = row(shared_uri, pair)
        assert found["request_size"] == len(sent)
        assert (stored(found, "request") or b"") == sent


def test_large_body_passes_whole_and_is_stored_cut(retrying: Transformer, shared_uri: str) -> None:
    """Past RECORD_MAX_BODY_BYTES the row keeps the beginning, the true size and the true hash."""
    pair = new_pair()
    sent = b'{"values": [' + b"1," * 4_000_000 + b"1]}"
    assert retrying.post(PREDICT, sent, x_shadow_pair_id=pair).status == 200
    found = row(shared_uri, pair)
    assert (found["request_size"], found["request_truncated"]) == (len(sent), True)
    assert sent.startswith(bytes(found["request_raw"]))


def test_same_request_id_pairs_every_call(fronting: Transformer, shared_uri: str) -> None:
    """A caller that repeats its request id leaves one row for each call."""
    repeated = new_pair()
    for _ in range(5):
        fronting.post(PREDICT, body("answer"), x_request_id=repeated)
    found = rows(shared_uri, repeated, count=5)
    assert {r["pair_source"] for r in found} == {"x-request-id"}
    assert len({r["record_id"] for r in found}) == 5


def test_caller_that_leaves_is_recorded(fronting: Transformer, shared_uri: str) -> None:
    """The call completes without its caller; its row says so, and what it would have got."""
    pair = new_pair()
    sent = body("slow 0.5")
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(sent)}\r\n"
    head += f"x-shadow-pair-id: {pair}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", fronting.http_port)) as caller:
        caller.sendall(head.encode() + sent)
    found = row(shared_uri, pair)
    assert (found["status_code"], stored(found, "response")) == (499, ANSWER)
    assert found["error"] == "the caller left before the answer, which was 200"


def test_unknown_model_and_path_are_kserves_404(transformer: Transformer) -> None:
    """They reach no model, so they are not calls."""
    answered = transformer.post("/v1/models/other:predict", SAMPLE)
    assert (answered.status, json.loads(answered.body)) == (
        404,
        {"error": "Model with name other does not exist."},
    )
    assert transformer.post("/nowhere", SAMPLE).status == 404
    assert transformer.get(INFER).status == 405


def test_chunked_request_is_put_together(fronting: Transformer, shared_uri: str) -> None:
    """The predictor and the row get the body without the framing."""
    pair, sent = new_pair(), body("answer")
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    head += f"x-shadow-pair-id: {pair}\r\nconnection: close\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, sent[i : i + 1]) for i in range(len(sent)))
    with socket.create_connection(("127.0.0.1", fronting.http_port)) as caller:
        caller.sendall(head.encode() + chunks + b"0\r\n\r\n")
        with caller.makefile("rb") as stream:
            answered = stream.read()
    assert answered.startswith(b"HTTP/1.1 200")
    assert answered.endswith(ANSWER)
    found = row(shared_uri, pair)
    assert stored(found, "request") == sent
    assert found["request_headers"] == {"transfer-encoding": "chunked"}


def test_ten_thousand_headers_are_no_matter(fronting: Transformer, shared_uri: str) -> None:
    """They reach neither the predictor nor the row."""
    pair = new_pair()
    many = {f"x-h{i}": "v" for i in range(10_000)}
    headers = many | {"x-shadow-pair-id": pair, "content-type": "application/json"}
    answered = fronting.call("POST", PREDICT, body("answer"), headers)
    assert (answered.status, answered.body) == (200, ANSWER)
    found = row(shared_uri, pair)["request_headers"]
    assert found.keys() == {"content-type", "content-length"}


def test_body_cut_off_by_its_caller_is_no_call(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """What has not arrived whole is not forwarded."""
    before = len(scripted.seen)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", fronting.http_port)) as caller:
        caller.sendall(head.encode() + b"{")
    assert fronting.post(PREDICT, body("answer")).status == 200
    assert len(scripted.seen) == before + 1
