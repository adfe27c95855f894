"""Nested lists as a flat list and a shape, and the way back from a flat position."""

import math
from collections.abc import Sequence
from typing import Any

from minimal_predictor.bad_input import BadInput, show, show_shape

# numpy stops at 64 dimensions, orjson at 1,024 levels; no tensor that means something has 32.
MAX_DEPTH = 32
# More elements than any message holds; numpy refuses shapes that multiply past 2**63.
MAX_ELEMENTS = 2**40


def flatten(where: str, data: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The scalars of evenly nested lists, and their shape; ragged nesting is refused."""
    shape = [len(data)]
    while data and isinstance(data[0], list):
        length = len(data[0])
        if len(shape) == MAX_DEPTH:
            raise BadInput(f"{where} is nested deeper than {MAX_DEPTH} lists; flatten it.")
        if set(map(type, data)) != {list} or set(map(len, data)) != {length}:
            at = next(i for i, x in enumerate(data) if type(x) is not list or len(x) != length)
            raise BadInput(
                f"{where}{index(shape, at)} is {show(data[at])} where its neighbours are"
                f" {show(data[0])}; send lists of equal length."
            )
        shape.append(length)
        data = [element for inner in data for element in inner]
    return data, tuple(shape)


def index(shape: Sequence[int], at: int) -> str:
    """`[1][0]`: where the element at a flat position stands in lists nested like the shape."""
    steps = []
    for length in reversed(shape):
        at, step = divmod(at, length)
        steps.append(f"[{step}]")
    return "".join(reversed(steps))


def require_shape(where: str, shape: Sequence[int]) -> None:
    """Refuse a shape that no array can have: too deep, negative, or too large even for zeros."""
    elements = math.prod(length or 1 for length in shape)
    if len(shape) > MAX_DEPTH or min(shape, default=0) < 0 or elements > MAX_ELEMENTS:
        raise BadInput(f"{where}.shape is {show_shape(shape)}; send the shape of the data.")
