"""gRPC calls through real servers, in front of predictors that speak REST and gRPC."""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ScriptedPredictor
from serving import INFER, SAMPLE, Transformer, check_row, new_pair, row, until


def request(*, raw: bool = False, name: str = "model", id_: str = "seven") -> bytes:
    """Two float tensors of shapes (2, 1) and (1), typed or raw."""
    message = pb.ModelInferRequest(model_name=name, id=id_)
    for tensor, values in (("a", [0.1, 2.5]), ("b", [7.0])):
        shape = [len(values), 1] if len(values) > 1 else [1]
        added = message.inputs.add(name=tensor, datatype="FP32", shape=shape)
        if raw:
            message.raw_input_contents.append(np.array(values, "<f4").tobytes())
        else:
            added.contents.fp32_contents.extend(values)
    return message.SerializeToString()


def values_of(wire: bytes) -> dict[str, list[float]]:
    """Each output's values, from either form."""
    message = pb.ModelInferResponse.FromString(wire)
    found = {}
    for index, output in enumerate(message.outputs):
        if message.raw_output_contents:
            array = np.frombuffer(message.raw_output_contents[index], _dtype(output.datatype))
        else:
            field = {"FP32": "fp32_contents", "FP64": "fp64_contents"}[output.datatype]
            array = np.array(getattr(output.contents, field))
        found[output.name] = [round(float(v), 5) for v in array]
    return found


def _dtype(datatype: str) -> str:
    return {"FP32": "<f4", "FP64": "<f8"}[datatype]


@pytest.fixture(params=["REST predictor", "gRPC predictor"])
def either(request: pytest.FixtureRequest) -> Transformer:
    """Both transformers in turn."""
    name = "transformer" if request.param == "REST predictor" else "grpc_transformer"
    found: Transformer = request.getfixturevalue(name)
    return found


def url_of(server: Transformer) -> str:
    """What the predict_url of a gRPC call must be."""
    if "--predictor_protocol" in server.process.args:
        return f"grpc://{server.predictor}/inference.GRPCInferenceService/ModelInfer"
    return f"http://{server.predictor}{INFER}"


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_call_is_answered_and_recorded_in_every_column(
    either: Transformer, shared_uri: str, raw: bool
) -> None:
    """The row holds the wire bytes and the JSON form of both messages."""
    pair, sent = new_pair(), request(raw=raw)
    received = either.rpc("ModelInfer", sent, x_shadow_pair_id=pair)
    assert list(values_of(received).values()) == [[0.2, 5.0], [14.0]]
    assert pb.ModelInferResponse.FromString(received).id == "seven"
    found = row(shared_uri, pair)
    check_row(found, protocol="grpc", predict_url=url_of(either), sent=sent, received=received)
    assert bytes(found["request_raw"]) == sent
    assert bytes(found["response_raw"]) == received
    stored_request = json.loads(found["request_text"])
    assert [t["data"] for t in stored_request["inputs"]] == [[0.1, 2.5], [7.0]]
    assert [t["shape"] for t in stored_request["inputs"]] == [[2, 1], [1]]
    stored_answer = json.loads(found["response_data"])
    assert [t["data"] for t in stored_answer["outputs"]] == [[0.2, 5.0], [14.0]]
    assert stored_answer["id"] == "seven"


