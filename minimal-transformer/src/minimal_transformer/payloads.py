"""Calls and answers as hooks get them, and on their way from a hook to the predictor or the caller.

A hook sees what KServe's transformers see. A call to v1 or to OpenAI's API is the JSON value of its
body, a call to v2 is an InferRequest over REST and gRPC alike, and their answers are a JSON value
and an InferResponse. What cannot be either, an image that is posted as it is, stays bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import orjson
from kserve import InferInput, InferOutput, InferRequest, InferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse
from kserve.protocol.infer_type import GRPC_CONTENT_DATATYPE_MAPPINGS as CONTENTS_FIELDS
from kserve.protocol.infer_type import RequestedOutput, to_http_parameters

from minimal_transformer.exchange import (
    JSON_HEADERS,
    Answer,
    Arrival,
    Protocol,
    RawHeaders,
    Route,
)
from minimal_transformer.failures import Failed, refusal, unreadable
from minimal_transformer.predictor.v2 import (
    JSON_LENGTH,
    BadTensor,
    bytes_as_json,
    checked_request,
    elements,
    from_raw,
    split_body,
    to_raw,
)

# What a hook gets and returns: a JSON value, KServe's object, or bytes.
Payload = dict[str, Any] | list[Any] | InferRequest | bytes
Result = dict[str, Any] | list[Any] | InferResponse | bytes
Headers = dict[str, str]

# A form is what `curl -d` calls a body whose type nobody named.
_NO_TYPE = frozenset({"", "application/x-www-form-urlencoded"})
_DESCRIBES_A_BODY = ("content-type", "content-encoding", "content-length", JSON_LENGTH)


class HookMistake(TypeError):
    """A hook returned what cannot be sent on."""


def payload_of(arrival: Arrival) -> Any:
    """A call as preprocess gets it; Failed with a 400 for one that cannot be read."""
    protocol, body, headers = arrival.route.protocol, arrival.body, arrival.headers
    if protocol == "grpc":
        return _request_of_message(checked_request(body))
    if protocol == "v2":
        return _request_of_rest(arrival)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if protocol == "other" and not _is_json(kind):
        return body
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as failure:
        if protocol == "other" or not (_is_json(kind) or kind in _NO_TYPE):
            return body
        raise Failed(refusal(400, f"the body is not JSON: {failure}", quotes=True)) from None


def result_of(answer: Answer, protocol: str) -> Any:
    """A predictor's answer as postprocess gets it; Failed with a 502 when it is not what it says.

    `protocol` is the one in which the predictor was asked.
    """
    try:
        if protocol == "grpc":
            return _response_of_message(ModelInferResponse.FromString(answer.body))
        if protocol == "v2":
            return _response_of_rest(answer)
    except (KeyError, TypeError, ValueError, AttributeError):
        reason = "the predictor's answer is not a v2 inference response"
        raise Failed(refusal(502, reason)) from None
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return _python_json(answer.body)


def _python_json(body: bytes) -> Any:
    """JSON with Python's NaN and Infinity in it; the bytes themselves when they are not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return body


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


class _Raw:
    """A tensor that came in binary form; its list of values is made when somebody asks for it.

    KServe makes it at once over REST, which takes longer than the model for an image, and never
    over gRPC, where `data` is empty.
    """

    _datatype: str
    _raw_data: bytes | None
    _data: Any

    @property
    def data(self) -> Any:
        """The flat values, as KServe has them of a tensor in JSON."""
        if self._data is None and self._raw_data is not None:
            return _values(self._datatype, self._raw_data)
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data, self._raw_data = data, None


class RawInput(_Raw, InferInput):  # type: ignore[misc]
    """An input tensor in binary form."""


class RawOutput(_Raw, InferOutput):  # type: ignore[misc]
    """An output tensor in binary form."""


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        return [_text(item) for item in elements(raw)]
    values: list[Any] = np.asarray(from_raw(datatype, raw)).tolist()
    return values


def _text(item: bytes) -> str | bytes:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item


def _raw_tensor(kind: Any, raw: bytes, **described: Any) -> Any:
    tensor = kind(**described)
    tensor._raw_data = raw
    return tensor


def _request_of_message(message: Any) -> InferRequest:
    request = InferRequest.from_grpc(message) if not message.raw_input_contents else None
    if request is None:
        inputs = [
            _raw_tensor(RawInput, raw, **_description(tensor))
            for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
        ]
        outputs = [
            RequestedOutput(o.name, to_http_parameters(o.parameters)) for o in message.outputs
        ]
        request = InferRequest(
            message.model_name,
            inputs,
            message.id,
            from_grpc=True,
            request_outputs=outputs or None,
            model_version=message.model_version,
        )
    request.parameters = to_http_parameters(message.parameters)
    return request


