"""Calls through a gateway, a few at once: a demonstration's, or those of a file."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shadow_local import Explained

CALLERS = 8
# As many as there are callers: with more the shadow would have a queue that the primary has not,
# and its time is compared. The gateway drops none of so few (64 at once, 512 waiting), and gives
# none up (after 60 s) that a shadow is done with which answers one in seven seconds.
MOST_OPEN_COPIES = CALLERS
LOOK_SECONDS = 0.01
COPY_SECONDS = 60
# For an answer of a shadow that is as fast as its primary nobody waits that long.
BEHIND_SECONDS = 1
# No answer may take that long, but for a long stream's.
STUCK_SECONDS = 20
SECONDS_PER_CALL = 60
SECONDS_PER_LINE = 30
SHOWN_CHARACTERS = 200
MOST_EXAMPLES = 3
# A predict URL is an entry and a path below it.
PREDICT_URL = re.compile(
    r"(https?://.+?)/((?:openai/)?v[12]/"
    r"(?:models|chat|completions|embeddings|rerank|responses)\b.*)"
)
# What a line may say beside its body; a line with other members is a body itself.
LINE_MEMBERS = {"path", "headers", "body", "base64", "binary"}
# A line of OpenAI's batch files has these two and names the call; `url` begins with /v1/.
BATCH_MEMBERS = {"custom_id", "method", "url", "body"}
OPENAI_PATHS = {"messages": "chat/completions", "prompt": "completions", "input": "embeddings"}
# Of the tensors in a body of the v2 protocol's binary extension, little-endian.
TENSOR_FORMATS = {
    "BOOL": "?",
    **{f"INT{8 << i}": letter for i, letter in enumerate("bhiq")},
    **{f"UINT{8 << i}": letter for i, letter in enumerate("BHIQ")},
    **{f"FP{16 << i}": letter for i, letter in enumerate("efd")},
}


@dataclass(frozen=True)
class Call:
    """One POST; `line` is where it stands in a file, counted from 1."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    line: int = 0


@dataclass(frozen=True)
class Answer:
    """What a caller got; `status` is 0 when there was no answer, `body` says why."""

    pair_id: str
    call: Call
    status: int
    body: str


class Pace:
    """Lets calls go only as fast as the shadow answers its copies, so that the mirror drops none.

    copies_url: Envoy's figures of the copies that are open; None where nothing is mirrored, or by a
    gateway that is not ours: then no call waits. tell: called with a line once the calls have
    waited long for a shadow that answers, and with another for one that does not; once each.
    """

    def __init__(self, copies_url: str | None, tell: Callable[[str], None]) -> None:
        self._url = copies_url
        self._tell = tell
        self._told: set[str] = set()
        self._room = 0
        self._looking = asyncio.Lock()

    async def turn(self, session: aiohttp.ClientSession) -> None:
        """Return once one more call may be made."""
        # One looks for all, who then go without a look until what it found is used up.
        async with self._looking:
            if self._room == 0:
                self._room = MOST_OPEN_COPIES - await self._until_fewer(MOST_OPEN_COPIES, session)
            self._room -= 1

    async def finish(self, session: aiohttp.ClientSession) -> None:
        """Return once no copy is open, or none can be any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(COPY_SECONDS):
                await self._until_fewer(1, session)

    async def _until_fewer(self, limit: int, session: aiohttp.ClientSession) -> int:
        """How many copies are open, as soon as it is below the limit."""
        count = await self._open_copies(session)
        began = answered = time.monotonic()
        while count >= limit:
            await asyncio.sleep(LOOK_SECONDS)
            before, count = count, await self._open_copies(session)
            now = time.monotonic()
            # Before those were answered that were seen just now: they may have been the last.
            waiting = f"{max(before, count)} copies wait for the shadow, "
            # Hardly a call begins meanwhile, so whatever is answered is seen to be fewer.
            if count < before:
                answered = now
                if now - began > BEHIND_SECONDS:
                    said = "and calls go at its pace; whether it answers all, make report says"
                    self._tell_once("behind", f"{waiting}{said}")
            elif now - answered > STUCK_SECONDS:
                said = f"none was answered for {STUCK_SECONDS} s: it is stuck, or as slow as that"
                self._tell_once("stuck", f"{waiting}and {said}")
        return count

    def _tell_once(self, what: str, line: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._tell(line)

    async def _open_copies(self, session: aiohttp.ClientSession) -> int:
        if self._url is None:
            return 0
        try:
            async with session.get(self._url) as response:
                figures = await response.json()
        except (aiohttp.ClientError, TimeoutError):
            return 0  # the gateway is gone, and the calls will say so
        return sum(figure["value"] for figure in figures["stats"])


async def send(
    calls: Iterable[Call],
    api_key: str | None,
    answered: Callable[[Answer], None],
    pace: Pace,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Make the calls with a few callers at once; `answered` is called with each answer.

    `check` is called meanwhile; it ends the traffic by raising.
    """
    waiting = iter(calls)
    headers = {"x-api-key": api_key} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=SECONDS_PER_CALL)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

        async def call_in_turn() -> None:
            for call in waiting:
                await pace.turn(session)
                answered(await _answer(session, call))

        async def call_all() -> None:
            await asyncio.gather(*(call_in_turn() for _ in range(CALLERS)))
            await pace.finish(session)

        traffic = asyncio.create_task(call_all())
        try:
            while not traffic.done():
                check()
                await asyncio.wait([traffic], timeout=0.2)
            traffic.result()
        finally:
            traffic.cancel()  # a call that outlived the session would leave a trace
            with suppress(asyncio.CancelledError):
                await traffic


