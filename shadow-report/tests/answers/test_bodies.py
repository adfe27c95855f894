"""Bodies become values: nothing that a model may send is lost, and nothing breaks the parser."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow_report.answers.bodies import UNPARSEABLE, Tensor, parse


@given(st.binary(max_size=200))
def test_any_bytes_have_an_answer(body: bytes) -> None:
    """Never an exception: a value, or UNPARSEABLE."""
    parse(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[1e400]", [math.inf]),
        (b"[-Infinity]", [-math.inf]),
        (b"[18446744073709551616]", [18446744073709551616]),
        (b"[9007199254740993]", [9007199254740993]),
        (rb'"\u0000"', "\0"),
        (rb'"\ud800"', "\ud800"),
        (b"null", None),
    ],
)
def test_json_in_all_its_forms(body: bytes, value: object) -> None:
    """Numbers that are not finite, long whole numbers and odd text all parse."""
    assert parse(body) == value


@pytest.mark.parametrize("body", [None, b"", b"<html>", b'{"a": ', b'"\xff"', b"[" * 100_000])
def test_what_is_not_json(body: bytes | None) -> None:
    assert parse(body) is UNPARSEABLE


def binary(outputs: str, data: bytes) -> bytes:
    return f'{{"model_name": "m", "outputs": [{outputs}]}}'.encode() + data


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP16", np.array([1, 2.5], "<f2")),
        ("FP64", np.array([1, 2.5], "<f8")),
        ("INT8", np.array([-1, 2], "i1")),
        ("UINT64", np.array([1, 2**63], "<u8")),
        ("BOOL", np.array([True, False])),
    ],
)
def test_binary_tensors(datatype: str, array: np.ndarray) -> None:
    """Each datatype of the extension decodes to its values."""
    header = (
        f'{{"name": "a", "shape": [2], "datatype": "{datatype}",'
        f' "parameters": {{"binary_data_size": {array.nbytes}}}}}'
    )
    value = parse(binary(header, array.tobytes()))
    assert value == {"outputs": {"a": Tensor(datatype, (2,), array.tolist(), {})}}


def test_binary_strings_and_several_outputs() -> None:
    """BYTES elements carry their length; outputs follow each other; JSON ones stay as they are."""
    words = b"\x02\x00\x00\x00hi\x00\x00\x00\x00"
    header = (
        '{"name": "w", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 10}},'
        '{"name": "j", "shape": [1], "datatype": "INT32", "data": [7]},'
        '{"name": "n", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}}'
    )
    value = parse(binary(header, words + b"\x05\x00\x00\x00"))
    assert isinstance(value, dict)
    assert {name: t.data for name, t in value["outputs"].items()} == {
        "w": ["hi", ""], "j": [7], "n": [5],
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00" * 9, b"\xff" * 4])
def test_binary_tensors_that_do_not_fit(data: bytes) -> None:
    """A body that its header does not account for is unparseable, not half a tensor."""
    header = (
        '{"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}'
    )
    assert parse(binary(header, data)) is UNPARSEABLE or not data
