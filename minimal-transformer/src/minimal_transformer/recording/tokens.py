"""Tokens of a generated answer: how many there were, and how long the first one took to come."""

from __future__ import annotations

import time


class TokenClock:
    """Times the output of a streamed answer while it passes.

    started_ns: when its call came, of time.perf_counter_ns().
    """

    def __init__(self, started_ns: int) -> None:
        self._started_ns = started_ns
        self.chunks = 0
        """Events with output."""
        self.ttft_ms: float | None = None
        """The time to first token: from the call to the first event with output."""

    def count_output(self) -> None:
        """Count an event with output; with the first one the first token is there."""
        if not self.chunks:
            self.ttft_ms = (time.perf_counter_ns() - self._started_ns) / 1e6
        self.chunks += 1


def token_counts(usage: object) -> dict[str, int]:
    """`prompt_tokens` and `completion_tokens` of an answer's `usage`, under either API's names."""
    if not isinstance(usage, dict):
        return {}
    counts = {}
    for name, other in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        count = usage.get(name, usage.get(other))
        if type(count) is int and 0 <= count < 2**31:
            counts[name] = count
    return counts
