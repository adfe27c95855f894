"""The demonstration: a whole deployment, traffic through it, and the verdict on the shadow."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shadow_local.pairs import Pair, complete_pairs, pairs_table, summary
from shadow_local.report import FAILURES, verdict
from shadow_local.stack import Options, Stack
from shadow_local.stopping import stopped_at_the_end
from shadow_local.supervisor import StopRequested
from shadow_local.traffic import Answer, send

SHOWN_PAIRS = 5
# Records are in Postgres within a second or so; this long only when something is wrong.
DELIVERY_SECONDS = 60


def demonstrate(options: Options, requests: int, screen: Console) -> None:
    """Show a shadow that differs and one that does not.

    typer.Exit with a code other than 0 when an answer, a pair or a verdict is missing.
    """
    for remains in options.folder.glob("*/"):
        shutil.rmtree(remains)
    stack = Stack(options)
    try:
        with stopped_at_the_end(stack):
            with _bar(screen) as bar:
                task = bar.add_task("starting", total=None)
                stack.start(lambda text: bar.update(task, description=text))
            sound = _round(
                stack, requests, screen, "A shadow that triples where the primary doubles"
            )
            with _bar(screen) as bar:
                bar.add_task("replacing the shadow", total=None)
                stack.restart("shadow-predictor", {"FACTOR": "2"})
            sound &= _round(stack, requests, screen, "A shadow that doubles as the primary does")
    except StopRequested:
        raise typer.Exit(130) from None
    if not sound:
        raise typer.Exit(1)


def _round(stack: Stack, requests: int, screen: Console, title: str) -> bool:
    """Send the traffic, show its pairs and the verdict; is all there that should be?"""
    began = datetime.now(UTC)
    screen.rule(title)
    with _bar(screen) as bar:
        answers = _answers(stack, requests, bar)
        pairs = _delivered(stack, answers, bar)
    failed = [answer for answer in answers if answer.status != 200]
    screen.print(pairs_table(pairs[:SHOWN_PAIRS]))
    screen.print(summary(pairs, requests))
    for answer in failed[:SHOWN_PAIRS]:
        screen.print(f"no answer to {answer.values}: {answer.status} {answer.body}", style="red")
    screen.print()
    code = verdict(stack.database.of_role("report"), ["--since", began.isoformat()])
    return not failed and len(pairs) == requests and code not in FAILURES


def _answers(stack: Stack, requests: int, bar: Progress) -> list[Answer]:
    task = bar.add_task("calls through the gateway", total=requests)
    url = stack.state.predict_url if stack.state else ""
    key = stack.options.api_key
    return asyncio.run(send(url, requests, key, lambda: bar.advance(task), stack.check))


def _delivered(stack: Stack, answers: list[Answer], bar: Progress) -> list[Pair]:
    """The pairs of the answered calls, once they are all there, or as many as there are."""
    wanted = [answer.pair_id for answer in answers if answer.pair_id]
    task = bar.add_task("pairs in Postgres", total=len(wanted))
    deadline = time.monotonic() + DELIVERY_SECONDS
    while True:
        stack.check()
        pairs = complete_pairs(stack.database.uri, wanted)
        bar.update(task, completed=len(pairs))
        if len(pairs) == len(wanted) or time.monotonic() > deadline:
            return pairs
        time.sleep(0.2)


@contextmanager
def _bar(screen: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        yield bar
