"""The demonstration: a whole deployment, traffic through it, and the verdict on the shadow."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import psycopg
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from shadow_local.report import FAILURES, comparison
from shadow_local.stack import Options, Stack, in_foreground, steps
from shadow_local.supervisor import StopRequested

SHOWN_PAIRS = 5
DEFAULT_FACTOR = "2"  # minimal-predictor's own
CALLERS = 8
SECONDS_PER_CALL = 60
# Records are in Postgres within a second or so; this long only when something is wrong.
DELIVERY_SECONDS = 60
# Where only a share is mirrored, nobody knows how many pairs there will be.
SHARE_SECONDS = 5
COMPLETE_PAIRS = """
SELECT pair_id, request_data, primary_status, shadow_status, primary_response, shadow_response
FROM inference_pairs
WHERE pair_id = ANY(%s) AND primary_record_id IS NOT NULL AND shadow_record_id IS NOT NULL
    AND primary_status IS NOT NULL AND shadow_status IS NOT NULL
ORDER BY request_time
"""


@dataclass(frozen=True)
class Answer:
    """What a caller got; `status` is 0 when there was no answer, `body` says why."""

    pair_id: str
    values: list[str]
    status: int
    body: str


@dataclass(frozen=True)
class Pair:
    """Both answers to one call."""

    pair_id: str
    request: Any
    primary_status: int
    shadow_status: int
    primary_answer: Any
    shadow_answer: Any

    @property
    def differs(self) -> bool:
        """Would the caller have got something else from the shadow?"""
        primary = (self.primary_status, self.primary_answer)
        return primary != (self.shadow_status, self.shadow_answer)


def demonstrate(options: Options, requests: int, screen: Console) -> None:
    """Show a shadow that differs and one that does not.

    typer.Exit with a code other than 0 when an answer, a pair or a verdict is missing.
    """
    for remains in options.folder.glob("*/"):
        shutil.rmtree(remains)
    stack = Stack(options)
    try:
        with in_foreground(stack, screen):
            primary, shadow = (
                stack.environment(f"{role}-predictor").get("FACTOR", DEFAULT_FACTOR)
                for role in ("primary", "shadow")
            )
            title = f"The primary multiplies by {primary}, the shadow by {shadow}"
            sound = _round(stack, requests, screen, title)
            with steps(screen) as step:
                step("replacing the shadow")
                stack.restart("shadow-predictor", {"FACTOR": primary})
            title = f"The primary multiplies by {primary}, and so does the shadow"
            sound &= _round(stack, requests, screen, title)
    except StopRequested:
        raise typer.Exit(130) from None
    if not sound:
        raise typer.Exit(1)


def _round(stack: Stack, requests: int, screen: Console, title: str) -> bool:
    """Send the traffic, show its pairs and the verdict; is all there that should be?"""
    began = datetime.now(UTC)
    screen.rule(title)
    with _counted(screen, "sending calls through the gateway", requests) as done:
        answers = asyncio.run(_send(stack, requests, done))
    pairs = _delivered(stack, answers, screen)
    failed = [answer for answer in answers if answer.status != 200]
    differing = sum(pair.differs for pair in pairs)
    screen.print(_pairs_table(pairs[:SHOWN_PAIRS]))
    screen.print(
        f"{len(pairs)} of {requests} calls paired; in {differing} of them the answers differ."
    )
    for answer in failed[:SHOWN_PAIRS]:
        screen.print(f"no answer to {answer.values}: {answer.status} {answer.body}", style="red")
    screen.print()
    uri = stack.database.of_role("report")
    code = stack.supervisor.run(
        *comparison(uri, stack.mirror_percentage, ["--since", began.isoformat()])
    )
    all_there = len(pairs) == requests or stack.mirror_percentage != 100
    return not failed and all_there and code not in FAILURES


async def _send(stack: Stack, count: int, done: Callable[[int], None]) -> list[Answer]:
    """Call `count` times, with a few callers at once; `done` is called with how many ended.

    The stack is checked meanwhile, which ends it by raising.
    """
    url = stack.state.predict_url if stack.state else ""
    headers = {"x-api-key": stack.options.api_key} if stack.options.api_key else {}
    timeout = aiohttp.ClientTimeout(total=SECONDS_PER_CALL)
    waiting = _sample_values(count)
    answers: list[Answer] = []

    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

        async def call_in_turn() -> None:
            for values in waiting:
                answers.append(await _call(session, url, values))
                done(len(answers))

        callers = asyncio.gather(*(call_in_turn() for _ in range(CALLERS)))
        try:
            while not callers.done():
                stack.check()
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


def _sample_values(count: int, seed: int = 1) -> Iterator[list[str]]:
    """`count` lists of numbers as text, the README's own first; the same ones for the same seed."""
    numbers = random.Random(seed)  # noqa: S311
    for position in range(count):
        length = numbers.randint(1, 5)
        other = [f"{numbers.uniform(-1000, 1000):.1f}" for _ in range(length)]
        yield ["3.3", "62.3", "324"] if position == 0 else other


def _delivered(stack: Stack, answers: list[Answer], screen: Console) -> list[Pair]:
    """The pairs of the answered calls, once they are all there, or as many as there are."""
    wanted = [answer.pair_id for answer in answers if answer.pair_id]
    patience = DELIVERY_SECONDS if stack.mirror_percentage == 100 else SHARE_SECONDS
    pairs: list[Pair] = []
    grew = time.monotonic()
    with (
        _counted(screen, "waiting for pairs in Postgres", len(wanted)) as done,
        psycopg.connect(stack.database.uri, autocommit=True) as connection,
    ):
        while True:
            stack.check()
            found = [Pair(*row) for row in connection.execute(COMPLETE_PAIRS, [wanted])]
            grew = time.monotonic() if len(found) > len(pairs) else grew
            pairs = found
            done(len(pairs))
            if len(pairs) == len(wanted) or time.monotonic() > grew + patience:
                return pairs
            time.sleep(0.2)


def _pairs_table(pairs: list[Pair]) -> Table:
    """One line for each pair; on a terminal those that differ stand out."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("pair", min_width=8)
    for title in ("request", "primary", "shadow"):
        table.add_column(title, no_wrap=True)
    for pair in pairs:
        table.add_row(
            pair.pair_id[:8],
            _shown(200, pair.request),
            _shown(pair.primary_status, pair.primary_answer),
            _shown(pair.shadow_status, pair.shadow_answer),
            style="yellow" if pair.differs else None,
        )
    return table


def _shown(status: int, body: Any, width: int = 20) -> str:
    """A body in few characters: the list that a call or answer holds, or its text."""
    if isinstance(body, dict) and len(body) == 1:
        body = next(iter(body.values()))
    if isinstance(body, list):
        body = " ".join(f"{item:.7g}" if isinstance(item, float) else str(item) for item in body)
    text = body if isinstance(body, str) else json.dumps(body)
    text = text if len(text) <= width else text[: width - 1] + "…"
    return text if status == 200 else f"{status} {text}"


@contextmanager
def _counted(screen: Console, step: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step of `total` parts; call it with the number that is done."""
    if not screen.is_terminal:
        screen.print(f"{step}: {total}", soft_wrap=True)
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(step, total=total)
        yield lambda done: bar.update(task, completed=done)
