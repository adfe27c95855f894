"""Bodies as values: any JSON, also what strict parsers refuse, compressed or not, and v2's tensors
in one form.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import brotli  # type: ignore[import-untyped]
import numpy as np
import orjson

from shadow_report.answers.outcome import Outcome


class Unparseable:
    """Stands for a body that is neither JSON nor a v2 answer with binary tensors."""


UNPARSEABLE = Unparseable()

# orjson turns whole numbers past 64 bits into floats; Python's own parser keeps them exact. To find
# 19 digits in a row this way costs a tenth of a regular expression.
_ANY_DIGIT_AS_9 = bytes.maketrans(b"012345678", b"999999999")
_LONG_NUMBER = b"9" * 19


def parse(body: bytes | None) -> object:
    """The value of a stored body, with v2 outputs as tensors by name; UNPARSEABLE when it has none.

    NaN, Infinity and 1e400 are floats that are not finite; whole numbers are exact at any length.
    A body that was compressed (gzip, deflate, br) is the value of its content.
    """
    if not body:
        return UNPARSEABLE
    if _LONG_NUMBER not in body.translate(_ANY_DIGIT_AS_9):
        try:
            return with_tensors(orjson.loads(body))
        except orjson.JSONDecodeError:
            pass
    return _parse_leniently(body)


def parse_all(bodies: Sequence[bytes | None], *, are_json: bool) -> list[object]:
    """`parse` of each body; `are_json` promises that each is one valid JSON text."""
    if are_json and bodies:
        together = b"[" + b",".join(cast(Sequence[bytes], bodies)) + b"]"
        if _LONG_NUMBER not in together.translate(_ANY_DIGIT_AS_9):
            try:
                values: list[object] = orjson.loads(together)
            except orjson.JSONDecodeError:
                pass
            else:
                return list(map(with_tensors, values)) if b'"outputs"' in together else values
    return [parse(body) for body in bodies]


_BRACKETS = ("{", "[")


def parse_text(text: str) -> object:
    """The object or list that a text writes as JSON; UNPARSEABLE when it is any other text.

    `42` and `null` are JSON too, and mostly words.
    """
    if text.lstrip()[:1] not in _BRACKETS:
        return UNPARSEABLE
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return UNPARSEABLE


def _parse_leniently(body: bytes) -> object:
    value = _parse_plain(body)
    if value is UNPARSEABLE:
        values = map(_parse_plain, _decompressed(body))
        return next((value for value in values if value is not UNPARSEABLE), UNPARSEABLE)
    return value


def _parse_plain(body: bytes) -> object:
    try:
        return with_tensors(json.loads(body.decode()))
    except (ValueError, RecursionError):
        pass
    answer = binary_answer(body)
    return UNPARSEABLE if answer is None else with_tensors(answer)


# A few kilobytes may stand for gigabytes; what is larger than this is not taken apart.
MAX_DECOMPRESSED_BYTES = 16 << 20

# zlib's window bits: a gzip or zlib header, or none, as some servers understand "deflate".
_WITH_HEADER, _RAW = 32 + zlib.MAX_WBITS, -zlib.MAX_WBITS


def readable(body: bytes) -> bytes:
    """The body without its compression, when it is JSON or tensors without it; else unchanged."""
    if not body or body[:1] in b'{["':
        return body
    return next((c for c in _decompressed(body) if _parse_plain(c) is not UNPARSEABLE), body)


def _decompressed(body: bytes) -> Iterator[bytes]:
    """What the body may be the compressed form of: the encoding is not stored with an answer."""
    for window in (_WITH_HEADER, _RAW):
        inflating = zlib.decompressobj(window)
        try:
            content = inflating.decompress(body, MAX_DECOMPRESSED_BYTES)
        except zlib.error:
            continue
        if inflating.eof and not inflating.unused_data:
            yield content
    expanding = brotli.Decompressor()
    try:
        content = expanding.process(body, output_buffer_limit=MAX_DECOMPRESSED_BYTES)
        if expanding.is_finished():
            yield content
    except brotli.error:
        return


# A v2 answer carries these next to its outputs: they name the call or the model, and may differ.
ENVELOPE = frozenset({"id", "model_name", "model_version"})

_TENSOR_FIELDS = frozenset({"name", "datatype", "shape", "data"})

_DTYPES = {
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


class Unfit(NamedTuple):
    """A shape, as given, that is not one or does not fit its data."""

    given: str


Shape = tuple[int, ...] | Unfit | None
MAX_SHAPE_CHARACTERS = 60
_WHOLE = {int}


def shape_outcome(primary: Shape, shadow: Shape) -> Outcome:
    """What became of a shape: a changed one is a disagreement, one that says nothing a fault."""
    if primary == shadow:
        return Outcome.EQUAL
    if type(primary) is not tuple:
        return Outcome.APPEARED if type(shadow) is tuple else Outcome.NUMBER
    if type(shadow) is tuple:
        return Outcome.NUMBER
    return Outcome.MISSING if shadow is None else Outcome.LENGTH


class Tensor(NamedTuple):
    """One v2 output. `data` is flat in row-major order; `rest` holds its other fields.

    shape: None when it is absent.
    """

    datatype: str | None
    shape: Shape
    data: list[Any]
    rest: dict[str, Any]

    def vectors(self) -> list[Any]:
        """The data as lists along the last axis, when there are several axes."""
        if type(self.shape) is not tuple or len(self.shape) < 2 or not self.data:
            return self.data
        step = self.shape[-1]
        return [self.data[at : at + step] for at in range(0, len(self.data), step)]


def with_tensors(document: Any) -> Any:
    """A v2 answer with its outputs as tensors by name and without its envelope; else unchanged."""
    if type(document) is not dict or type(outputs := document.get("outputs")) is not list:
        return document
    tensors: dict[str, Tensor] = {}
    for output in outputs:
        if type(output) is not dict:
            return document
        data = output.get("data")
        # An empty binary output is a header and no byte after it, so its answer parses as JSON.
        if data is None and _binary_size(output) == 0:
            data = []
        if type(data) is not list:
            return document
        if type(name := output.get("name")) is not str or name in tensors:
            return document
        tensors[name] = _tensor(output, data)
    rest = {key: value for key, value in document.items() if key not in ENVELOPE}
    _drop_empty_parameters(rest)
    rest["outputs"] = tensors
    return rest


def _tensor(output: dict[str, Any], data: list[Any]) -> Tensor:
    if data and type(data[0]) is list:
        data = _flat(data)
    rest = {key: output[key] for key in output.keys() - _TENSOR_FIELDS}
    if rest:
        _drop_empty_parameters(rest)
    return Tensor(output.get("datatype"), _shape(output.get("shape"), len(data)), data, rest)


def _shape(given: Any, length: int) -> Shape:
    if given is None:
        return None
    fits = type(given) is list and {*map(type, given)} <= _WHOLE and math.prod(given) == length
    # Two negative sizes have a product that may fit.
    if fits and (len(given) == 1 or min(given, default=0) >= 0):
        return tuple(given)
    return Unfit(json.dumps(given)[:MAX_SHAPE_CHARACTERS])


def _drop_empty_parameters(fields: dict[str, Any]) -> None:
    """Servers write the optional `parameters` as null, as {} or not at all; it says the same."""
    if "parameters" in fields and not fields["parameters"]:
        del fields["parameters"]


def _flat(data: list[Any]) -> list[Any]:
    while any(type(item) is list for item in data):
        data = [leaf for item in data for leaf in (item if type(item) is list else [item])]
    return data


def binary_answer(body: bytes) -> dict[str, Any] | None:
    """The answer of a body in v2's binary tensor extension; None when it is not one.

    The JSON header's length travels in an HTTP header that is not stored, so the header is read
    up to the end of its JSON object, and the sizes that it declares must use up the body.
    """
    if not body.startswith(b"{"):
        return None
    # Latin-1 keeps one character per byte; the header's own text is decoded again below.
    try:
        _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        document = json.loads(body[:end])
    except (ValueError, RecursionError):
        return None
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        return None
    at = end
    for output in outputs:
        size = _binary_size(output)
        if size is None:
            continue
        data = _decode(body[at : at + size], output.get("datatype"))
        if data is None or at + size > len(body):
            return None
        output["data"] = data
        at += size
    return document if at == len(body) and at > end else None


def _binary_size(output: Any) -> int | None:
    """The declared size of an output's binary data, taken out of its parameters."""
    if not isinstance(output, dict) or not isinstance(output.get("parameters"), dict):
        return None
    size = output["parameters"].pop("binary_data_size", None)
    if not output["parameters"]:
        del output["parameters"]
    return size if type(size) is int and size >= 0 else None


def _decode(data: bytes, datatype: object) -> list[Any] | None:
    if datatype == "BYTES":
        return _decode_bytes(data)
    if datatype == "BF16" and len(data) % 2 == 0:
        # The upper half of an FP32.
        wide = np.frombuffer(data, dtype="<u2").astype("<u4") << 16
        brain: list[Any] = wide.view("<f4").tolist()
        return brain
    dtype = _DTYPES.get(str(datatype))
    if dtype is None or len(data) % np.dtype(dtype).itemsize:
        return None
    values: list[Any] = np.frombuffer(data, dtype=dtype).tolist()
    return values


def _decode_bytes(data: bytes) -> list[Any] | None:
    """BYTES elements: each a little-endian 32-bit length and that many bytes."""
    items: list[Any] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        if at + 4 + length > len(data):
            return None
        items.append(data[at + 4 : at + 4 + length].decode("utf-8", "backslashreplace"))
        at += 4 + length
    return items
