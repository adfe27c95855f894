"""A body is a JSON document or it is refused with its beginning; a v2 body has the v2 fields."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimal_predictor.bad_input import BadInput
from minimal_predictor.body import read_json, read_v2

TENSOR = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No body raises anything but BadInput."""
    with suppress(BadInput):
        read_json(body)


def test_values_that_json_does_not_know_are_read_to_be_named() -> None:
    """NaN, Infinity and numbers beyond a double are floats here; reading the numbers names them."""
    values = read_json(b"[NaN, -Infinity, 1e999]")
    assert isinstance(values, list)
    assert math.isnan(values[0])
    assert values[1:] == [-math.inf, math.inf]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body is empty, which is not JSON"),
        (b"{", 'body is "{", which is not JSON'),
        (b"values=1", 'body is "values=1", which is not JSON'),
        (b'{"values": [1], }', "body is "),
        (b'"\xff"', "body is not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "body is "),
        (b"[" * 100_000, "body is "),
        (b"[" + b"9" * 5000 + b"]", "body is "),
    ],
)
def test_what_is_no_json_is_refused(body: bytes, message: str) -> None:
    """The beginning of the body is in the message."""
    with pytest.raises(BadInput) as refusal:
        read_json(body)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "body is an empty list"),
        ({}, "inputs is missing"),
        ({"inputs": None}, "inputs is null"),
        ({"inputs": []}, "inputs is an empty list"),
        ({"inputs": [1]}, "inputs[0] is 1"),
        ({"id": 7, "inputs": [TENSOR]}, "id is 7"),
        ({"inputs": [TENSOR, TENSOR | {"shape": ["1"]}]}, 'inputs[1].shape[0] is "1"'),
        ({"inputs": [TENSOR | {"shape": [True]}]}, "inputs[0].shape[0] is true"),
        ({"inputs": [TENSOR | {"shape": [-1]}]}, "inputs[0].shape[0] is -1"),
        ({"inputs": [TENSOR | {"shape": [1] * 33}]}, "inputs[0].shape is a list of 33"),
        ({"inputs": [TENSOR | {"name": 1}]}, "inputs[0].name is 1"),
        ({"inputs": [TENSOR | {"datatype": None}]}, "inputs[0].datatype is null"),
        ({"inputs": [TENSOR | {"data": 5}]}, "inputs[0].data is 5"),
        ({"inputs": [TENSOR], "outputs": [{}]}, "outputs[0].name is missing"),
        ({"inputs": [TENSOR], "parameters": []}, "parameters is an empty list"),
    ],
)
def test_a_v2_mistake_is_named_with_its_place(document: Any, message: str) -> None:
    """The message begins with the place and the value."""
    with pytest.raises(BadInput) as refusal:
        read_v2(document)
    assert str(refusal.value).startswith(message)
