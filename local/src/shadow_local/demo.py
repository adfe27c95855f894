"""The demonstration: a whole deployment, traffic through it, and the verdict on the shadow."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from shadow_local.report import FAILURES, comparison
from shadow_local.stack import FOLLOWER, Options, Stack, in_foreground, steps
from shadow_local.supervisor import StopRequested
from shadow_local.traffic import Answer, Call, Pace, counted, send

SHOWN_PAIRS = 5
# Of two models that answer alike, for PROMOTE.
ENOUGH = 4000
# Records are in Postgres within a second or so; this long only when something is wrong.
DELIVERY_SECONDS = 60
# Where only a share is mirrored, nobody knows how many pairs there will be.
SHARE_SECONDS = 5
NOT_ALL_THERE = "The shadow did not get every call, or its answers are late; look into {}."
COMPLETE_PAIRS = """
WITH answered AS (
    SELECT pair_id, role, inference_service, request_time, request_data, status_code, response_data
    FROM inference_requests JOIN inference_responses USING (record_id, request_time, pair_id)
    WHERE pair_id = ANY(coalesce(%s::text[], ARRAY(
        SELECT pair_id FROM inference_requests WHERE role = 'primary' AND request_time >= %s
    )))
)
SELECT pair_id, p.request_data, p.status_code, s.status_code, p.response_data, s.response_data
FROM answered p JOIN answered s USING (pair_id)
WHERE p.role = 'primary' AND s.role = 'shadow' AND s.inference_service = %s
ORDER BY p.request_time
"""


@dataclass(frozen=True)
class Scene:
    """What is demonstrated: calls to one kind of model, and a setting that makes a shadow differ.

    `shown` is what a person looks at in a request or an answer, and what is compared of it here.
    """

    calls: Callable[[int], Iterator[Any]]
    shown: Callable[[Any], Any]
    setting: str  # of the predictors
    default: str
    differing: str  # titles; {0} is the primary's value and {1} the shadow's
    agreeing: str
    again: str  # the command that runs the same deployment until Ctrl-C
    page: str  # of docs, for a model of one's own
    compare: tuple[str, ...] = ()  # options
    caution: str = ""  # what not to believe of its figures


@dataclass(frozen=True)
class Pair:
    """Both answers to one call, as they are shown."""

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


def demonstrate(
    options: Options,
    requests: int,
    screen: Console,
    model: str = "number",
    pages: Path | None = None,
) -> None:
    """Show a shadow that differs and one that does not.

    pages: a folder for their reports, `differs.html` and `agrees.html`.
    typer.Exit with a code other than 0 when an answer, a pair or a verdict is missing.
    """
    scene = SCENES[model]
    for remains in options.folder.glob("*/"):
        shutil.rmtree(remains)
    stack = Stack(options)
    if pages is not None:
        pages.mkdir(parents=True, exist_ok=True)

    def with_page(name: str) -> Scene:
        page = ("--html", str(pages.resolve() / f"{name}.html")) if pages else ()
        return replace(scene, compare=(*scene.compare, *page))

    try:
        with in_foreground(stack, screen):
            values = [
                stack.environment(f"{role}-predictor").get(scene.setting, scene.default)
                for role in ("primary", "shadow")
            ]
            title = scene.differing.format(*values)
            sound = _round(stack, with_page("differs"), requests, screen, title)
            _replace_shadow(stack, {scene.setting: values[0]}, screen)
            title = scene.agreeing.format(*values)
            sound &= _round(stack, with_page("agrees"), requests, screen, title)
            screen.print("stopping")
    except StopRequested:
        raise typer.Exit(130) from None
    if not sound:
        raise typer.Exit(1)
    screen.print(_what_next(scene, model, requests), soft_wrap=True)


def _replace_shadow(stack: Stack, model: dict[str, str], screen: Console) -> None:
    """Put another model in the shadow's place, under a name of its own, as a deployment would."""
    primary = stack.environment("primary-transformer")
    shadow = stack.environment("shadow-transformer")["INFERENCE_SERVICE"]
    own = {"MODEL_VERSION": primary["MODEL_VERSION"]} if "MODEL_VERSION" in primary else {}
    own["INFERENCE_SERVICE"] = f"{primary['INFERENCE_SERVICE']}-next"
    with steps(screen) as step:
        step(f"replacing the shadow by {own['INFERENCE_SERVICE']}")
        stack.restart("shadow-predictor", model)
        stack.restart("shadow-transformer", own)
        if stack.state and stack.state.follower:
            next_shadow = f"--shadow={own['INFERENCE_SERVICE']}"
            stack.restart(FOLLOWER, {}, {f"--shadow={shadow}": next_shadow})


