"""Open Inference Protocol messages between gRPC, REST and the tables, where the forms differ.

A caller that sends raw tensors gets raw tensors: over REST they travel in the binary form.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from google.protobuf.message import DecodeError
from kserve.protocol.grpc.grpc_predict_v2_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
)

# FP16 and BF16 exist in raw form only.
from kserve.protocol.infer_type import GRPC_CONTENT_DATATYPE_MAPPINGS as CONTENTS_FIELDS
from kserve.utils.numpy_codec import to_np_dtype
from numpy.typing import NDArray

from minimal_transformer.exchange import JSON_HEADERS, Answer, RawHeaders
from minimal_transformer.failures import Failed, refusal, unreadable

# The header with the offset where the JSON of a body in binary form ends.
JSON_LENGTH = "inference-header-content-length"
_NOT_A_RESPONSE = "the predictor's answer is not a v2 inference response"


class BadTensor(ValueError):
    """A tensor whose bytes, values and datatype do not belong together."""


def checked_request(wire: bytes) -> Any:
    """The request message in these bytes; one that contradicts itself is the caller's 400."""
    try:
        message = ModelInferRequest.FromString(wire)
    except DecodeError:
        raise Failed(refusal(400, "the request is not a ModelInferRequest message")) from None
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
        outputs = _with_data(message.outputs, message.raw_output_contents)
    except (DecodeError, BadTensor):
        return None
    return _dumped(_head_of(message) | {"outputs": outputs})


def rest_from_grpc_request(message: Any, *, in_binary: bool) -> tuple[bytes, dict[str, str]]:
    """A gRPC request as the body of a v2 REST request, and the headers that describe it.

    Raw tensors stay in binary form where the predictor takes it, and are JSON where not.
    """
    if not (in_binary and message.raw_input_contents):
        try:
            return _request_json(message), {"content-type": "application/json"}
        except BadTensor as failure:
            raise Failed(refusal(400, str(failure), quotes=True)) from None
    head = _head_of(message)
    head["parameters"] = {**head.get("parameters", {}), "binary_data_output": True}
    head["inputs"] = [
        _described(tensor, raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    ]
    if message.outputs:
        # KServe does not look at the parameter for all where outputs are named.
        head["outputs"] = [
            named | {"parameters": {"binary_data": True, **named.get("parameters", {})}}
            for named in map(_named, message.outputs)
        ]
    dumped = _dumped(head)
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(dumped))}
    return dumped + b"".join(message.raw_input_contents), headers


def grpc_from_rest_answer(answer: Answer, *, raw: bool) -> Answer:
    """A v2 REST answer as the gRPC caller gets it; a failure stays what it is.

    `raw` as the request was: a client that sends raw tensors reads no others.
    """
    if answer.status != 200:
        return answer
    lengths = [value for name, value in answer.headers if name == JSON_LENGTH.encode()]
    message = ModelInferResponse()
    try:
        head, tail = split_body(answer.body, lengths[0].decode() if lengths else None)
        _fill_head(message, head)
        _fill(message.outputs, message.raw_output_contents, head["outputs"], tail, raw=raw)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Failed(refusal(502, _NOT_A_RESPONSE)) from None
    return Answer(200, message.SerializeToString(), [])


def grpc_from_rest_request(
    body: bytes, headers: Mapping[str, str], model_name: str, version: str
) -> bytes:
    """A v2 REST request as a gRPC message; a body that is not one is the caller's 400."""
    message = ModelInferRequest()
    try:
        head, tail = split_body(body, headers.get(JSON_LENGTH))
        _fill_head(message, head | {"model_name": model_name, "model_version": version})
        _fill(message.inputs, message.raw_input_contents, head["inputs"], tail)
        for output in head.get("outputs") or ():
            wanted = message.outputs.add(name=output["name"])
            _fill_parameters(wanted.parameters, output.get("parameters"))
    except (KeyError, TypeError, ValueError, AttributeError) as failure:
        raise unreadable(failure) from None
    wire: bytes = message.SerializeToString()
    return wire


def rest_from_grpc_response(wire: bytes, request_wire: bytes) -> Answer:
    """A gRPC response as a v2 REST answer, in the form that the request asked for."""
    message = ModelInferResponse.FromString(wire)
    try:
        with_data = _with_data(message.outputs, message.raw_output_contents)
    except BadTensor:
        raise Failed(refusal(502, _NOT_A_RESPONSE)) from None
    in_binary = _wants_binary(ModelInferRequest.FromString(request_wire))
    outputs, raws = [], []
    for tensor, written in zip(message.outputs, with_data, strict=True):
        if in_binary.get(tensor.name, in_binary[""]):
            raws.append(to_raw(tensor.datatype, written["data"]))
            outputs.append(_described(tensor, raws[-1]))
        else:
            outputs.append(written)
    dumped = _dumped(_head_of(message) | {"outputs": outputs})
    if not raws:
        return Answer(200, dumped, JSON_HEADERS)
    headers: RawHeaders = [
        (b"content-type", b"application/octet-stream"),
        (JSON_LENGTH.encode(), b"%d" % len(dumped)),
    ]
    return Answer(200, dumped + b"".join(raws), headers)


