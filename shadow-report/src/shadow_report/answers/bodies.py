"""Bodies as values: any JSON, also what strict parsers refuse, and v2's tensors in one form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import orjson

from shadow_report.answers.tensors import binary_answer, with_tensors


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


def _parse_leniently(body: bytes) -> object:
    try:
        return with_tensors(json.loads(body.decode()))
    except (ValueError, RecursionError):
        pass
    answer = binary_answer(body)
    return UNPARSEABLE if answer is None else with_tensors(answer)
