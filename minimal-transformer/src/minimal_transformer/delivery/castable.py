"""What can be told of a text without asking Postgres: whether it casts it to jsonb."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Literal

import orjson

Casting = Literal["surely", "perhaps", "never"]

# Deeper ones end a Postgres statement with an error somewhere past 10,000 levels, and Python's
# json, which reads the tables, at 1,000.
MAX_DEPTH = 500
# Past this, parsing takes more memory than a delivery process should, and saves little.
MAX_PARSED_BYTES = 256 * 1024

# jsonb's numbers end 16,383 digits behind the point; orjson has rounded them to a double by then.
_LONG_EXPONENT = re.compile(rb"e[+-]?\d{4}"), re.compile(rb"E[+-]?\d{4}")
_LONG_DIGITS = b"0" * 1000
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")

# The last quote is optional, so that an endless string does not restart the search at each quote.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def casting(text: memoryview) -> Casting:
    """Whether the text goes to *_data: surely, perhaps (only Postgres can tell), or never."""
    body = bytes(text)
    if _is_too_deep(body):
        return "never"
    return "surely" if _surely_casts(body) else "perhaps"


def _surely_casts(body: bytes) -> bool:
    if len(body) > MAX_PARSED_BYTES:
        return False
    try:
        orjson.loads(body)  # strict: no lone surrogate, no number past a double, UTF-8 only
    except orjson.JSONDecodeError:
        return False
    if b"\\u0000" in body or any(pattern.search(body) for pattern in _LONG_EXPONENT):
        return False
    return len(body) < len(_LONG_DIGITS) or _LONG_DIGITS not in body.translate(_DIGITS_TO_ZERO)


def _is_too_deep(body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH
