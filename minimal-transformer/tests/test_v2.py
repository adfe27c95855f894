"""Messages between gRPC and REST, for the forms that the example model does not use."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from minimal_transformer.exchange import JSON_HEADERS, Answer
from minimal_transformer.failures import Failed
from minimal_transformer.predictor import v2

DTYPES = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "INT8": "i1",
    "UINT64": "<u8",
    "INT64": "<i8",
}


@pytest.mark.parametrize("datatype", DTYPES)
def test_raw_numbers_keep_their_values(datatype: str) -> None:
    """From bytes to values and back gives the same bytes."""
    raw = np.array([0, 1, 100], DTYPES[datatype]).tobytes()
    values = v2.from_raw(datatype, raw)
    assert list(values) == [0, 1, 100]
    assert v2.to_raw(datatype, values) == raw


def test_bf16_keeps_its_values() -> None:
    """numpy has no such type, so the upper half of a float32 is taken by hand."""
    raw = b"\x80\x3f\x00\xc0"
    assert list(v2.from_raw("BF16", raw)) == [1.0, -2.0]
    assert v2.to_raw("BF16", [1.0, -2.0]) == raw


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_bytes_tensors_survive_the_way_to_json_and_back(items: list[bytes]) -> None:
    """UTF-8 as text, everything else as base64."""
    raw = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    values = json.loads(json.dumps(v2.from_raw("BYTES", raw)))
    assert v2.to_raw("BYTES", values) == raw


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("FP32", b"123"), ("BYTES", b"\x09\x00\x00\x00abc"), ("BYTES", b"\x01"), ("FP8", b"1")],
)
def test_raw_contents_that_do_not_fit_are_refused(datatype: str, raw: bytes) -> None:
    """Cut elements and unknown datatypes."""
    with pytest.raises(v2.BadTensor):
        v2.from_raw(datatype, raw)


def test_nan_is_null_in_the_tables_and_kept_on_the_wire() -> None:
    """JSON has no NaN; the raw column has the message's bytes."""
    message = pb.ModelInferResponse(model_name="m")
    output = message.outputs.add(name="y", datatype="FP64", shape=[2])
    output.contents.fp64_contents.extend([float("nan"), 1.5])
    found = v2.response_json(message.SerializeToString())
    assert found is not None
    assert json.loads(found)["outputs"][0]["data"] == [None, 1.5]


def test_unreadable_messages_have_no_json_form() -> None:
    """The row then has the bytes alone."""
    assert v2.request_json(b"\xff") is None
    assert v2.response_json(b"\xff") is None
    short = pb.ModelInferRequest(raw_input_contents=[b"123"])
    short.inputs.add(name="x", datatype="FP32", shape=[1])
    assert v2.request_json(short.SerializeToString()) is None


def test_parameters_and_wanted_outputs_cross_the_bridge() -> None:
    """gRPC to REST and back to gRPC."""
    message = pb.ModelInferRequest(model_name="m", id="7")
    message.parameters["flag"].bool_param = True
    message.parameters["count"].int64_param = 3
    message.inputs.add(name="x", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"hi")
    message.outputs.add(name="y").parameters["classification"].int64_param = 2
    body, headers = v2.rest_from_grpc_request(message, in_binary=True)
    document = json.loads(body)
    assert document["parameters"] == {"flag": True, "count": 3}
    assert document["inputs"][0]["data"] == ["hi"]
    assert document["outputs"] == [{"name": "y", "parameters": {"classification": 2}}]
    assert headers == {"content-type": "application/json"}
    back = pb.ModelInferRequest.FromString(v2.grpc_from_rest_request(body, {}, "m", ""))
    assert back == message


def test_mixed_answer_becomes_raw_as_a_whole() -> None:
    """gRPC knows raw contents for all tensors or for none."""
    outputs = [
        {"name": "a", "shape": [1], "datatype": "FP32", "data": [1.5]},
        {"name": "b", "shape": [1], "datatype": "FP16", "data": [2.5]},
    ]
    body = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    answer = v2.grpc_from_rest_answer(Answer(200, body, JSON_HEADERS), raw=False)
    message = pb.ModelInferResponse.FromString(answer.body)
    assert np.frombuffer(message.raw_output_contents[0], "<f4").tolist() == [1.5]
    assert np.frombuffer(message.raw_output_contents[1], "<f2").tolist() == [2.5]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"outputs": [{"name": "a", "shape": [1], "datatype": "FP32"}]}',
        b'{"outputs": [{"name": "a", "shape": [1], "datatype": "INT8", "data": [300]}]}',
        b'{"outputs": [{"name": "a", "shape": ["x"], "datatype": "FP32", "data": [1]}]}',
        b'{"outputs": [{"name": "a", "shape": [1], "datatype": "FP32", "parameters": 4}]}',
        b'{"outputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": {"b": 1}}]}',
    ],
)
def test_answer_that_is_no_v2_response_is_502(body: bytes) -> None:
    """Whatever the predictor sends, the gRPC caller gets a code and never a crash."""
    with pytest.raises(Failed) as failed:
        v2.grpc_from_rest_answer(Answer(200, body, JSON_HEADERS), raw=False)
    assert failed.value.answer.status == 502
