"""Which pairs are recorded: the pair id alone decides, so that both sides keep the same."""

from __future__ import annotations

from hashlib import sha256


def is_sampled(pair_id: str, share: float) -> bool:
    """Whether the pair is among the `share` (0 to 1) that is kept, the same in every process."""
    if share >= 1.0:
        return True
    if share <= 0.0:
        return False
    digest = sha256(pair_id.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
