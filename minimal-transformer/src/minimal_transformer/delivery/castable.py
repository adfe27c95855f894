"""Texts that Postgres casts to jsonb for certain, told without asking it."""

from __future__ import annotations

import re

import orjson

# Past this, parsing takes more memory than a delivery process should, and saves little.
MAX_BYTES = 256 * 1024

# jsonb's numbers end at 16,383 digits behind the point, orjson's are rounded to a double before.
_LONG_EXPONENT = re.compile(rb"e[+-]?\d{4}"), re.compile(rb"E[+-]?\d{4}")
_LONG_DIGITS = b"0" * 1000
_DIGITS_TO_ZERO = bytes(
    ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256)
)


def surely_casts(text: memoryview) -> bool:
    """Whether Postgres casts the text to jsonb; False where only Postgres can tell."""
    if len(text) > MAX_BYTES:
        return False
    try:
        orjson.loads(text)  # strict, at most 1,024 deep, no lone surrogate, no number past a double
    except orjson.JSONDecodeError:
        return False
    body = bytes(text)
    if b"\\u0000" in body or any(pattern.search(body) for pattern in _LONG_EXPONENT):
        return False
    return len(body) < len(_LONG_DIGITS) or _LONG_DIGITS not in body.translate(_DIGITS_TO_ZERO)