def _what_next(scene: Scene, model: str, requests: int) -> str:
    """Commands or pages to go on with, but for the command that has just run."""
    lines = {scene.again: "the same until Ctrl-C, for curl, make traffic and make psql"}
    if requests < ENOUGH:
        of_model = "" if model == "number" else f"MODEL={model} "
        more = f"make demo {of_model}REQUESTS={ENOUGH}"
        lines[more] = "calls enough for PROMOTE in the second round"
    lines[scene.page] = "a model of your own in the place of this one"
    width = max(map(len, lines))
    shown = [f"  {command:{width}}  {what}" for command, what in lines.items()]
    return "\n".join(["", "What to try next:", *shown])


def _round(stack: Stack, scene: Scene, requests: int, screen: Console, title: str) -> bool:
    """Send the traffic, show its pairs and the verdict; is all there that should be?"""
    began = datetime.now(UTC)
    screen.rule(title)
    answers = _send(stack, scene.calls(requests), requests, screen)
    failed = [answer for answer in answers if answer.status != 200]
    all_there = True
    for candidate in stack.candidates:
        pairs = _delivered(stack, scene, answers, began, screen, candidate=candidate)
        all_there &= len(pairs) == requests or stack.mirror_percentage != 100
        differing = sum(pair.differs for pair in pairs)
        if len(stack.candidates) > 1:
            screen.print(f"\n{candidate}:", style="bold")
        screen.print(_pairs_table(pairs[:SHOWN_PAIRS]))
        screen.print(
            f"{len(pairs)} of {requests} calls paired; in {differing} of them the answers differ."
        )
        if len(pairs) < requests - len(failed) and stack.mirror_percentage == 100:
            screen.print(NOT_ALL_THERE.format(stack.options.folder / "logs"), style="red")
    for answer in failed[:SHOWN_PAIRS]:
        shown = scene.shown(json.loads(answer.call.body))
        screen.print(f"no answer to {shown}: {answer.status} {answer.body}", style="red")
    screen.print()
    uri = stack.database.of_role("report")
    more = [*scene.compare, "--since", began.isoformat()]
    screen.print("judging")
    code = stack.supervisor.run(*comparison(uri, stack.mirror_percentage, more, stack.candidates))
    if scene.caution:
        screen.print(f"\n{scene.caution}", style="dim", soft_wrap=True)
    return not failed and all_there and code not in FAILURES


def _send(stack: Stack, bodies: Iterator[Any], count: int, screen: Console) -> list[Answer]:
    """The answers to all calls; the stack is checked meanwhile, which ends it by raising."""
    url = stack.state.predict_url if stack.state else ""
    copies_url = stack.state.copies_url if stack.state else None
    calls = (Call(url, json.dumps(body).encode()) for body in bodies)
    answers: list[Answer] = []
    with counted(screen, "sending calls through the gateway", count) as done:

        def answered(answer: Answer) -> None:
            answers.append(answer)
            done(len(answers))

        pace = Pace(copies_url, lambda line: screen.print(line, soft_wrap=True))
        asyncio.run(send(calls, stack.api_key, answered, pace, stack.check))
    return answers


def _lists_of_numbers(count: int) -> Iterator[dict[str, list[str]]]:
    """Numbers as text, the README's own first."""
    numbers = random.Random(1)  # noqa: S311
    for position in range(count):
        length = numbers.randint(1, 5)
        other = [f"{numbers.uniform(-1000, 1000):.2f}" for _ in range(length)]
        yield {"values": ["3.3", "62.3", "324"] if position == 0 else other}


