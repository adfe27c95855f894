"""What a request's body may look like before its numbers are read. Knows nothing of KServe."""

import json
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minimal_predictor.bad_input import BadInput, show
from minimal_predictor.nesting import MAX_DEPTH

Name = Annotated[str, Field(min_length=1)]
Parameters = dict[str, str | bool | int | float] | None


class _Strict(BaseModel):
    # Other fields are left alone, as KServe does: a newer protocol may have more of them.
    model_config = ConfigDict(strict=True, extra="ignore")


class TensorBody(_Strict):
    """One input of a v2 request; its numbers are checked later, by the model."""

    name: Name
    datatype: Name
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_DEPTH)]
    parameters: Parameters = None
    data: list[Any] | None = None


class OutputBody(_Strict):
    """One output that a v2 request asks for."""

    name: Name
    parameters: Parameters = None


class InferBody(_Strict):
    """A v2 inference request as it stands in JSON."""

    id: str | None = None
    parameters: Parameters = None
    inputs: Annotated[list[TensorBody], Field(min_length=1)]
    outputs: list[OutputBody] | None = None


def read_json(body: bytes) -> object:
    """The document in the body. NaN, Infinity and 1e999 come back as floats, to be named later."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"body is not UTF-8 at byte {error.start}; send JSON.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = show(text) if text else "empty"
        raise BadInput(f"body is {shown}, which is not JSON ({error}); send JSON.") from None


def read_v2(document: object) -> InferBody:
    """The v2 request in a document; a wrong one is refused with the place and the value."""
    if not isinstance(document, dict):
        raise BadInput(f"body is {show(document)}; send an object with inputs.")
    try:
        return InferBody.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        place = "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in problem["loc"])
        missing = problem["type"] == "missing"
        found = "missing" if missing else show(problem["input"])
        raise BadInput(f"{place.lstrip('.')} is {found}: {problem['msg']}.") from None
