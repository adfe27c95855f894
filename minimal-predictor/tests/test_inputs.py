"""Numbers are read exactly or refused by name; nothing is skipped, rounded away or wrapped."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kserve.errors import InvalidInput

from minimal_predictor.inputs import multiply, read_tensor, read_v1, show

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def nested(draw: st.DrawFn, shape: list[int], leaf: st.SearchStrategy[Any]) -> Any:
    if not shape:
        return draw(leaf)
    return [nested(draw, shape[1:], leaf) for _ in range(shape[0])]


@st.composite
def tensors(draw: st.DrawFn) -> Any:
    return nested(draw, draw(SHAPES), FINITE)


@given(tensors())
def test_instances_keep_their_shape_and_order(instances: Any) -> None:
    """Any nested list of finite numbers comes back as it was, as doubles."""
    field, numbers = read_v1({"instances": instances})
    assert field == "instances"
    assert numbers.tolist() == np.array(instances, dtype=float).tolist()


@given(st.lists(FINITE, min_size=1))
def test_numeric_strings_are_the_numbers_that_they_spell(values: list[float]) -> None:
    """A number sent as text is read as the same double as the number itself."""
    _, numbers = read_v1({"values": [json.dumps(value) for value in values]})
    assert numbers.tolist() == [float(value) for value in values]


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_document_is_read_or_refused(value: Any) -> None:
    """Whatever stands in a field, the outcome is finite numbers or InvalidInput, never a crash."""
    for field in ("values", "instances"):
        try:
            _, numbers = read_v1({field: value})
        except InvalidInput:
            continue
        assert np.isfinite(numbers).all()


@given(st.lists(FINITE, min_size=1), FINITE)
def test_products_are_finite_or_refused(values: list[float], factor: float) -> None:
    """Each product is Python's own; one beyond a double is refused, not answered as infinity."""
    numbers = np.array(values, dtype=float)
    expected = [float(value) * float(factor) for value in values]
    if all(map(math.isfinite, expected)):
        assert multiply("values", numbers, float(factor)).tolist() == expected
    else:
        with pytest.raises(InvalidInput, match=r"values\[\d+\] is .* overflows"):
            multiply("values", numbers, float(factor))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1], 'body is a list of 1; send an object such as {"values": [1, 2]}.'),
        (None, "body is null"),
        ("text", 'body is "text"'),
        ({}, "body has neither values nor instances"),
        ({"values": [1], "instances": [1]}, "body has both values and instances"),
        ({"values": []}, "values is an empty list"),
        ({"values": None}, "values is null"),
        ({"values": {"a": 1}}, "values is an object"),
        ({"values": "1,2"}, 'values is "1,2"'),
        ({"values": [1, 2, "x"]}, 'values[2] is "x"; send a finite number or numeric string.'),
        ({"values": [1, ""]}, 'values[1] is ""'),
        ({"values": [" 3"]}, 'values[0] is " 3"'),
        ({"values": ["1_000"]}, 'values[0] is "1_000"'),
        ({"values": ["0x10"]}, 'values[0] is "0x10"'),
        ({"values": ["\u0663"]}, 'values[0] is "\\u0663"'),
        ({"values": ["3\n"]}, 'values[0] is "3\\n"'),
        ({"values": ["nan"]}, 'values[0] is "nan"'),
        ({"values": ["Infinity"]}, 'values[0] is "Infinity"'),
        ({"values": ["1e999"]}, 'values[0] is "1e999"'),
        ({"values": [1, math.nan]}, "values[1] is NaN"),
        ({"values": [1, -math.inf]}, "values[1] is -Infinity"),
        ({"values": [1, 10**400]}, "values[1] is 1000"),
        ({"values": [1, True]}, "values[1] is true"),
        ({"values": ["1", False]}, "values[1] is false"),
        ({"values": [1, None]}, "values[1] is null"),
        ({"values": [[1]]}, "values[0] is a list of 1"),
        ({"instances": 5}, "instances is 5"),
        ({"instances": [[1, 2], [3]]}, "instances[1] has shape [1] where its neighbours have [2]"),
        ({"instances": [[1], 2]}, "instances[1] is 2; send a list of numbers."),
        ({"instances": [1, [2]]}, "instances[1] is a list of 1"),
        ({"instances": [[1], []]}, "instances[1] has shape [0] where its neighbours have [1]"),
        ({"instances": [[], []]}, "instances[0] is an empty list"),
        ({"instances": [[[]]]}, "instances[0][0] is an empty list"),
        ({"instances": [[1, 2], [3, "x"]]}, 'instances[1][1] is "x"'),
        ({"instances": [[[1], [2]], [[3], [4, 5]]]}, "instances[1][1] has shape [2] where"),
        ({"instances": [[[1], [2]], [[3, 4], [5, 6]]]}, "instances[1] has shape [2, 2] where"),
        ({"instances": [{"a": 1}]}, "instances[0] is an object"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_value(document: object, message: str) -> None:
    """The message begins with the place and the value and ends with the remedy."""
    with pytest.raises(InvalidInput) as refusal:
        read_v1(document)
    assert str(refusal.value).startswith(message)
    assert "; send " in str(refusal.value)


def test_nesting_has_a_limit() -> None:
    """32 levels are read, 33 refused."""
    deep: Any = 1
    for _ in range(32):
        deep = [deep]
    assert read_v1({"instances": deep})[1].shape == (1,) * 32
    with pytest.raises(InvalidInput, match="nested deeper than 32"):
        read_v1({"instances": [deep]})


def test_long_values_are_cut() -> None:
    """A message stays short, and on one line, whatever the caller sent."""
    with pytest.raises(InvalidInput) as refusal:
        read_v1({"values": ["\n" + "x" * 1_000_000]})
    assert len(str(refusal.value)) < 200
    assert "\n" not in str(refusal.value)
    assert len(show({"a": "x" * 1000})) < 50
    assert len(show(10**300)) < 50


@pytest.mark.parametrize(
    ("datatype", "lowest", "highest"),
    [
        ("INT8", -128, 127),
        ("UINT8", 0, 255),
        ("INT32", -(2**31), 2**31 - 1),
        ("INT64", -(2**63), 2**63 - 1),
        ("UINT64", 0, 2**64 - 1),
    ],
)
def test_integers_stay_in_their_type(datatype: str, lowest: int, highest: int) -> None:
    """The limits of the type are read; one beyond is refused, never wrapped."""
    numbers = read_tensor("inputs[0]", datatype, [2], [lowest, highest])
    assert numbers.tolist() == [float(lowest), float(highest)]
    for wrong in (lowest - 1, highest + 1, 1.5, "1", True):
        with pytest.raises(
            InvalidInput, match=rf"inputs\[0\].data\[1\] is .*; send a finite {datatype}"
        ):
            read_tensor("inputs[0]", datatype, [2], [1, wrong])


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", [1], [1e39], "inputs[0].data[0] is 1e+39; send a finite FP32."),
        ("FP16", [1, 2], [[1, 65520]], "inputs[0].data[0][1] is 65520; send a finite FP16."),
        ("FP64", [2], [1, math.nan], "inputs[0].data[1] is NaN"),
        ("FP64", [1], ["1"], 'inputs[0].data[0] is "1"'),
        ("FP64", [3], [1, 2], "inputs[0].data has shape [2] and inputs[0].shape is [3]"),
        ("FP64", [2, 2], [[1], [2], [3], [4]], "inputs[0].data has shape [4, 1]"),
        ("FP64", [2], [[1], [2, 3]], "inputs[0].data[1] has shape [2] where"),
    ],
)
def test_tensor_mistakes_are_named(
    datatype: str, shape: list[int], data: list[Any], message: str
) -> None:
    """So are a value that its datatype cannot hold and data of another shape."""
    with pytest.raises(InvalidInput) as refusal:
        read_tensor("inputs[0]", datatype, shape, data)
    assert str(refusal.value).startswith(message)


def test_nested_and_flat_data_are_the_same_tensor() -> None:
    """A tensor may be nested as its shape, or flat; a scalar and an empty one are tensors too."""
    for data in ([[1, 2], [3, 4]], [1, 2, 3, 4]):
        assert read_tensor("inputs[0]", "FP64", [2, 2], data).tolist() == [[1, 2], [3, 4]]
    assert read_tensor("inputs[0]", "FP64", [], [5]).tolist() == 5
    assert read_tensor("inputs[0]", "FP64", [0, 3], []).tolist() == []


def test_a_narrow_result_that_overflows_is_refused() -> None:
    """3e38 is a float32; twice that is not, and is not infinity either."""
    with pytest.raises(InvalidInput, match=r"inputs\[0\].data\[1\] is 3e\+38.* overflows float32"):
        multiply("inputs[0].data", np.array([1, 3e38]), 2.0, np.float32)