def _response_of_message(message: Any) -> InferResponse:
    if not message.raw_output_contents:
        return InferResponse.from_grpc(message)
    outputs = [
        _raw_tensor(RawOutput, raw, **_description(tensor))
        for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    ]
    return InferResponse(
        message.id,
        message.model_name,
        outputs,
        message.model_version,
        from_grpc=True,
        parameters=to_http_parameters(message.parameters),
    )


def _description(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "parameters": to_http_parameters(tensor.parameters),
    }


def _request_of_rest(arrival: Arrival) -> InferRequest:
    try:
        head, tail = split_body(arrival.body, arrival.headers.get(JSON_LENGTH))
        outputs = [
            RequestedOutput(output["name"], output.get("parameters"))
            for output in head.get("outputs") or ()
        ]
        return InferRequest(
            arrival.route.model_name,
            _tensors(InferInput, RawInput, head["inputs"], tail),
            head.get("id"),
            parameters=head.get("parameters"),
            request_outputs=outputs or None,
            model_version=arrival.route.model_version,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as failure:
        raise unreadable(failure) from None


def _response_of_rest(answer: Answer) -> InferResponse:
    lengths = [value for name, value in answer.headers if name == JSON_LENGTH.encode()]
    head, tail = split_body(answer.body, lengths[0].decode() if lengths else None)
    return InferResponse(
        head.get("id"),
        head.get("model_name"),
        _tensors(InferOutput, RawOutput, head["outputs"], tail),
        head.get("model_version"),
        parameters=head.get("parameters"),
    )


def _tensors(in_json: Any, in_binary: Any, found: Iterable[Any], tail: bytes) -> list[Any]:
    """The tensors of a REST body; KeyError, TypeError or ValueError for what is not one."""
    tensors = []
    for tensor in found:
        parameters = dict(tensor.get("parameters") or {})
        described = {name: tensor[name] for name in ("name", "shape", "datatype")}
        size = parameters.get("binary_data_size")
        if size is None:
            tensors.append(in_json(**described, data=tensor["data"], parameters=parameters))
            continue
        if not 0 <= size <= len(tail):
            raise ValueError(f"tensor {tensor['name']!r} is longer than the body")
        tensors.append(_raw_tensor(in_binary, tail[:size], **described, parameters=parameters))
        tail = tail[size:]
    return tensors


def sent_on(payload: Any, arrival: Arrival, routes: Mapping[Protocol, Route]) -> Arrival:
    """The call that the predictor gets of what preprocess returned; HookMistake when that is odd.

    The form decides: an InferRequest goes to v2, also for a caller of v1, and a JSON value to v1,
    or to v2 when it has `inputs` and its caller speaks v2. `routes` gives a protocol's route.
    """
    if isinstance(payload, bytes | str):
        return arrival._replace(body=payload.encode() if isinstance(payload, str) else payload)
    route = arrival.route
    if isinstance(payload, InferRequest):
        if route.protocol == "grpc":
            return arrival._replace(body=_request_message(payload).SerializeToString())
        if route.protocol != "v2" and route.verb == "predict":
            route = routes["v2"]
        body, described = _in_rest(_request_head(payload), "inputs", payload.inputs, _is_raw)
    elif payload is None or isinstance(payload, InferResponse):
        raise HookMistake(
            f"preprocess returned {type(payload).__name__}; "
            "return a JSON value, an InferRequest or bytes"
        )
    else:
        is_v2 = isinstance(payload, Mapping) and isinstance(payload.get("inputs"), list)
        if route.protocol == "grpc" or (route.protocol == "v2" and not is_v2):
            route = routes["v2" if is_v2 else "v1"]
        body, described = _json(payload, "preprocess"), JSON_HEADERS
    headers = {n: v for n, v in arrival.headers.items() if n not in _DESCRIBES_A_BODY}
    headers |= {name.decode(): value.decode() for name, value in described}
    return arrival._replace(route=route, body=body, headers=headers)


def sent_back(result: Any, arrival: Arrival, headers: RawHeaders) -> Answer:
    """The answer that the caller gets of what postprocess returned; HookMistake when that is odd.

    `headers` are the predictor's; those that described its body describe it no more.
    """
    is_grpc = arrival.route.protocol == "grpc"
    if isinstance(result, InferResponse):
        if is_grpc:
            return Answer(200, _response_message(result, arrival).SerializeToString(), [])
        in_binary = _wanted_in_binary(arrival)
        body, described = _in_rest(_response_head(result), "outputs", result.outputs, in_binary)
    elif isinstance(result, bytes | str):
        body = result.encode() if isinstance(result, str) else result
        return Answer(200, body, [] if is_grpc else headers)
    elif is_grpc or result is None or isinstance(result, InferRequest):
        kinds = "an InferResponse" if is_grpc else "a JSON value, an InferResponse or bytes"
        raise HookMistake(f"postprocess returned {type(result).__name__}; return {kinds}")
    else:
        body, described = _json(result, "postprocess"), JSON_HEADERS
    kept = [pair for pair in headers if pair[0].decode("latin-1") not in _DESCRIBES_A_BODY]
    return Answer(200, body, [*described, *kept])


def _json(value: Any, hook: str) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as failure:
        raise HookMistake(f"{hook} returned what JSON cannot hold: {failure}") from None


def _is_raw(tensor: Any) -> bool:
    return tensor._raw_data is not None


def _request_head(request: InferRequest) -> dict[str, Any]:
    head: dict[str, Any] = {"id": request.id} if request.id else {}
    if request.parameters:
        head["parameters"] = to_http_parameters(request.parameters)
    if request.request_outputs:
        head["outputs"] = [
            {
                "name": output.name,
                **({"parameters": output.parameters} if output.parameters else {}),
            }
            for output in request.request_outputs
        ]
    return head


def _response_head(response: InferResponse) -> dict[str, Any]:
    head = {"id": response.id, "model_name": response.model_name}
    head["model_version"] = response.model_version
    head["parameters"] = to_http_parameters(response.parameters or {})
    return {name: value for name, value in head.items() if value}


def _in_rest(
    head: dict[str, Any], key: str, tensors: Iterable[Any], in_binary: Callable[[Any], bool]
) -> tuple[bytes, RawHeaders]:
    """A v2 body over REST, and the headers that describe it."""
    written, raws = [], []
    for tensor in tensors:
        parameters = to_http_parameters(tensor.parameters or {})
        parameters.pop("binary_data_size", None)
        item = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
        if in_binary(tensor):
            raws.append(_raw_of(tensor))
            parameters["binary_data_size"] = len(raws[-1])
        else:
            item["data"] = _json_values(tensor)
        written.append(item | ({"parameters": parameters} if parameters else {}))
    dumped = _json(head | {key: written}, "preprocess" if key == "inputs" else "postprocess")
    if not raws:
        return dumped, JSON_HEADERS
    described = [
        (b"content-type", b"application/octet-stream"),
        (JSON_LENGTH.encode(), b"%d" % len(dumped)),
    ]
    return b"".join((dumped, *raws)), described


def _wanted_in_binary(arrival: Arrival) -> Callable[[Any], bool]:
    """Which outputs the caller of v2 over REST wants in binary form."""
    if arrival.route.protocol != "v2":
        return lambda _: False
    request = _request_of_rest(arrival)
    default = (request.parameters or {}).get("binary_data_output") is True
    named = {output.name: output.binary_data for output in request.request_outputs or ()}

    def is_wanted(tensor: Any) -> bool:
        choice = named.get(tensor.name)
        return default if choice is None else choice is True

    return is_wanted


def _json_values(tensor: Any) -> Any:
    """A tensor's values as JSON has them; HookMistake where there are none."""
    data = tensor.data
    if data is None:
        raise HookMistake(f"tensor {tensor.name!r} has no data")
    if isinstance(data, np.ndarray):
        data = data.ravel().tolist()
    if tensor.datatype == "BYTES":
        return _in_json(data)
    return data


def _in_json(data: Any) -> Any:
    """A BYTES tensor's values, flat or nested, with text in place of bytes."""
    if isinstance(data, list | tuple):
        return [_in_json(item) for item in data]
    return bytes_as_json(data) if isinstance(data, bytes) else data


def _raw_of(tensor: Any) -> bytes:
    """A tensor's binary form; HookMistake where its values and its datatype differ."""
    if tensor._raw_data is not None:
        return bytes(tensor._raw_data)
    try:
        return to_raw(tensor.datatype, _json_values(tensor))
    except BadTensor as failure:
        raise HookMistake(f"tensor {tensor.name!r}: {failure}") from None


def _request_message(request: InferRequest) -> Any:
    """A request over gRPC, raw as soon as one tensor is, as gRPC demands."""
    request.inputs = _for_grpc(InferInput, request.inputs, raw=False)
    return request.to_grpc()


def _response_message(response: InferResponse, arrival: Arrival) -> Any:
    """An answer over gRPC; a client that sends raw tensors reads no others."""
    raw = bool(checked_request(arrival.body).raw_input_contents)
    response.outputs = _for_grpc(InferOutput, response.outputs, raw=raw)
    return response.to_grpc()


def _for_grpc(kind: Any, tensors: Iterable[Any], *, raw: bool) -> list[Any]:
    """The tensors, all raw or none, for KServe's to_grpc."""
    tensors = list(tensors)
    raw = raw or any(
        _is_raw(t) or isinstance(t.data, np.ndarray) or t.datatype not in CONTENTS_FIELDS
        for t in tensors
    )
    written = []
    for tensor in tensors:
        parameters = to_http_parameters(tensor.parameters or {})
        parameters.pop("binary_data_size", None)
        plain = kind(tensor.name, list(tensor.shape), tensor.datatype, parameters=parameters)
        if raw:
            plain._raw_data = _raw_of(tensor)
        else:
            plain.data = np.asarray(tensor.data, dtype=object).ravel().tolist()
        written.append(plain)
    return written