async def _answer(session: aiohttp.ClientSession, call: Call) -> Answer:
    try:
        async with session.post(call.url, data=call.body, headers=call.headers) as response:
            pair_id = response.headers.get("x-shadow-pair-id", "")
            return Answer(pair_id, call, response.status, await response.text(errors="replace"))
    except (aiohttp.ClientError, TimeoutError) as error:
        return Answer("", call, 0, f"{type(error).__name__}: {error}")


def send_file(  # noqa: PLR0917
    file: Path,
    predict_url: str,
    times: int,
    api_key: str | None,
    screen: Console,
    copies_url: str | None = None,
) -> bool:
    """Send a file's requests so many times over, at the shadow's pace; show how they were answered.

    True when every one was answered with a status below 400; Explained for a line that is not a
    request, before anything is sent.
    """
    calls = read_calls(file, predict_url)
    counts: dict[int, int] = {}
    # Failures of one status may have several reasons.
    examples: dict[int, dict[str, Answer]] = {}
    total = len(calls) * times
    with counted(screen, "sending calls through the gateway", total) as done:

        def answered(answer: Answer) -> None:
            shown = examples.setdefault(answer.status, {})
            if not shown or (not 0 < answer.status < 400 and len(shown) < MOST_EXAMPLES):
                shown.setdefault(_shown(answer), answer)
            counts[answer.status] = counts.get(answer.status, 0) + 1
            done(sum(counts.values()))

        pace = Pace(copies_url, lambda line: screen.print(line, soft_wrap=True))
        asyncio.run(send(chain.from_iterable(repeat(calls, times)), api_key, answered, pace))
    for status, count in sorted(counts.items()):
        noun = "call" if count == 1 else "calls"
        result = f"answered {status}" if status else "not answered"
        begins = f"{count:6} {noun} {result}, such as"
        for text, answer in examples[status].items():
            screen.print(f"{begins} line {answer.call.line}: {text}", soft_wrap=True)
            begins = f"{'or as':>{len(begins)}}"
    return all(0 < status < 400 for status in counts)


