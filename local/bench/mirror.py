"""g) What mirroring costs the caller, with a healthy shadow and with one that has stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.hop import body_of
from bench.load import Load, at_a_constant_rate
from bench.servers import ROOT
from shadow_local.stack import Options, Stack

RATE = 100
CASES = ("mirroring off", "mirroring on", "mirroring on, the shadow stopped (SIGSTOP)")


@contextmanager
def deployment(folder: Path, stage: str) -> Iterator[Stack]:
    """A whole deployment in one of the stages of manifests/stages."""
    stack = Stack(Options(folder, ROOT / "manifests" / "stages" / stage))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def through_the_gateway(folder: Path, rounds: int, seconds: float) -> dict[str, list[Load]]:
    """The caller's latency at 100 calls/s through Envoy, in interleaved rounds."""
    loads: dict[str, list[Load]] = {case: [] for case in CASES}
    with ExitStack() as stacks:
        off = stacks.enter_context(deployment(folder / "off", "mirroring-off"))
        on = stacks.enter_context(deployment(folder / "on", "mirroring-on"))
        assert on.state is not None
        assert on.state.shadow is not None
        shadow = on.state.shadow.transformer_pid
        assert shadow is not None
        for _ in range(rounds):
            loads[CASES[0]].append(_load(off, seconds))
            loads[CASES[1]].append(_load(on, seconds))
            os.kill(shadow, signal.SIGSTOP)
            try:
                loads[CASES[2]].append(_load(on, seconds))
            finally:
                os.kill(shadow, signal.SIGCONT)
    return loads


def _load(stack: Stack, seconds: float) -> Load:
    assert stack.state is not None
    return at_a_constant_rate(stack.state.predict_url, body_of("v1", 34), RATE, seconds)
