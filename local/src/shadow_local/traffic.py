"""Sample traffic: calls like the one of the README, with other values."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

CALLERS = 8
SECONDS_PER_CALL = 60


@dataclass(frozen=True)
class Answer:
    """What a caller got; `status` is 0 when there was no answer, `body` says why."""

    pair_id: str
    values: list[str]
    status: int
    body: str


def sample_values(count: int, seed: int = 1) -> Iterator[list[str]]:
    """`count` lists of numbers as text, the README's own first; the same ones for the same seed."""
    numbers = random.Random(seed)  # noqa: S311
    for position in range(count):
        length = numbers.randint(1, 5)
        other = [f"{numbers.uniform(-1000, 1000):.1f}" for _ in range(length)]
        yield ["3.3", "62.3", "324"] if position == 0 else other


async def send(
    url: str,
    count: int,
    api_key: str | None,
    sent: Callable[[int], None],
    check: Callable[[], None],
) -> list[Answer]:
    """Call `count` times, with a few callers at once.

    `sent` is told how many answers there are; `check` is asked meanwhile, and ends it by raising.
    """
    waiting = sample_values(count)
    headers = {"x-api-key": api_key} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=SECONDS_PER_CALL)
    answers: list[Answer] = []

    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

        async def call_in_turn() -> None:
            for values in waiting:
                answers.append(await _call(session, url, values))
                sent(len(answers))

        callers = asyncio.gather(*(call_in_turn() for _ in range(CALLERS)))
        try:
            while not callers.done():
                check()
                await asyncio.wait([callers], timeout=0.2)
        finally:
            callers.cancel()  # a call that outlived the session would leave a trace
            with suppress(asyncio.CancelledError):
                await callers
    return answers


async def _call(session: aiohttp.ClientSession, url: str, values: list[str]) -> Answer:
    try:
        async with session.post(url, json={"values": values}) as response:
            pair_id = response.headers.get("x-shadow-pair-id", "")
            return Answer(pair_id, values, response.status, await response.text())
    except (aiohttp.ClientError, TimeoutError) as error:
        return Answer("", values, 0, f"{type(error).__name__}: {error}")
