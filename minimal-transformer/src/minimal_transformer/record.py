"""What a record is: one call, its request row and its response row, and what identifies it."""

from __future__ import annotations

import os
import random
import struct
import time
import uuid
from typing import Literal, NamedTuple

# Seeded by the system once a process: asking it for each id is a system call on the way of a call.
_random = random.Random()  # noqa: S311  ids have to differ, not to be secret
os.register_at_fork(after_in_child=_random.seed)

_UUID = struct.Struct(">QQ")

Protocol = Literal["v1", "v2", "grpc"]
PairSource = Literal["x-shadow-pair-id", "x-request-id", "generated"]


class Call(NamedTuple):
    """A call that this process chose to record and whose request row is on the spool."""

    record_bytes: bytes  # the record id, UUIDv7
    request_time_us: int  # since the epoch; the same in both rows
    started_ns: int  # time.perf_counter_ns() on arrival
    pair_id: str

    @property
    def record_id(self) -> uuid.UUID:
        return uuid.UUID(bytes=self.record_bytes)


def new_record_id(now_us: int) -> bytes:
    """A UUIDv7 (RFC 9562) of that microsecond: later ids sort after earlier ones.

    The 12 bits after the millisecond hold its fraction (section 6.2, method 3), the rest is random.
    """
    millisecond, fraction_us = divmod(now_us, 1000)
    return _UUID.pack(
        millisecond << 16 | 0x7 << 12 | fraction_us * 4096 // 1000,
        0b10 << 62 | _random.getrandbits(62),
    )


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000
