"""What identifies a call: the pair id that it shares with its mirrored copy, and its record id."""

from __future__ import annotations

import os
import random
import struct
import uuid
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal

from minimal_transformer.recording.rows import storable

PairSource = Literal["x-shadow-pair-id", "x-request-id", "generated"]

# A longer value does not fit in the index on pair_id; its hash does, and still pairs.
MAX_CHARACTERS = 500

# Seeded by the system once a process: asking it for each id is a system call on the way of a call.
_random = random.Random()  # noqa: S311  ids have to differ, not to be secret
os.register_at_fork(after_in_child=_random.seed)

_UUID = struct.Struct(">QQ")


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


def is_sampled(pair_id: str, share: float) -> bool:
    """Whether the pair is among the `share` (0 to 1) that is kept.

    The pair id alone decides, so that both sides keep the same pairs; by the same rule
    shadow-report's counting/ledger.py tells which calls one side left out.
    """
    if share >= 1.0:
        return True
    if share <= 0.0:
        return False
    digest = sha256(pair_id.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def new_record_id(time_us: int) -> bytes:
    """A UUIDv7 (RFC 9562) of that microsecond: later ids sort after earlier ones.

    The 12 bits after the millisecond hold its fraction (section 6.2, method 3), the rest is random.
    """
    millisecond, fraction_us = divmod(time_us, 1000)
    return _UUID.pack(
        millisecond << 16 | 0x7 << 12 | fraction_us * 4096 // 1000,
        0b10 << 62 | _random.getrandbits(62),
    )