def _shown(answer: Answer) -> str:
    text = " ".join(answer.body.split())
    if not text:
        refused = ", as to a call without the gateway's key: set X_API_KEY to it"
        return f"(an empty body{refused * (answer.status == 403)})"
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def read_calls(file: Path, predict_url: str) -> list[Call]:
    """The requests of a file with one JSON object a line; empty lines are passed over.

    A line is a body, or says more: `{"path": ..., "headers": {...}, "body": ...}`, with `base64` in
    place of `body` for bytes, and with `"binary": true` for a v2 body whose tensors go as bytes.
    Without a path the body's own form decides, else it is that of `predict_url`.
    """
    if not file.is_file():
        # make passes on what is unset as ""
        given = "not set" if file == Path() else f"'{file}', which is not a file"
        raise Explained(f"FILE is {given}; name one with a request a line (local/README.md).")
    parts = PREDICT_URL.fullmatch(predict_url)
    if parts is None:
        raise Explained(
            f"PREDICT_URL is '{predict_url}'; set it to what `make up` prints as ready."
        )
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                found.append(_call(json.loads(line), parts[1], parts[2], number))
            except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
                raise Explained(
                    f"{file}, line {number} is not a request: {error}; "
                    "write each request as one JSON object on one line (local/README.md)."
                ) from None
    if not found:
        raise Explained(f"{file} has no request; write one JSON object a line.")
    return found


def _call(line: Any, entry: str, own_path: str, number: int) -> Call:
    """ValueError, KeyError or TypeError for a line that is not a request."""
    if not isinstance(line, dict):
        raise TypeError("it is not a JSON object")
    if {"url", "body"} <= line.keys() <= BATCH_MEMBERS:
        prefix = "openai/" if own_path.startswith("openai/") else ""
        line = {"path": prefix + line["url"].lstrip("/"), "body": line["body"]}
    if not (line.keys() <= LINE_MEMBERS and line.keys() & {"body", "base64"}):
        line = {"body": line}
    headers = {"content-type": "application/json"}
    if "base64" in line:
        body = base64.b64decode(line["base64"], validate=True)
        headers = {"content-type": "application/octet-stream"}
    elif line.get("binary"):
        body, headers = with_binary_tensors(line["body"])
    else:
        body = json.dumps(line["body"], ensure_ascii=False).encode()
    path = line.get("path") or _path(line.get("body"), own_path)
    return Call(f"{entry}/{path.lstrip('/')}", body, headers | line.get("headers", {}), number)


def _path(body: Any, own_path: str) -> str:
    """Where a body of this form goes; the deployment's own path where its form says nothing."""
    if not isinstance(body, dict):
        return own_path
    inputs = body.get("inputs")
    if isinstance(inputs, list) and inputs and all("datatype" in tensor for tensor in inputs):
        model = re.search(r"models/([^/:]+)", own_path)
        return f"v2/models/{model[1] if model else 'model'}/infer"
    prefix, openai, _ = own_path.partition("v1/")
    if openai and "models/" not in own_path:
        for member, path in OPENAI_PATHS.items():
            if member in body:
                return f"{prefix}v1/{path}"
    return own_path


def with_binary_tensors(request: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """A v2 request with its tensors as bytes behind the JSON, and the headers that say so."""
    tensors, inputs = [], []
    for tensor in request["inputs"]:
        raw = _tensor_bytes(tensor["datatype"], list(_flat(tensor["data"])))
        parameters = tensor.get("parameters", {}) | {"binary_data_size": len(raw)}
        rest = {name: value for name, value in tensor.items() if name != "data"}
        inputs.append(rest | {"parameters": parameters})
        tensors.append(raw)
    head = json.dumps(request | {"inputs": inputs}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return b"".join((head, *tensors)), headers


def _tensor_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if datatype not in TENSOR_FORMATS:
        raise ValueError(f"datatype is {datatype!r}; it can be BYTES, {', '.join(TENSOR_FORMATS)}")
    return struct.pack(f"<{len(values)}{TENSOR_FORMATS[datatype]}", *values)


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list):
        for value in values:
            yield from _flat(value)
    else:
        yield values


@contextmanager
def counted(screen: Console, step: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step of `total` parts; call it with the number that is done."""
    if not screen.is_terminal:
        screen.print(f"{step}: {total}", soft_wrap=True)
        yield _now_and_then(screen, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(step, total=total)
        yield lambda done: bar.update(task, completed=done)


def _now_and_then(screen: Console, total: int) -> Callable[[int], None]:
    """A line for a file or a pipe every half minute, so that slow can be told from stuck."""
    said = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_PER_LINE and done < total:
            said = time.monotonic()
            screen.print(f"{done} of {total}", soft_wrap=True)

    return tell
