"""Which request headers are stored: only those on the list, and credentials never."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import orjson

from minimal_transformer.text import storable

CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "apikey",
        "x-auth-token",
        "x-amz-security-token",
        "x-csrf-token",
        "x-forwarded-access-token",
        "x-forwarded-client-cert",
        "x-goog-iap-jwt-assertion",
        "x-vault-token",
    }
)
_CREDENTIAL_WORDS = re.compile(r"authorization|api-?key|cookie|credential|password|secret|token")

# No server of ours lets longer ones through; a gRPC client can send megabytes.
MAX_VALUE_CHARACTERS = 8192


def is_credential(name: str) -> bool:
    """Whether a header of this name may hold what lets its reader act as the caller."""
    name = name.lower()
    return name in CREDENTIAL_HEADERS or _CREDENTIAL_WORDS.search(name) is not None


def listed_headers(headers: Mapping[str, str], names: Iterable[str]) -> bytes:
    """The listed headers that are present, as JSON text that any Postgres stores.

    `headers` has lower-case keys, as KServe hands them on. A value over 8,192 characters is cut.
    """
    found = {}
    for name in names:
        value = headers.get(name)
        if value is not None:
            found[name] = storable(value, MAX_VALUE_CHARACTERS)
    return orjson.dumps(found)
