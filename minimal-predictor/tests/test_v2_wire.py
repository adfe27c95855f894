"""Whatever a v2 caller sends is answered or refused; nothing else is raised."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kserve.errors import InvalidInput

from minimal_predictor.bad_input import BadInput
from minimal_predictor.body import read_json, read_v2
from minimal_predictor.model import Multiplier
from minimal_predictor.v2_wire import encode, infer_request, json_length

DATATYPES = st.sampled_from(["INT8", "UINT64", "FP16", "fp32", "FP64", "BOOL", "BYTES", "BF16"])
NUMBERS = st.integers() | st.floats() | st.booleans() | st.text(max_size=2)
PARAMETERS = st.none() | st.fixed_dictionaries(
    {}, optional={"binary_data_size": st.integers(-1, 9), "binary_data": st.booleans()}
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from("ab"),
        "datatype": DATATYPES,
        "shape": st.lists(st.integers(-1, 3) | st.integers(), max_size=3),
    },
    optional={
        "data": st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3)),
        "parameters": PARAMETERS,
    },
)
OUTPUT = st.fixed_dictionaries({"name": st.sampled_from("ab")}, optional={"parameters": PARAMETERS})
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2)},
    optional={
        "id": st.text(max_size=3),
        "outputs": st.lists(OUTPUT, max_size=2),
        "parameters": st.just({"binary_data_output": True}),
    },
)


@given(REQUESTS, st.binary(max_size=9), st.integers(0, 3))
def test_any_request_is_answered_or_refused(
    request: dict[str, Any], binary: bytes, missing: int
) -> None:
    """No combination of fields, sizes and bytes raises anything but a refusal."""
    body = json.dumps(request).encode() + binary
    header = str(len(body) - len(binary) - missing)
    with suppress(BadInput, InvalidInput):
        length = json_length(header, body)
        asked = infer_request("model", read_v2(read_json(body[:length])), body[length:])
        answer = asyncio.run(Multiplier("model", 2.0).predict(asked))
        content, _ = encode(answer, asked)
        assert content.startswith(b"{")
