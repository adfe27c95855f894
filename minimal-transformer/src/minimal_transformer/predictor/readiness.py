"""What the readiness probes know about the predictor, without asking it at every probe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

FRESH_SECONDS = 1.0


class Readiness:
    """An answer at most a second old; probes that come at once share one question."""

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask
        self._known = False
        self._asked_at = float("-inf")
        self._question: asyncio.Task[bool] | None = None

    async def is_ready(self) -> bool:
        """Whether the predictor was ready within the last second."""
        if time.monotonic() - self._asked_at < FRESH_SECONDS:
            return self._known
        if self._question is None:
            self._question = asyncio.create_task(self._refresh())
        # A probe that gives up does not take the answer from the others.
        return await asyncio.shield(self._question)

    async def _refresh(self) -> bool:
        try:
            self._known = await self._ask()
            self._asked_at = time.monotonic()
            return self._known
        finally:
            self._question = None