def metadata_document(message: Any) -> dict[str, Any]:
    """A ModelMetadata message as REST writes it."""
    return {
        "name": message.name,
        "versions": list(message.versions),
        "platform": message.platform,
        "inputs": [_described_tensor(tensor) for tensor in message.inputs],
        "outputs": [_described_tensor(tensor) for tensor in message.outputs],
    }


def metadata_message(document: Mapping[str, Any]) -> Any:
    """What REST says about a model as a ModelMetadata message, without what that has no place for.

    ValueError where it is not what v2 says.
    """
    message = ModelMetadataResponse(
        name=str(document.get("name", "")),
        platform=str(document.get("platform", "")),
        versions=map(str, document.get("versions") or ()),
    )
    try:
        for target, tensors in ((message.inputs, "inputs"), (message.outputs, "outputs")):
            for tensor in document.get(tensors) or ():
                shape = map(int, tensor["shape"])
                target.add(name=tensor["name"], datatype=tensor["datatype"], shape=shape)
    except (KeyError, TypeError, AttributeError) as failure:
        raise ValueError(f"the predictor's metadata is not v2's: {failure!r}") from None
    return message


def from_raw(datatype: str, raw: bytes) -> NDArray[Any] | list[Any]:
    """The flat values in a tensor's binary form."""
    dtype = None if datatype == "BF16" else _dtype(datatype)
    try:
        if datatype == "BYTES":
            return [bytes_as_json(item) for item in elements(raw)]
        if datatype == "BF16":
            return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        values = np.frombuffer(raw, dtype)
    except (ValueError, struct.error) as failure:
        raise BadTensor(f"{len(raw)} bytes are not a {datatype} tensor: {failure}") from None
    return values.astype("<f4") if datatype == "FP16" else values


def to_raw(datatype: str, data: Any) -> bytes:
    """A tensor's binary form, from JSON data, flat or nested."""
    if datatype == "BYTES":
        items = [_bytes(item) for item in _flat(data)]
        return b"".join(struct.pack("<I", len(item)) + item for item in items)
    if datatype == "BF16":
        return (_array("FP32", data).view("<u4") >> 16).astype("<u2").tobytes()
    return _array(datatype, data).tobytes()


def _request_json(message: Any) -> bytes:
    head = _head_of(message)
    head["inputs"] = _with_data(message.inputs, message.raw_input_contents)
    if message.outputs:
        head["outputs"] = [_named(output) for output in message.outputs]
    return _dumped(head)


def _wants_binary(request: Any) -> dict[str, bool]:
    """For each named output, and under "" for all others, whether the binary form is wanted."""
    default = _parameters_of(request).get("binary_data_output") is True
    wanted = {"": default}
    for output in request.outputs:
        choice = _parameters_of(output).get("binary_data")
        wanted[output.name] = default if choice is None else choice is True
    return wanted