def _questions(count: int) -> Iterator[dict[str, Any]]:
    """Chats, every second one streamed; at temperature 0 a model gives one answer to one prompt."""
    chosen = random.Random(1)  # noqa: S311
    for position in range(count):
        words = chosen.sample(("lamp", "keeper", "captain", "storm", "salary", "rocks", "ship"), 2)
        streams = {"stream": True, "stream_options": {"include_usage": True}}
        yield {
            "model": "model",
            "messages": [{"role": "user", "content": f"{words[0]}, {words[1]}? ({position})"}],
            "temperature": 0,
            **(streams if position % 2 else {}),
        }


def _only_member(document: Any) -> Any:
    """The list that a call or an answer holds."""
    if isinstance(document, dict) and len(document) == 1:
        return next(iter(document.values()))
    return document


def _last_words(document: Any) -> Any:
    """What is said in a chat's request or answer."""
    try:
        if "messages" in document:
            return document["messages"][-1]["content"]
        return document["choices"][0]["message"]["content"]
    except (KeyError, TypeError, IndexError):
        return document


SCENES = {
    "number": Scene(
        calls=_lists_of_numbers,
        shown=_only_member,
        setting="FACTOR",
        default="2",  # minimal-predictor's own
        differing="The primary multiplies by {0}, the shadow by {1}",
        agreeing="The primary multiplies by {0}, and so does the shadow",
        again="make up",
        page="docs/your-own-model.md",
    ),
    "llm": Scene(
        calls=_questions,
        shown=_last_words,
        setting="MODEL_VARIANT",
        default="base",
        differing="The primary is the {0} model, the shadow the {1} one",
        agreeing="The primary is the {0} model, and so is the shadow",
        again="make up MODEL=llm",
        page="docs/models/language-model.md",
        compare=("--rules", "openai"),
        caution="Times are no part of this demo: both sides share the cores of one machine, and a "
        "first token waits for them.",
    ),
}


def _delivered(
    stack: Stack,
    scene: Scene,
    answers: list[Answer],
    began: datetime,
    screen: Console,
    *,
    candidate: str,
) -> list[Pair]:
    """The candidate's pairs of the answered calls, once all are there, or as many as there are.

    Only an entry that mirrors tells its callers the pair ids; else all calls since then are these.
    """
    wanted = [answer.pair_id for answer in answers if answer.pair_id]
    calls = len(wanted) or len(answers)
    patience = DELIVERY_SECONDS if stack.mirror_percentage == 100 else SHARE_SECONDS
    pairs: list[Pair] = []
    grew = time.monotonic()
    with (
        counted(screen, "waiting for pairs in Postgres", calls) as done,
        psycopg.connect(stack.database.uri, autocommit=True) as connection,
    ):
        while True:
            stack.check()
            found = list(_complete_pairs(connection, scene, wanted or None, began, candidate))
            grew = time.monotonic() if len(found) > len(pairs) else grew
            pairs = found
            done(len(pairs))
            if len(pairs) == calls or time.monotonic() > grew + patience:
                return pairs
            time.sleep(0.2)


def _complete_pairs(
    connection: psycopg.Connection[Any],
    scene: Scene,
    wanted: list[str] | None,
    began: datetime,
    candidate: str,
) -> Iterator[Pair]:
    shown = scene.shown
    rows = connection.execute(COMPLETE_PAIRS, [wanted, began, candidate])
    for pair_id, request, primary_status, shadow_status, primary, shadow in rows:
        yield Pair(
            pair_id, shown(request), primary_status, shadow_status, shown(primary), shown(shadow)
        )


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
    """What is shown of a body in few characters."""
    if isinstance(body, list):
        body = " ".join(f"{item:.7g}" if isinstance(item, float) else str(item) for item in body)
    text = body if isinstance(body, str) else json.dumps(body)
    text = text if len(text) <= width else text[: width - 1] + "…"
    return text if status == 200 else f"{status} {text}"
