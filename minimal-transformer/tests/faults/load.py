"""Callers: a steady load on a transformer, and what each call's caller got."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Self

import aiohttp
from serving import PREDICT, SAMPLE, SAMPLE_ANSWER, Process, until

CALLER_SECONDS = 120.0
AT_ONCE = 200


@dataclass(frozen=True)
class Caller:
    """One call to make: where to, and with what."""

    path: str = PREDICT
    body: bytes = SAMPLE
    answer: bytes | None = SAMPLE_ANSWER


class Load:
    """Calls a server at a steady rate from a thread until the `with` block ends.

    Each call has a pair id of its own. The rate does not follow the answers: a server that stalls
    meets more and more calls at once, as from real callers, up to AT_ONCE.
    """

    def __init__(self, server: Process, rate: float = 250, caller: Caller | None = None) -> None:
        self.outcomes: dict[str, int | str] = {}  # pair id: status, or the caller's error
        self.sent: set[str] = set()
        self._url = f"http://127.0.0.1:{server.http_port}"
        self._rate = rate
        self._caller = caller or Caller()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """No more calls; returns when the last one has its answer or its error."""
        self._stop.set()
        self._thread.join()

    @property
    def answered(self) -> set[str]:
        """The pair ids of the calls that were answered 200."""
        return {pair for pair, outcome in self.outcomes.copy().items() if outcome == 200}

    @property
    def failed(self) -> Counter[int | str]:
        """What callers got that was not the answer, and how often."""
        return Counter(outcome for outcome in self.outcomes.copy().values() if outcome != 200)

    def until_answered(self, more: int = 100) -> None:
        """Returns once so many more calls are answered."""
        before = len(self.answered)
        until(lambda: len(self.answered) >= before + more, f"{more} more answers: {self.failed}")

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        # Calls that queued for a connection would wait longer and longer on a slow machine.
        places = asyncio.Semaphore(AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=CALLER_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as calls,
        ):
            started, number = time.monotonic(), 0
            while not self._stop.is_set():
                await places.acquire()
                calls.create_task(self._call(session)).add_done_callback(lambda _: places.release())
                number += 1
                await asyncio.sleep(max(0.0, started + number / self._rate - time.monotonic()))

    async def _call(self, session: aiohttp.ClientSession) -> None:
        pair = str(uuid.uuid4())
        self.sent.add(pair)
        url, headers = self._url + self._caller.path, {"x-shadow-pair-id": pair}
        try:
            async with session.post(url, data=self._caller.body, headers=headers) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.outcomes[pair] = type(error).__name__
            return
        is_right = self._caller.answer in (None, body)
        self.outcomes[pair] = response.status if is_right else f"a wrong answer: {body[:200]!r}"
