"""A subclass with preprocess and postprocess: what the caller gets is what the tables hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ANSWER, ScriptedPredictor
from serving import EXPLAIN, PREDICT, Predictor, Transformer, new_pair, row, stored


@pytest.fixture(scope="module")
def hooked(
    folder: Path, shared_uri: str, predictor: Predictor, scripted: ScriptedPredictor
) -> Iterator[Transformer]:
    """tests/hooked.py in front of the example model, in two workers: hooks must cross a spawn."""
    arguments = ["--workers", "2"]
    variables = {"MODULE": "hooked", "EXPLAINER_HOST": scripted.address}
    with Transformer(folder, shared_uri, predictor.address, *arguments, **variables) as running:
        yield running


def test_hooks_change_the_call_and_the_record_shows_the_caller(
    hooked: Transformer, shared_uri: str
) -> None:
    """The request as it was sent, the answer as it was received."""
    pair, sent = new_pair(), b'{"values": [1, 2]}'
    answered = hooked.post(PREDICT, sent, x_shadow_pair_id=pair)
    assert (answered.status, json.loads(answered.body)) == (
        200,
        {"predictions": [4.0, 6.0], "note": "hooked"},
    )
    found = row(shared_uri, pair)
    assert (stored(found, "request"), stored(found, "response")) == (sent, answered.body)


def test_hooks_work_over_grpc(hooked: Transformer, shared_uri: str) -> None:
    """They get KServe's InferRequest and InferResponse."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model")
    message.inputs.add(name="a", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
    wire = hooked.rpc("ModelInfer", message.SerializeToString(), x_shadow_pair_id=pair)
    output = pb.ModelInferResponse.FromString(wire).outputs[0]
    assert list(output.contents.fp32_contents or output.contents.fp64_contents) == [4.0, 6.0]
    assert bytes(row(shared_uri, pair)["response_raw"]) == wire


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (b"{}", 400, "values is missing"),
        (b'{"values": "bug"}', 500, "ZeroDivisionError : a bug"),
        (b'{"values": []}', 400, None),
    ],
    ids=["refused by a hook", "bug in a hook", "refused by the predictor"],
)
def test_failures_around_hooks_are_recorded(
    hooked: Transformer, shared_uri: str, sent: bytes, status: int, error: str | None
) -> None:
    """KServe's statuses for a hook's exceptions; the predictor's own refusal stays its own."""
    pair = new_pair()
    answered = hooked.post(PREDICT, sent, x_shadow_pair_id=pair)
    assert answered.status == status
    message = json.loads(answered.body)["error"]
    assert message == (error or message)
    found = row(shared_uri, pair)
    assert (found["status_code"], found["error"]) == (status, message)
    assert ("ZeroDivisionError" in hooked.log) == (status == 500 or "bug" in hooked.log)


def test_explain_goes_to_the_explainer(
    hooked: Transformer, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """Its own host, its own path, recorded as a call to :explain."""
    pair = new_pair()
    answered = hooked.post(EXPLAIN, b'{"values": [1]}', x_shadow_pair_id=pair, authorization="x")
    assert answered.status == 200
    assert json.loads(answered.body) == json.loads(ANSWER) | {"note": "hooked"}
    assert "authorization" not in answered.headers
    seen = next(s for s in scripted.seen if s.headers.get("x-shadow-pair-id") == pair)
    assert seen.line == f"POST {EXPLAIN} HTTP/1.1"
    assert json.loads(seen.body) == {"values": [2]}
    found = row(shared_uri, pair)
    assert found["predict_url"] == f"http://{scripted.address}{EXPLAIN}"
    assert (found["protocol"], found["status_code"]) == ("v1", 200)
