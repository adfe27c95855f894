"""`make soak-follow`: a follower under load, while it and its candidate are killed at random.

Half of the calls come before there is a follower, half while it works, for the primary's latency.
Writes docs/soak-follow.md; the exit code is 1 unless each call has the candidate's answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psycopg
from grpc import aio
from rich.console import Console

from bench.page import machine, table
from bench.servers import HERE, Servers
from embedded_postgres import Postgres, apply_schema, as_role
from shadow_local.ports import free_port
from shadow_local.supervisor import Command, Supervisor
from shadow_local.translate.document import repository

PAGE = repository() / "docs" / "soak-follow.md"
SEED = 20261125
SMALL = b'{"values": ["3.3", "62.3", "324"]}'
LARGE = b'{"values": ["3.3"], "padding": "' + b"x" * 8_000_000 + b'"}'
# A ModelInferRequest for `model` with one tensor FP64 [1], its number in raw_input_contents.
MESSAGE = bytes.fromhex(
    "0a056d6f64656c" "2a130a07696e7075742d3012044650363418011a00".replace("1a00", "")
)
LAG = "shadow_follow_lag_seconds"


@dataclass
class Observed:
    """What the callers and the follower's metrics showed."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    catch_up_seconds: float = 0.0