def test_predictor_refusal_is_invalid_argument_and_400(
    either: Transformer, shared_uri: str
) -> None:
    """The predictor's own words reach a gRPC caller, and the row has the status in HTTP terms."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model")
    message.inputs.add(name="a", datatype="FP32", shape=[1]).contents.fp32_contents.append(
        float("nan")
    )
    sent = message.SerializeToString()
    with pytest.raises(grpc.RpcError) as refused:
        either.rpc("ModelInfer", sent, x_shadow_pair_id=pair)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details()
    check_row(
        row(shared_uri, pair),
        protocol="grpc",
        predict_url=url_of(either),
        sent=sent,
        status=400,
        received=None,
        error=refused.value.details(),
    )


def test_message_that_contradicts_itself_is_400(either: Transformer, shared_uri: str) -> None:
    """Raw contents for one input of two."""
    pair = new_pair()
    message = pb.ModelInferRequest.FromString(request(raw=True))
    del message.raw_input_contents[1]
    sent = message.SerializeToString()
    with pytest.raises(grpc.RpcError) as refused:
        either.rpc("ModelInfer", sent, x_shadow_pair_id=pair)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert row(shared_uri, pair)["error"] == "the request has 2 inputs but 1 raw_input_contents"


def test_bytes_that_are_no_message_are_400(transformer: Transformer, shared_uri: str) -> None:
    """They are recorded as they came."""
    pair, sent = new_pair(), b"\xff\xff\xff no message"
    with pytest.raises(grpc.RpcError) as refused:
        transformer.rpc("ModelInfer", sent, x_shadow_pair_id=pair)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = row(shared_uri, pair)
    assert (bytes(found["request_raw"]), found["request_text"]) == (sent, None)


@pytest.mark.parametrize(
    ("what", "code", "status"),
    [
        ("hang", grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        ("truncated", grpc.StatusCode.UNAVAILABLE, 502),
        ("busy", grpc.StatusCode.UNAVAILABLE, 503),
        ("broken", grpc.StatusCode.INTERNAL, 500),
        ("not found", grpc.StatusCode.NOT_FOUND, 404),
        ("text", grpc.StatusCode.UNAVAILABLE, 502),
    ],
)
def test_failed_rest_hop_has_a_true_code_and_a_row(
    fronting: Transformer, shared_uri: str, what: str, code: grpc.StatusCode, status: int
) -> None:
    """A REST predictor's failures, told in gRPC's terms."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model", id="x")
    message.parameters["do"].string_param = what
    with pytest.raises(grpc.RpcError) as refused:
        fronting.rpc("ModelInfer", message.SerializeToString(), x_shadow_pair_id=pair)
    assert refused.value.code() is code
    assert "127.0.0.1" not in refused.value.details()
    found = row(shared_uri, pair)
    assert (found["status_code"], found["error"]) == (status, refused.value.details())
    assert found["response_raw"] is None


