"""Which headers cross the hop: those that describe the body and those that trace the call.

Never `authorization`, `x-api-key` or `cookie`: they are the gateway's, not the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minimal_transformer.exchange import RawHeaders

# To the predictor: by exact name, or by prefix (B3 traces, CloudEvents in binary mode).
REQUEST_HEADERS = frozenset(
    {
        "accept",
        "b3",
        "content-encoding",
        "content-type",
        "inference-header-content-length",
        "traceparent",
        "tracestate",
        "x-request-id",
        "x-shadow-pair-id",
    }
)
REQUEST_PREFIXES = ("x-b3-", "ce-")

# Back to the caller. Length, connection and date are the server's own.
RESPONSE_HEADERS = frozenset(
    {
        b"content-encoding",
        b"content-language",
        b"content-type",
        b"inference-header-content-length",
        b"retry-after",
    }
)
RESPONSE_PREFIXES = (b"ce-",)


def to_predictor(headers: Mapping[str, str]) -> dict[str, str]:
    """The caller's headers (lower-case names) that the predictor may see."""
    return {
        name: value
        for name, value in headers.items()
        if name in REQUEST_HEADERS or name.startswith(REQUEST_PREFIXES)
    }


def to_caller(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The predictor's headers that the caller may see, with lower-case names."""
    passed: RawHeaders = []
    for name, value in headers:
        lower = name.lower()
        if lower in RESPONSE_HEADERS or lower.startswith(RESPONSE_PREFIXES):
            passed.append((lower, value))
    return passed
