"""Calls through a gateway, a few at once: a demonstration's, or those of a file."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
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
SECONDS_PER_CALL = 60
SHOWN_CHARACTERS = 100
# A predict URL is an entry and a path below it.
PREDICT_URL = re.compile(
    r"(https?://.+?)/((?:openai/)?v[12]/"
    r"(?:models|chat|completions|embeddings|rerank|responses)\b.*)"
)
# What a line may say beside its body; a line with other members is a body itself.
LINE_MEMBERS = {"path", "headers", "body", "base64", "binary"}
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


async def send(
    calls: Iterable[Call],
    api_key: str | None,
    answered: Callable[[Answer], None],
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
                answered(await _answer(session, call))

        callers = asyncio.gather(*(call_in_turn() for _ in range(CALLERS)))
        try:
            while not callers.done():
                check()
                await asyncio.wait([callers], timeout=0.2)
            callers.result()
        finally:
            callers.cancel()  # a call that outlived the session would leave a trace
            with suppress(asyncio.CancelledError):
                await callers


async def _answer(session: aiohttp.ClientSession, call: Call) -> Answer:
    try:
        async with session.post(call.url, data=call.body, headers=call.headers) as response:
            pair_id = response.headers.get("x-shadow-pair-id", "")
            return Answer(pair_id, call, response.status, await response.text(errors="replace"))
    except (aiohttp.ClientError, TimeoutError) as error:
        return Answer("", call, 0, f"{type(error).__name__}: {error}")


def send_file(
    file: Path, predict_url: str, times: int, api_key: str | None, screen: Console
) -> bool:
    """Send a file's requests, so many times over; show how they were answered.

    True when every one was answered with a status below 400; Explained for a line that is not a
    request, before anything is sent.
    """
    calls = read_calls(file, predict_url)
    counts: dict[int, int] = {}
    first: dict[int, Answer] = {}
    total = len(calls) * times
    with counted(screen, "sending calls through the gateway", total) as done:

        def answered(answer: Answer) -> None:
            first.setdefault(answer.status, answer)
            counts[answer.status] = counts.get(answer.status, 0) + 1
            done(sum(counts.values()))

        asyncio.run(send(chain.from_iterable(repeat(calls, times)), api_key, answered))
    for status, count in sorted(counts.items()):
        answer = first[status]
        text = " ".join(answer.body.split())
        text = text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
        label = status or "no answer"
        screen.print(
            f"{count:6} x {label}, such as line {answer.call.line}: {text}", soft_wrap=True
        )
    return all(0 < status < 400 for status in counts)


def read_calls(file: Path, predict_url: str) -> list[Call]:
    """The requests of a file with one JSON object a line; empty lines are passed over.

    A line is a body, or says more: `{"path": ..., "headers": {...}, "body": ...}`, with `base64` in
    place of `body` for bytes, and with `"binary": true` for a v2 body whose tensors go as bytes.
    Without a path the body's own form decides, else it is that of `predict_url`.
    """
    if not file.is_file():
        given = "not set" if file == Path() else f"'{file}'"  # make passes on what is unset as ""
        raise Explained(f"FILE is {given}; name a file with one request a line (local/README.md).")
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
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(step, total=total)
        yield lambda done: bar.update(task, completed=done)
