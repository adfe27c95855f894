"""The demonstration: a whole deployment, traffic through it, and the verdict on the shadow."""

from __future__ import annotations

import asyncio
import shutil
import time
from datetime import UTC, datetime

import typer
from rich.console import Console

from shadow_local.pairs import Pair, complete_pairs, pairs_table, summary
from shadow_local.report import FAILURES, comparison
from shadow_local.stack import Options, Stack
from shadow_local.steps import counted, steps
from shadow_local.stopping import stopped_at_the_end
from shadow_local.supervisor import StopRequested
from shadow_local.traffic import Answer, send

SHOWN_PAIRS = 5
DEFAULT_FACTOR = "2"  # minimal-predictor's own
# Records are in Postgres within a second or so; this long only when something is wrong.
DELIVERY_SECONDS = 60
# Where only a share is mirrored, nobody knows how many pairs there will be.
SHARE_SECONDS = 5


def demonstrate(options: Options, requests: int, screen: Console) -> None:
    """Show a shadow that differs and one that does not.

    typer.Exit with a code other than 0 when an answer, a pair or a verdict is missing.
    """
    for remains in options.folder.glob("*/"):
        shutil.rmtree(remains)
    stack = Stack(options)
    try:
        with stopped_at_the_end(stack, screen.print):
            with steps(screen) as step:
                stack.start(step)
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
    answers = _answers(stack, requests, screen)
    pairs = _delivered(stack, answers, screen)
    failed = [answer for answer in answers if answer.status != 200]
    screen.print(pairs_table(pairs[:SHOWN_PAIRS]))
    screen.print(summary(pairs, requests))
    for answer in failed[:SHOWN_PAIRS]:
        screen.print(f"no answer to {answer.values}: {answer.status} {answer.body}", style="red")
    screen.print()
    uri = stack.database.of_role("report")
    code = stack.supervisor.run(
        *comparison(uri, stack.mirror_percentage, ["--since", began.isoformat()])
    )
    all_there = len(pairs) == requests or not _mirrors_all(stack)
    return not failed and all_there and code not in FAILURES


def _answers(stack: Stack, requests: int, screen: Console) -> list[Answer]:
    url = stack.state.predict_url if stack.state else ""
    key = stack.options.api_key
    with counted(screen, "sending calls through the gateway", requests) as done:
        return asyncio.run(send(url, requests, key, done, stack.check))


def _delivered(stack: Stack, answers: list[Answer], screen: Console) -> list[Pair]:
    """The pairs of the answered calls, once they are all there, or as many as there are."""
    wanted = [answer.pair_id for answer in answers if answer.pair_id]
    patience = DELIVERY_SECONDS if _mirrors_all(stack) else SHARE_SECONDS
    pairs: list[Pair] = []
    grew = time.monotonic()
    with counted(screen, "waiting for pairs in Postgres", len(wanted)) as done:
        while True:
            stack.check()
            found = complete_pairs(stack.database.uri, wanted)
            grew = time.monotonic() if len(found) > len(pairs) else grew
            pairs = found
            done(len(pairs))
            if len(pairs) == len(wanted) or time.monotonic() > grew + patience:
                return pairs
            time.sleep(0.2)


def _mirrors_all(stack: Stack) -> bool:
    return stack.mirror_percentage == 100
