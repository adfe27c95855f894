"""Open Inference Protocol messages between gRPC and REST, where the two sides differ.

A caller that sends raw tensors gets raw tensors: over REST they travel in the binary form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse

from minimal_transformer.exchange import JSON_HEADERS, Answer, RawHeaders
from minimal_transformer.failures import Failed, refusal
from minimal_transformer.predictor import messages, tensors
from minimal_transformer.predictor.messages import JSON_LENGTH
from minimal_transformer.predictor.tensors import BadTensor


def checked_request(wire: bytes) -> Any:
    """The request message in these bytes; one that contradicts itself is the caller's 400."""
    try:
        message = ModelInferRequest.FromString(wire)
    except DecodeError:
        raise Failed(refusal(400, "the request is no ModelInferRequest message")) from None
    raws = len(message.raw_input_contents)
    if raws and raws != len(message.inputs):
        reason = f"the request has {len(message.inputs)} inputs but {raws} raw_input_contents"
        raise Failed(refusal(400, reason))
    if raws and any(tensor.HasField("contents") for tensor in message.inputs):
        raise Failed(refusal(400, "an input has contents although raw_input_contents is used"))
    return message


def request_json(wire: bytes) -> bytes | None:
    """A gRPC request's JSON form, for the tables; None when the message is not readable."""
    try:
        return _request_json(ModelInferRequest.FromString(wire))
    except (DecodeError, BadTensor):
        return None


def response_json(wire: bytes) -> bytes | None:
    """A gRPC response's JSON form, for the tables; None when the message is not readable."""
    try:
        message = ModelInferResponse.FromString(wire)
        outputs = messages.with_data(message.outputs, message.raw_output_contents)
    except (DecodeError, BadTensor):
        return None
    return _dumped(messages.head_of(message) | {"outputs": outputs})


def rest_from_grpc_request(wire: bytes) -> tuple[bytes, dict[str, str]]:
    """A gRPC request as the body of a v2 REST request, and the headers that describe it."""
    message = checked_request(wire)
    if not message.raw_input_contents:
        try:
            return _request_json(message), {"content-type": "application/json"}
        except BadTensor as failure:
            raise Failed(refusal(400, str(failure))) from None
    head = messages.head_of(message)
    head["parameters"] = {**head.get("parameters", {}), "binary_data_output": True}
    head["inputs"] = [
        messages.described(tensor, raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    ]
    if message.outputs:
        head["outputs"] = messages.asked_outputs(message)
    dumped = _dumped(head)
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(dumped))}
    return dumped + b"".join(message.raw_input_contents), headers


def grpc_from_rest_answer(answer: Answer) -> Answer:
    """A v2 REST answer as the gRPC caller gets it; a failure stays what it is."""
    if answer.status != 200:
        return answer
    lengths = [value for name, value in answer.headers if name == JSON_LENGTH.encode()]
    message = ModelInferResponse()
    try:
        head, tail = messages.split(answer.body, lengths[0].decode() if lengths else None)
        messages.fill_head(message, head)
        messages.fill(message.outputs, message.raw_output_contents, head["outputs"], tail)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Failed(refusal(502, "the predictor's answer is no v2 inference response")) from None
    return Answer(200, message.SerializeToString(), [])


def grpc_from_rest_request(body: bytes, headers: Mapping[str, str], model_name: str) -> bytes:
    """A v2 REST request as a gRPC message; a body that is none is the caller's 400."""
    message = ModelInferRequest()
    try:
        head, tail = messages.split(body, headers.get(JSON_LENGTH))
        messages.fill_head(message, head | {"model_name": model_name})
        messages.fill(message.inputs, message.raw_input_contents, head["inputs"], tail)
        for output in head.get("outputs") or ():
            asked = message.outputs.add(name=output["name"])
            messages.fill_parameters(asked.parameters, output.get("parameters"))
    except KeyError as failure:
        raise Failed(refusal(400, f"the request has no {failure}")) from None
    except (TypeError, ValueError, AttributeError) as failure:
        raise Failed(refusal(400, f"Unrecognized request format: {failure}")) from None
    wire: bytes = message.SerializeToString()
    return wire


def rest_from_grpc_response(wire: bytes, request_wire: bytes) -> Answer:
    """A gRPC response as a v2 REST answer, in the form that the request asked for."""
    message = ModelInferResponse.FromString(wire)
    try:
        with_data = messages.with_data(message.outputs, message.raw_output_contents)
    except BadTensor:
        raise Failed(refusal(502, "the predictor's answer is no v2 inference response")) from None
    in_binary = _wants_binary(ModelInferRequest.FromString(request_wire))
    outputs, raws = [], []
    for tensor, written in zip(message.outputs, with_data, strict=True):
        if in_binary.get(tensor.name, in_binary[""]):
            raws.append(tensors.to_raw(tensor.datatype, written["data"]))
            outputs.append(messages.described(tensor, raws[-1]))
        else:
            outputs.append(written)
    dumped = _dumped(messages.head_of(message) | {"outputs": outputs})
    if not raws:
        return Answer(200, dumped, JSON_HEADERS)
    headers: RawHeaders = [
        (b"content-type", b"application/octet-stream"),
        (JSON_LENGTH.encode(), b"%d" % len(dumped)),
    ]
    return Answer(200, dumped + b"".join(raws), headers)


def _request_json(message: Any) -> bytes:
    head = messages.head_of(message)
    head["inputs"] = messages.with_data(message.inputs, message.raw_input_contents)
    if message.outputs:
        head["outputs"] = messages.asked_outputs(message)
    return _dumped(head)


def _wants_binary(request: Any) -> dict[str, bool]:
    """For each named output, and under "" for all others, whether the binary form is wanted."""
    default = messages.parameters_of(request).get("binary_data_output") is True
    asked = {o.name: messages.parameters_of(o).get("binary_data") for o in request.outputs}
    return {"": default} | {
        n: default if want is None else want is True for n, want in asked.items()
    }


def _dumped(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
