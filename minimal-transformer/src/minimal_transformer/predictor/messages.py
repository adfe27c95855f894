"""The parts of Open Inference Protocol messages that gRPC and REST write differently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from minimal_transformer.predictor import tensors
from minimal_transformer.predictor.tensors import BadTensor

# The header that tells where the JSON of a body in binary form ends.
JSON_LENGTH = "inference-header-content-length"


def split(body: bytes, json_length: str | None) -> tuple[dict[str, Any], bytes]:
    """A REST body's JSON and the binary tensors behind it; ValueError when it has no such form."""
    length = len(body) if json_length is None else int(json_length)
    if not 0 <= length <= len(body):
        raise ValueError(f"{JSON_LENGTH} is {length} but the body has {len(body)} bytes")
    parsed = orjson.loads(body[:length])
    if not isinstance(parsed, dict):
        raise ValueError("the body must be a JSON object")
    return parsed, body[length:]


def parameters_of(message: Any) -> dict[str, Any]:
    """A gRPC message's or tensor's parameters as plain values."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice"))
        for name, value in message.parameters.items()
        if value.WhichOneof("parameter_choice")
    }


def head_of(message: Any) -> dict[str, Any]:
    """What REST writes of a gRPC message before its tensors."""
    head: dict[str, Any] = {"model_name": message.model_name}
    if message.model_version:
        head["model_version"] = message.model_version
    if message.id:
        head["id"] = message.id
    if parameters := parameters_of(message):
        head["parameters"] = parameters
    return head


def asked_outputs(request: Any) -> list[dict[str, Any]]:
    """What REST writes of the outputs that a gRPC request asks for."""
    return [_named(output) for output in request.outputs]


def described(tensor: Any, raw: bytes | None = None) -> dict[str, Any]:
    """A gRPC tensor without its values; with their size when raw holds them behind the JSON."""
    head = _named(tensor)
    if raw is not None:
        head["parameters"] = {**head.get("parameters", {}), "binary_data_size": len(raw)}
    return head | {"shape": list(tensor.shape), "datatype": tensor.datatype}


def with_data(found: Iterable[Any], raws: Sequence[bytes]) -> list[dict[str, Any]]:
    """gRPC tensors with their values, flat; BadTensor when they do not fit their datatype."""
    written = []
    for index, tensor in enumerate(found):
        if not raws:
            values = tensors.from_contents(tensor.datatype, tensor.contents)
        elif index < len(raws):
            values = tensors.from_raw(tensor.datatype, raws[index])
        else:
            raise BadTensor(f"tensor {tensor.name!r} has no raw contents")
        written.append(described(tensor) | {"data": values})
    return written


def fill_head(message: Any, head: Mapping[str, Any]) -> None:
    """Put what REST writes before the tensors into a gRPC message."""
    message.id = head.get("id") or ""
    message.model_name = head.get("model_name") or ""
    message.model_version = head.get("model_version") or ""
    fill_parameters(message.parameters, head.get("parameters"))


def fill_parameters(target: Any, parameters: Mapping[str, Any] | None) -> None:
    """Put REST's parameters into a gRPC message; gRPC has no form for other types."""
    for name, value in (parameters or {}).items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = value
        elif isinstance(value, str):
            target[name].string_param = value


def fill(target: Any, raw_target: Any, found: Sequence[Any], tail: bytes) -> None:
    """Put REST's tensors into a gRPC message: all raw as soon as one is, as gRPC demands."""
    sizes = [(tensor.get("parameters") or {}).get("binary_data_size") for tensor in found]
    is_raw = any(size is not None for size in sizes) or any(
        tensor["datatype"] not in tensors.CONTENTS_FIELDS for tensor in found
    )
    for tensor, size in zip(found, sizes, strict=True):
        datatype = tensor["datatype"]
        shape = [int(side) for side in tensor["shape"]]
        added = target.add(name=tensor["name"], datatype=datatype, shape=shape)
        parameters = dict(tensor.get("parameters") or {})
        parameters.pop("binary_data_size", None)
        fill_parameters(added.parameters, parameters)
        if size is not None:
            if size > len(tail):
                raise ValueError(f"tensor {tensor['name']!r} is longer than the body")
            raw_target.append(tail[:size])
            tail = tail[size:]
        elif is_raw:
            raw_target.append(tensors.to_raw(datatype, tensor["data"]))
        else:
            values = tensors.to_contents(datatype, tensor["data"])
            getattr(added.contents, tensors.CONTENTS_FIELDS[datatype]).extend(values)


def _named(part: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"name": part.name}
    if parameters := parameters_of(part):
        head["parameters"] = parameters
    return head
