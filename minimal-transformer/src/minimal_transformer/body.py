"""How a body is stored: what goes to *_data, what to *_raw, and what is cut."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from minimal_transformer.redaction import JsonPath, Unparseable, redact

# Postgres' integer; only a cut body can be larger.
_MAX_SIZE = 2**31 - 1


class StoredBody(NamedTuple):
    """A body as its row will have it.

    `data` is text that may be JSON: Postgres decides, and puts it in *_raw where it does not cast.
    `raw` is what goes to *_raw in any case.
    """

    data: bytes | None
    raw: bytes | None
    size: int | None
    truncated: bool
    hashed: bytes | None  # what request_sha256 is taken of; None when that must not be told

    @property
    def sha256(self) -> bytes:
        return sha256(self.hashed if self.hashed is not None else b"").digest()


NO_BODY = StoredBody(None, None, None, truncated=False, hashed=None)


def stored_body(
    body: bytes | None, data: bytes | None, max_bytes: int, paths: tuple[JsonPath, ...]
) -> StoredBody:
    """How to store `body`, and with it its JSON form `data` where it is not JSON itself (gRPC).

    A body over `max_bytes` is cut, without its JSON form, and keeps its true size and hash. With
    `paths` to redact, a body that is no JSON is not stored, and its hash not told.
    """
    if body is None:
        return NO_BODY
    size = min(len(body), _MAX_SIZE)
    if paths:
        return _redacted(body, data, size, max_bytes, paths)
    if len(body) > max_bytes:
        return StoredBody(None, body[:max_bytes], size, truncated=True, hashed=body)
    if data is not None:
        return StoredBody(data if _is_text(data) else None, body, size, False, body)
    if _is_text(body):
        return StoredBody(body, None, size, False, body)
    return StoredBody(None, body, size, False, body)


def _redacted(
    body: bytes, data: bytes | None, size: int, max_bytes: int, paths: tuple[JsonPath, ...]
) -> StoredBody:
    try:
        clean = redact(body if data is None else data, paths)
    except Unparseable:
        return StoredBody(None, None, size, truncated=True, hashed=None)
    truncated = data is not None  # the bytes that `data` is the JSON form of are not stored
    if len(clean) > max_bytes:
        return StoredBody(None, clean[:max_bytes], size, truncated=True, hashed=clean)
    return StoredBody(clean, None, size, truncated, clean)


def _is_text(body: bytes) -> bool:
    """Whether Postgres takes the bytes as text, which casting them to jsonb needs."""
    if not body or 0 in body:
        return False
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
