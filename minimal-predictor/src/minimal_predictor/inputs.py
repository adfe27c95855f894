"""Numbers out of what a caller sent; a mistake is named with its place, its value and a remedy."""

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import numpy as np
from kserve.errors import InvalidInput
from numpy.typing import NDArray
from pydantic import BeforeValidator, FailFast, Field, Strict, TypeAdapter, ValidationError

Doubles = NDArray[np.float64]

MAX_SHOWN = 40  # messages go to callers, and into the transformer's records
MAX_DEPTH = 32  # numpy stops at 64 dimensions, Python at 1,000 nested calls
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _from_decimal(value: Any) -> object:
    # What only Python calls a number stays text, and is refused: "1_000", " 2", "nan", "1e999".
    is_decimal = isinstance(value, str) and DECIMAL.fullmatch(value)
    return float(value) if is_decimal and math.isfinite(float(value)) else value


# Strict: true is not a number.
DecimalNumber = Annotated[
    float, Strict(), Field(allow_inf_nan=False), BeforeValidator(_from_decimal)
]
DECIMALS = TypeAdapter(Annotated[list[DecimalNumber], FailFast()])


def _list_of(kind: Any, limits: Any) -> TypeAdapter[Any]:
    # NaN and infinities lie outside of any bounds.
    number = Annotated[kind, Strict(), Field(ge=kind(limits.min), le=kind(limits.max))]
    return TypeAdapter(Annotated[list[number], FailFast()])


# BOOL and BYTES are not numbers; KServe does not know BF16.
DATATYPES = {
    **{f"INT{bits}": _list_of(int, np.iinfo(f"int{bits}")) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": _list_of(int, np.iinfo(f"uint{bits}")) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": _list_of(float, np.finfo(f"float{bits}")) for bits in (16, 32, 64)},
}


def read_v1(payload: object) -> tuple[str, Doubles]:
    """The field (`values`: a flat list; `instances`: scalars or nested lists) and its numbers."""
    if isinstance(payload, bytes):
        raise InvalidInput("body is not JSON; send JSON.")
    if not isinstance(payload, dict):
        raise InvalidInput(f'body is {show(payload)}; send an object such as {{"values": [1, 2]}}.')
    fields = [field for field in ("values", "instances") if field in payload]
    if len(fields) != 1:
        found = "both values and instances" if fields else "neither values nor instances"
        raise InvalidInput(f"body has {found}; send one of the two.")
    (field,) = fields
    read = _read_flat if field == "values" else _read_nested
    numbers = read(field, payload[field], DECIMALS, "a finite number or numeric string")
    if not numbers.size:
        place = field + "[0]" * numbers.shape.index(0)
        raise InvalidInput(f"{place} is an empty list; send at least one number.")
    return field, numbers


def read_tensor(where: str, datatype: str, shape: Sequence[int], data: object) -> Doubles:
    """The numbers of a v2 tensor in its shape; `data` is flat, or nested as the shape says."""
    if datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise InvalidInput(f"{where}.datatype is {show(datatype)}; send one of {known}.")
    numbers = _read_nested(f"{where}.data", data, DATATYPES[datatype], f"a finite {datatype}")
    with suppress(ValueError):  # numpy's, for a shape that no array has
        shaped = numbers.reshape(shape)
        if shaped.shape == tuple(shape) and numbers.shape in (shaped.shape, (shaped.size,)):
            return shaped
    raise InvalidInput(
        f"{where}.data has shape {list(numbers.shape)} and {where}.shape is"
        f" {_cut(str(list(shape)))}; send as many values as the shape holds."
    )


def multiply(
    where: str, numbers: Doubles, factor: float, type_: type[np.floating[Any]] = np.float64
) -> NDArray[Any]:
    """The numbers times the factor, computed as doubles; a result beyond its type is refused."""
    with np.errstate(over="ignore", under="ignore"):
        product: NDArray[Any] = np.asarray(numbers * factor, type_)
    for at in np.argwhere(~np.isfinite(product)):
        position = "".join(f"[{step}]" for step in at)
        value = show(numbers[tuple(at)].item())
        raise InvalidInput(
            f"{where}{position} is {value}, and {value} times {factor!r} overflows"
            f" {type_.__name__}; send a smaller number."
        )
    return product


def show(value: object) -> str:
    """The value as JSON would write it, in one line and cut to a readable length."""
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return "an object" if isinstance(value, dict) else _cut(json.dumps(value, default=repr))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _read_flat(where: str, data: object, accepted: TypeAdapter[Any], remedy: str) -> Doubles:
    if not isinstance(data, list):
        raise InvalidInput(f"{where} is {show(data)}; send a list of numbers.")
    try:
        return np.array(accepted.validate_python(data), np.float64)
    except ValidationError as error:
        at = int(error.errors(include_url=False)[0]["loc"][0])
    raise InvalidInput(f"{where}[{at}] is {show(data[at])}; send {remedy}.")


def _read_nested(where: str, data: object, accepted: TypeAdapter[Any], remedy: str) -> Doubles:
    """Evenly nested lists as an array; ragged ones are refused."""
    if where.count("[") >= MAX_DEPTH:
        raise InvalidInput(f"{where} is nested deeper than {MAX_DEPTH} lists; flatten it.")
    if not (isinstance(data, list) and data and isinstance(data[0], list)):
        return _read_flat(where, data, accepted, remedy)
    rows = [_read_nested(f"{where}[{i}]", row, accepted, remedy) for i, row in enumerate(data)]
    for i, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise InvalidInput(
                f"{where}[{i}] has shape {list(row.shape)} where its neighbours have"
                f" {list(rows[0].shape)}; send lists of equal length."
            )
    return np.array(rows)