def _dumped(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def split_body(body: bytes, json_length: str | None) -> tuple[dict[str, Any], bytes]:
    """A REST body's JSON and the binary tensors behind it; ValueError when it has no such form."""
    length = len(body) if json_length is None else int(json_length)
    if not 0 <= length <= len(body):
        raise ValueError(f"{JSON_LENGTH} is {length} but the body has {len(body)} bytes")
    parsed = orjson.loads(body[:length])
    if not isinstance(parsed, dict):
        raise ValueError("the body must be a JSON object")
    return parsed, body[length:]


def _parameters_of(message: Any) -> dict[str, Any]:
    """A gRPC message's or tensor's parameters as plain values."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in message.parameters.items()
        if value.WhichOneof("parameter_choice")
    }


def _head_of(message: Any) -> dict[str, Any]:
    """What REST writes of a gRPC message before its tensors."""
    head: dict[str, Any] = {"model_name": message.model_name}
    if message.model_version:
        head["model_version"] = message.model_version
    if message.id:
        head["id"] = message.id
    if parameters := _parameters_of(message):
        head["parameters"] = parameters
    return head


def _described_tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _named(part: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"name": part.name}
    if parameters := _parameters_of(part):
        head["parameters"] = parameters
    return head


def _described(tensor: Any, raw: bytes | None = None) -> dict[str, Any]:
    """A gRPC tensor without its values; with their size when raw holds them behind the JSON."""
    head = _named(tensor)
    if raw is not None:
        head["parameters"] = {**head.get("parameters", {}), "binary_data_size": len(raw)}
    return head | {"shape": list(tensor.shape), "datatype": tensor.datatype}


def _with_data(found: Iterable[Any], raws: Sequence[bytes]) -> list[dict[str, Any]]:
    """gRPC tensors with their values, flat; BadTensor when they do not fit their datatype."""
    written = []
    for index, tensor in enumerate(found):
        if not raws:
            values = _from_contents(tensor.datatype, tensor.contents)
        elif index < len(raws):
            values = from_raw(tensor.datatype, raws[index])
        else:
            raise BadTensor(f"tensor {tensor.name!r} has no raw contents")
        written.append(_described(tensor) | {"data": values})
    return written


def _fill_head(message: Any, head: Mapping[str, Any]) -> None:
    """Put what REST writes before the tensors into a gRPC message."""
    message.id = head.get("id") or ""
    message.model_name = head.get("model_name") or ""
    message.model_version = head.get("model_version") or ""
    _fill_parameters(message.parameters, head.get("parameters"))


def _fill_parameters(target: Any, parameters: Mapping[str, Any] | None) -> None:
    """Put REST's parameters into a gRPC message; gRPC has no form for other types."""
    for name, value in (parameters or {}).items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = value
        elif isinstance(value, str):
            target[name].string_param = value


def _fill(
    target: Any, raw_target: Any, found: Sequence[Any], tail: bytes, *, raw: bool = False
) -> None:
    """Put REST's tensors into a gRPC message: all raw as soon as one is, as gRPC demands."""
    sizes = [(tensor.get("parameters") or {}).get("binary_data_size") for tensor in found]
    raw = (
        raw
        or any(size is not None for size in sizes)
        or any(tensor["datatype"] not in CONTENTS_FIELDS for tensor in found)
    )
    for tensor, size in zip(found, sizes, strict=True):
        datatype = tensor["datatype"]
        shape = [int(side) for side in tensor["shape"]]
        added = target.add(name=tensor["name"], datatype=datatype, shape=shape)
        parameters = dict(tensor.get("parameters") or {})
        parameters.pop("binary_data_size", None)
        _fill_parameters(added.parameters, parameters)
        if size is not None:
            if size > len(tail):
                raise ValueError(f"tensor {tensor['name']!r} is longer than the body")
            raw_target.append(tail[:size])
            tail = tail[size:]
        elif raw:
            raw_target.append(to_raw(datatype, tensor["data"]))
        else:
            values = _to_contents(datatype, tensor["data"])
            getattr(added.contents, CONTENTS_FIELDS[datatype]).extend(values)


def _from_contents(datatype: str, contents: Any) -> NDArray[Any] | list[Any]:
    """The flat values in a gRPC tensor's typed contents."""
    if datatype not in CONTENTS_FIELDS:
        raise BadTensor(f"a tensor of datatype {datatype!r} must be sent in raw form")
    values = getattr(contents, CONTENTS_FIELDS[datatype])
    if datatype == "BYTES":
        return [bytes_as_json(item) for item in values]
    # As float32 the text form is the shortest one: 0.1 and not 0.10000000149011612.
    return _array(datatype, values)


def _to_contents(datatype: str, data: Any) -> list[Any]:
    """Values for a gRPC tensor's typed contents, from JSON data, flat or nested."""
    if datatype == "BYTES":
        return [_bytes(item) for item in _flat(data)]
    return list(_array(datatype, data).tolist())


def _dtype(datatype: str) -> Any:
    dtype = to_np_dtype(datatype)
    if dtype is None:
        raise BadTensor(f"datatype {datatype!r} is unknown")
    return dtype


def _array(datatype: str, data: Any) -> NDArray[Any]:
    dtype = _dtype(datatype)
    try:
        return np.asarray(data, dtype).ravel()
    except (ValueError, TypeError, OverflowError) as failure:
        raise BadTensor(f"the data is not a {datatype} tensor: {failure}") from None


def _flat(data: Any) -> Iterator[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def elements(raw: bytes) -> list[bytes]:
    items, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise ValueError("an element is longer than the rest")
        items.append(raw[at : at + length])
        at += length
    return items


def bytes_as_json(item: bytes) -> Any:
    """A BYTES element as JSON: text, or KServe's {"b64": ...} where it is not UTF-8."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(item).decode()}


def _bytes(item: Any) -> bytes:
    if isinstance(item, dict) and isinstance(item.get("b64"), str):
        return base64.b64decode(item["b64"])
    if isinstance(item, str):
        return item.encode()
    raise BadTensor(f"a BYTES element must be text, not {item!r:.40}")