def test_grpc_predictor_that_is_away_is_unavailable(
    grpc_away: Transformer, shared_uri: str
) -> None:
    """Over gRPC and over REST, without its address."""
    pair = new_pair()
    with pytest.raises(grpc.RpcError) as refused:
        grpc_away.rpc("ModelInfer", request(), x_shadow_pair_id=pair)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "the predictor is unreachable"
    assert row(shared_uri, pair)["status_code"] == 503
    tensor = {"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}
    answered = grpc_away.post(INFER, json.dumps({"inputs": [tensor]}).encode())
    assert (answered.status, json.loads(answered.body)) == (
        503,
        {"error": "the predictor is unreachable"},
    )


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_rest_caller_of_a_grpc_predictor(
    grpc_transformer: Transformer, shared_uri: str, binary: bool
) -> None:
    """v2 over REST, nested or binary, is answered in the form that it asked for."""
    pair = new_pair()
    tensor: dict[str, Any] = {"name": "a", "shape": [2, 1], "datatype": "FP32"}
    headers = {"x-shadow-pair-id": pair, "content-type": "application/json"}
    if binary:
        values = np.array([0.1, 2.5], "<f4").tobytes()
        tensor["parameters"] = {"binary_data_size": len(values)}
        wanted = {"binary_data_output": True}
        head = json.dumps({"inputs": [tensor], "parameters": wanted}).encode()
        sent = head + values
        headers["inference-header-content-length"] = str(len(head))
    else:
        sent = json.dumps({"inputs": [tensor | {"data": [[0.1], [2.5]]}]}).encode()
    answered = grpc_transformer.call("POST", INFER, sent, headers)
    assert answered.status == 200, answered.body
    length = int(answered.headers.get("inference-header-content-length", len(answered.body)))
    output = json.loads(answered.body[:length])["outputs"][0]
    values_out = np.frombuffer(answered.body[length:], "<f4") if binary else output["data"]
    assert [round(float(v), 5) for v in values_out] == [0.2, 5.0]
    check_row(
        row(shared_uri, pair),
        protocol="v2",
        predict_url=url_of(grpc_transformer),
        sent=sent,
        received=answered.body,
    )


def test_v1_caller_of_a_grpc_predictor_is_told(
    grpc_transformer: Transformer, shared_uri: str
) -> None:
    """gRPC has no v1 form, so it is the caller's 400, recorded."""
    pair = new_pair()
    answered = grpc_transformer.post("/v1/models/model:predict", SAMPLE, x_shadow_pair_id=pair)
    assert answered.status == 400
    assert row(shared_uri, pair)["status_code"] == 400


def test_rest_request_that_is_none_is_400(grpc_transformer: Transformer, shared_uri: str) -> None:
    """What cannot become a gRPC message is refused in words, not with a 500."""
    tensor = {"name": "a", "shape": [1], "datatype": "FP32"}
    for sent in (b"{", b"[]", b'{"inputs": 1}', b"{}", json.dumps({"inputs": [tensor]}).encode()):
        pair = new_pair()
        answered = grpc_transformer.post(INFER, sent, x_shadow_pair_id=pair)
        assert (answered.status, list(json.loads(answered.body))) == (400, ["error"])
        assert row(shared_uri, pair)["status_code"] == 400


def test_metadata_reaches_the_predictor_as_headers(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """The trace and the pair id cross the hop; credentials do not."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model")
    message.parameters["do"].string_param = "busy"
    with pytest.raises(grpc.RpcError):
        fronting.rpc(
            "ModelInfer",
            message.SerializeToString(),
            x_shadow_pair_id=pair,
            traceparent="00-1-2-01",
            authorization="Bearer s3cret",
        )
    seen = next(s for s in scripted.seen if s.headers.get("x-shadow-pair-id") == pair)
    assert seen.headers["traceparent"] == "00-1-2-01"
    assert "authorization" not in seen.headers


def test_caller_that_leaves_is_recorded(
    fronting: Transformer, scripted: ScriptedPredictor, shared_uri: str
) -> None:
    """A caller that cancels ends its wait, not the call."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model")
    message.parameters["do"].string_param = "slow 5"
    with grpc.insecure_channel(fronting.grpc_address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        metadata = (("x-shadow-pair-id", pair),)
        left = call.future(message.SerializeToString(), metadata=metadata)
        until(lambda: any(s.headers.get("x-shadow-pair-id") == pair for s in scripted.seen), "call")
        assert left.cancel()
    assert left.code() is grpc.StatusCode.CANCELLED
    # The scripted answer is not a v2 response: the call went on until the predictor had answered.
    found = row(shared_uri, pair)
    assert found["status_code"] == 499
    assert found["error"] == "the caller left before the answer, which was 502"


def test_unknown_model_is_not_found(transformer: Transformer) -> None:
    """It reaches no model, so it is not a call."""
    with pytest.raises(grpc.RpcError) as refused:
        transformer.rpc("ModelInfer", request(name="other"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "Model with name other does not exist."


def test_concurrent_calls_each_have_a_row(transformer: Transformer, shared_uri: str) -> None:
    """Many callers on one channel."""
    pairs = [new_pair() for _ in range(40)]
    sent = request()
    with grpc.insecure_channel(transformer.grpc_address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        futures = [call.future(sent, metadata=(("x-shadow-pair-id", pair),)) for pair in pairs]
        received = [future.result() for future in futures]
    for pair, wire in zip(pairs, received, strict=True):
        assert bytes(row(shared_uri, pair)["response_raw"]) == wire


def test_call_in_flight_finishes_after_sigterm(
    folder: Any, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """The caller gets its answer, the row is written, and the exit code is 0."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model")
    message.parameters["do"].string_param = "slow 2"
    with Transformer(folder, shared_uri, scripted.address) as server:
        errors: list[str] = []

        def call() -> None:
            try:
                server.rpc("ModelInfer", message.SerializeToString(), x_shadow_pair_id=pair)
            except grpc.RpcError as failure:
                errors.append(failure.details())

        caller = threading.Thread(target=call)
        caller.start()
        until(lambda: any(s.headers.get("x-shadow-pair-id") == pair for s in scripted.seen), "call")
        assert server.stop() == 0, server.log
        caller.join()
    # It is the predictor's (scripted, REST) answer that is judged here, so the hop was finished.
    assert errors == ["the predictor's answer is not a v2 inference response"]
    assert row(shared_uri, pair)["status_code"] == 502
