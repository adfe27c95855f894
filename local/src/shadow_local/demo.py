"""The demonstration: a whole deployment, traffic through it, and what the comparison says."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shadow_local.pairs import Pair, complete_pairs, pairs_table, summary
from shadow_local.stack import Options, Stack
from shadow_local.stopping import StopRequested, stopped_at_the_end
from shadow_local.traffic import Answer, send

SHOWN_PAIRS = 8
# Records are in Postgres within a second or so; this long only when something is wrong.
DELIVERY_SECONDS = 60


def demonstrate(options: Options, requests: int, screen: Console) -> None:
    """Show it; typer.Exit with a code other than 0 when an answer or a pair is missing."""
    shutil.rmtree(options.folder / "postgres", ignore_errors=True)
    stack = Stack(options)
    try:
        with stopped_at_the_end(stack), _bar(screen) as bar:
            starting = bar.add_task("starting", total=None)
            state = stack.start(lambda text: bar.update(starting, description=text))
            bar.remove_task(starting)
            calls = bar.add_task("calls through the gateway", total=requests)
            answers = asyncio.run(
                send(state.predict_url, requests, options.api_key, lambda: bar.advance(calls))
            )
            pairs = _delivered(stack, answers, bar)
    except StopRequested:
        raise typer.Exit(130) from None
    failed = [answer for answer in answers if answer.status != 200]
    screen.print(pairs_table(pairs[:SHOWN_PAIRS]))
    screen.print(summary(pairs, requests))
    for answer in failed[:SHOWN_PAIRS]:
        screen.print(f"no answer to {answer.values}: {answer.status} {answer.body}", style="red")
    if failed or len(pairs) < requests:
        raise typer.Exit(1)


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
