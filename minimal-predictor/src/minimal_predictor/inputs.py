"""Numbers out of what a caller sent, or what is wrong with it. Knows nothing of KServe.

Good input takes the short way through pydantic-core and numpy; only bad input pays for the search
for its position.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import FailFast, Field, GetPydanticSchema, Strict, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from minimal_predictor.bad_input import BadInput, show, show_shape
from minimal_predictor.nesting import flatten, index

Doubles = NDArray[np.float64]

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _decimal_text(_source: Any, _handler: Any) -> CoreSchema:
    text = core_schema.str_schema(strict=True, pattern=f"^{DECIMAL.pattern}$")
    return core_schema.chain_schema([text, core_schema.float_schema(allow_inf_nan=False)])


# Strict: true is no number, and "1_000", " 3" and "nan" are no numeric strings.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
DecimalText = Annotated[float, GetPydanticSchema(_decimal_text)]
# The union tries its members in turn and a failed try is dear: text first, for lists without text
# never get there.
TextOrNumber = Annotated[DecimalText | Number, Field(union_mode="left_to_right")]
NUMBERS = TypeAdapter(Annotated[list[Number], FailFast()])
TEXTS_OR_NUMBERS = TypeAdapter(Annotated[list[TextOrNumber], FailFast()])


def _integers(type_: type[np.integer[Any]]) -> TypeAdapter[list[int]]:
    limits = np.iinfo(type_)
    element = Annotated[int, Strict(), Field(ge=int(limits.min), le=int(limits.max))]
    return TypeAdapter(Annotated[list[element], FailFast()])


# v2 datatypes that are numbers. BOOL and BYTES are not; KServe has no BF16.
FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
INTEGERS = {
    type_.__name__.upper(): _integers(type_)
    for type_ in (
        *(np.int8, np.int16, np.int32, np.int64),
        *(np.uint8, np.uint16, np.uint32, np.uint64),
    )
}
DATATYPES = (*INTEGERS, *FLOATS)


def read_v1(document: object) -> tuple[str, Doubles]:
    """The field (`values`: a flat list; `instances`: scalars or nested lists) and its numbers."""
    if not isinstance(document, dict):
        raise BadInput(f'body is {show(document)}; send an object such as {{"values": [1, 2]}}.')
    fields = [field for field in ("values", "instances") if field in document]
    if len(fields) != 1:
        found = "both values and instances" if fields else "neither values nor instances"
        raise BadInput(f"body has {found}; send one of the two.")
    (field,) = fields
    data = document[field]
    if not isinstance(data, list) or not data:
        raise BadInput(f"{field} is {show(data)}; send a list of at least one number.")
    flat, shape = (data, (len(data),)) if field == "values" else flatten(field, data)
    if not flat:
        empty = index(shape[: shape.index(0)], 0)
        raise BadInput(f"{field}{empty} is an empty list; send at least one number.")
    numbers = _validated(
        (NUMBERS, TEXTS_OR_NUMBERS),
        flat,
        lambda at: f"{field}{index(shape, at)}",
        "a finite number or numeric string",
    )
    return field, numbers.reshape(shape)


def read_tensor(where: str, datatype: str, shape: Sequence[int], data: list[Any]) -> Doubles:
    """The numbers of a v2 tensor, flat; its data is a list, flat or nested as its shape says."""
    flat, nested = flatten(f"{where}.data", data)
    if nested != tuple(shape) and (len(nested) > 1 or len(flat) != math.prod(shape)):
        raise BadInput(
            f"{where}.data has shape {show_shape(nested)} and {where}.shape is"
            f" {show_shape(shape)}; send as many values as the shape holds."
        )
    accepted = INTEGERS.get(datatype, NUMBERS)
    remedy = f"a finite {datatype}"
    doubles = _validated((accepted,), flat, lambda at: f"{where}.data{index(nested, at)}", remedy)
    with np.errstate(over="ignore"):
        at = _first_infinite(doubles.astype(FLOATS.get(datatype, np.float64)))
    if at is not None:
        raise BadInput(f"{where}.data{index(nested, at)} is {show(flat[at])}; send {remedy}.")
    return doubles


def read_array(where: str, array: NDArray[Any]) -> Doubles:
    """The numbers of a v2 tensor whose data came as bytes, flat; NaN and infinities are refused."""
    doubles = array.ravel().astype(np.float64)
    at = _first_infinite(doubles)
    if at is not None:
        raise BadInput(f"{where}.data[{at}] is {show(doubles[at].item())}; send a finite number.")
    return doubles


def multiply(
    where: str, numbers: Doubles, factor: float, type_: type[np.floating[Any]] = np.float64
) -> NDArray[Any]:
    """The numbers times the factor, computed as doubles; a result beyond its type is refused."""
    with np.errstate(over="ignore", under="ignore"):
        product = (numbers * factor).astype(type_, copy=False)
    at = _first_infinite(product)
    if at is not None:
        position = f"{where}{index(numbers.shape, at)}"
        value = show(numbers.flat[at].item())
        raise BadInput(
            f"{position} is {value}, and {value} times {factor!r} overflows {type_.__name__};"
            " send a smaller number."
        )
    return product


def _validated(
    accepted: Sequence[TypeAdapter[Any]],
    flat: list[Any],
    position: Callable[[int], str],
    remedy: str,
) -> Doubles:
    """The numbers as the first type that takes them all; the last one names the culprit."""
    for type_ in accepted:
        try:
            return np.fromiter(type_.validate_python(flat), np.float64, len(flat))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False)[0]
    at = int(problem["loc"][0])
    raise BadInput(f"{position(at)} is {show(flat[at])}; send {remedy}.")


def _first_infinite(array: NDArray[Any]) -> int | None:
    finite = np.isfinite(array)
    return None if finite.all() else int(np.argmin(finite))
