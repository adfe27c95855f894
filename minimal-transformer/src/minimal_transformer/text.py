"""Text that any UTF-8 Postgres stores, made from whatever a client sent."""

from __future__ import annotations


def storable(value: object, limit: int) -> str:
    """`value` as at most `limit` characters, without what Postgres refuses.

    NUL becomes U+FFFD and a lone surrogate "?"; bytes (gRPC's -bin metadata) are read as Latin-1.
    """
    if type(value) is not str:
        value = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    if len(value) > limit:
        value = value[:limit]
    if value.isascii():
        return value.replace("\0", "\ufffd") if "\0" in value else value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
