"""Tensors of the Open Inference Protocol between their gRPC, JSON and binary forms."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any] | list[Any]

# Little-endian, as the protocol's binary form is.
_DTYPES: dict[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}

# The field of InferTensorContents that holds a datatype; FP16 and BF16 exist in raw form only.
CONTENTS_FIELDS: dict[str, str] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class BadTensor(ValueError):
    """A tensor whose bytes, values and datatype do not belong together."""


def from_raw(datatype: str, raw: bytes) -> Values:
    """The flat values in a tensor's binary form."""
    try:
        if datatype == "BYTES":
            return [_text(item) for item in _split(raw)]
        if datatype == "BF16":
            return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        values = np.frombuffer(raw, _DTYPES[datatype])
    except KeyError:
        raise BadTensor(f"datatype {datatype!r} is unknown") from None
    except (ValueError, struct.error) as failure:
        raise BadTensor(f"{len(raw)} bytes are no {datatype} tensor: {failure}") from None
    return values.astype("<f4") if datatype == "FP16" else values


def from_contents(datatype: str, contents: Any) -> Values:
    """The flat values in a gRPC tensor's typed contents."""
    if datatype not in CONTENTS_FIELDS:
        raise BadTensor(f"a tensor of datatype {datatype!r} must be sent in raw form")
    values = getattr(contents, CONTENTS_FIELDS[datatype])
    if datatype == "BYTES":
        return [_text(item) for item in values]
    # As float32 the text form is the shortest one: 0.1 and not 0.10000000149011612.
    return np.array(values, _DTYPES[datatype])


def to_contents(datatype: str, data: Any) -> list[Any]:
    """Values for a gRPC tensor's typed contents, from JSON data, flat or nested."""
    if datatype == "BYTES":
        return [_bytes(item) for item in _flat(data)]
    return list(_array(datatype, data).tolist())


def to_raw(datatype: str, data: Any) -> bytes:
    """A tensor's binary form, from JSON data, flat or nested."""
    if datatype == "BYTES":
        items = [_bytes(item) for item in _flat(data)]
        return b"".join(struct.pack("<I", len(item)) + item for item in items)
    if datatype == "BF16":
        return (_array("FP32", data).view("<u4") >> 16).astype("<u2").tobytes()
    return _array(datatype, data).tobytes()


def _array(datatype: str, data: Any) -> NDArray[Any]:
    try:
        return np.asarray(data, _DTYPES[datatype]).ravel()
    except KeyError:
        raise BadTensor(f"datatype {datatype!r} is unknown") from None
    except (ValueError, TypeError, OverflowError) as failure:
        raise BadTensor(f"the data is no {datatype} tensor: {failure}") from None


def _flat(data: Any) -> Iterable[Any]:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def _split(raw: bytes) -> Sequence[bytes]:
    items, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise ValueError("an element is longer than the rest")
        items.append(raw[at : at + length])
        at += length
    return items


def _text(item: bytes) -> Any:
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
