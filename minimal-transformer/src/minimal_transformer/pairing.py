"""What pairs a call with its mirrored copy."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from hashlib import sha256

from minimal_transformer.record import PairSource
from minimal_transformer.text import storable

# A longer value does not fit in the index on pair_id; its hash does, and still pairs.
MAX_CHARACTERS = 500


def pair_of(headers: Mapping[str, str]) -> tuple[str, PairSource]:
    """The call's pair id and where it was taken from: the pair header, the request id, or made."""
    source: PairSource = "x-shadow-pair-id"
    value = headers.get(source)
    if not value:
        source = "x-request-id"
        value = headers.get(source)
    if not value:
        return str(uuid.uuid4()), "generated"
    if len(value) > MAX_CHARACTERS:
        whole = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return f"sha256:{sha256(whole).hexdigest()}", source
    return storable(value, MAX_CHARACTERS), source
