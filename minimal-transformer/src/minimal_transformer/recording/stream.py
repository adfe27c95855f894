"""A streamed answer (server-sent events) becomes the body that the unary answer would have had.

Bytes in, fields out; nothing here waits or knows a socket. What cannot be read as an event of an
OpenAI answer is kept as bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from minimal_transformer.recording.tokens import TokenClock, token_counts

# How a stream ended: the predictor ended it, with its last event or without; the predictor died or
# fell silent; the caller left; the server stopped.
End = Literal["done", "no_done", "cut", "left", "stopped"]

# What a stream may keep without asking, and the steps in which it asks for more.
GRANT_BYTES = 16 * 1024
# Of all streams of a pod beyond that: a thousand long answers stay below a pod's limit.
BUDGET_BYTES = 96 * 1024 * 1024
# What a key, a choice or a tool call takes besides its text.
_OVERHEAD_BYTES = 128
# Choices, and tool calls of one; a stream that numbers them higher is kept as bytes.
_MAX_INDEX = 127
# Objects in a delta: `tool_calls[].function` is two deep.
_MAX_DEPTH = 6

# Two ends of line, each of the three kinds. A CR is one of its own only without an LF behind it.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
# Longer than the longest blank line by one: where a search goes on when more has come.
_BLANK_LINE_BYTES = 4
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DONE = b"[DONE]"
# Of a text that comes in pieces, the pieces are joined; these come whole, by some engines with
# each piece.
_WHOLE = frozenset({"id", "name", "role", "type"})
# As large as the text twenty times over.
_OMITTED = "logprobs"
_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class Budget:
    """Bytes that the streams of a process share; not safe for threads."""

    def __init__(self, total: int) -> None:
        self._left = total

    def take(self, wanted: int) -> bool:
        """Whether there were so many left, and they are the taker's now."""
        if wanted > self._left:
            return False
        self._left -= wanted
        return True

    def give_back(self, taken: int) -> None:
        """Return what take() granted."""
        self._left += taken


class Streamed(NamedTuple):
    """What is recorded of a streamed answer.

    `data` is the body that the unary answer would have had, `raw` the bytes that are kept besides:
    the events that were not read, or all. `size` is what the caller was sent.
    """

    data: bytes | None
    raw: bytes | None
    size: int
    truncated: bool
    error: str | None  # an engine's own, sent as an event
    ttft_ms: float | None  # to its first output
    figures: dict[str, Any]  # for the column `generation`
    read: int  # events
    unread: int
    starved: bool  # cut because the process' streams had used up their budget


@dataclass(slots=True)
class _Choice:
    """One answer of several: its deltas, merged, and the parts of the choice itself."""

    is_chat: bool
    message: dict[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None


class Assembly:
    """Reads a stream as it passes and keeps no more of it than `max_bytes` and the budget allow."""

    def __init__(
        self,
        budget: Budget,
        max_bytes: int,
        tokens: TokenClock,
        *,
        keeps_raw: bool = False,
        is_read: bool = True,
    ) -> None:
        self._budget = budget
        self._max_bytes = max_bytes
        self.tokens = tokens
        self._keeps_raw = keeps_raw or not is_read
        self._is_read = is_read
        self._kept = 0
        self._granted = min(GRANT_BYTES, max_bytes)
        self._taken = 0
        # The unfinished event; from `_searched` on it may hold its end.
        self._carry = bytearray()
        self._searched = 0
        self._has_returns = False
        self._skips = False  # the rest of an event that is too long to be kept
        self._raw = bytearray()
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: dict[str, Any] | None = None
        self._response: bytes | None = None  # the Responses API has its whole answer in one event
        self._error: str | None = None
        self._omits = False
        self._size = 0
        self._read = self._unread = 0
        self._starved = False
        self.truncated = False
        self.is_done = False  # the stream has said that nothing follows

    def feed(self, chunk: bytes) -> None:
        """Take the stream's next bytes; events may be cut anywhere."""
        self._size += len(chunk)
        if self._keeps_raw:
            self._keep_raw(chunk)
        if not self._is_read:
            return
        self._has_returns = self._has_returns or b"\r" in chunk
        self._carry += chunk
        start = 0
        while (blank := self._blank_line(max(start, self._searched))) is not None:
            self._event(bytes(self._carry[start : blank[1]]), blank[0] - start)
            start = self._searched = blank[1]
        if start:
            del self._carry[:start]
        self._searched = max(0, len(self._carry) - _BLANK_LINE_BYTES)
        self._bound_carry()

    def _blank_line(self, start: int) -> tuple[int, int] | None:
        """Where the next one begins and ends; without carriage returns, in a tenth of the time."""
        if not self._has_returns:
            at = self._carry.find(b"\n\n", start)
            return None if at < 0 else (at, at + 2)
        blank = _BLANK_LINE.search(self._carry, start)
        return None if blank is None else blank.span()

    def finish(self, end: End) -> Streamed:
        """What is recorded; the budget gets back what was taken. Call it once, at the end."""
        if self._carry and not self._skips:
            rest = bytes(self._carry)
            if rest.strip():
                self._event(rest, len(rest))
        try:
            data = self._response or self._assembled()
            raw = bytes(self._raw) or None
            if raw is not None and data is not None and b"\\u0000" in data:
                data, raw = None, raw if self._keeps_raw else data  # no jsonb has it
            return Streamed(
                data=data,
                raw=raw,
                size=self._size,
                truncated=self.truncated,
                error=self._error,
                ttft_ms=self.tokens.ttft_ms,
                figures=self._figures(end),
                read=self._read,
                unread=self._unread,
                starved=self._starved,
            )
        finally:
            self._budget.give_back(self._taken)
            self._taken = 0

    def _figures(self, end: End) -> dict[str, Any]:
        figures: dict[str, Any] = {"stream_end": end}
        if self._is_read:
            figures["chunks"] = self.tokens.chunks
        figures |= token_counts(self._usage)
        if self._omits:
            figures["omitted"] = [_OMITTED]
        return figures

    # -- events

    def _event(self, event: bytes, length: int) -> None:
        """Read one event, of which the blank line begins at `length`."""
        if self._skips:
            self._skips = False
            self._keep_raw_unless_whole(event)
            return
        if len(event) > GRANT_BYTES and self._kept + len(event) > self._max_bytes:
            # As when its end had come later.
            self._unread += 1
            self._keep_raw_unless_whole(event)
            return
        lines = [event[:length]]
        if self._has_returns or b"\n" in lines[0]:
            lines = [line for line in _LINE_END.split(lines[0]) if line]
        data = b"\n".join(
            [
                line[6:] if line.startswith(b"data: ") else line[5:]
                for line in lines
                if line.startswith(b"data:")
            ]
        )
        if not data and all(_is_field(line) for line in lines):
            return  # a comment that keeps the connection open
        if data == _DONE:
            self.is_done = True
        elif data and self._take_in(data):
            self._read += 1
        else:
            self._unread += 1
            self._keep_raw_unless_whole(event)

    def _take_in(self, data: bytes) -> bool:
        """Merge an event's object into the answer; False for one of a shape that is not known."""
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        if not isinstance(found, dict):
            return False
        kind = found.get("type")
        if isinstance(kind, str) and kind.startswith("response."):
            return self._take_in_response(kind, found, data)
        choices = found.get("choices")
        if choices is None and (error := _error_in(found)) is not None:
            self._error = error_of(error)
            return True
        if not isinstance(choices, list) or not all(map(_is_choice, choices)):
            return False
        if not self._head:
            self._take_in_head(found)
        if isinstance(usage := found.get("usage"), dict) and len(data) <= GRANT_BYTES:
            self._usage = usage
        has_output = [self._take_in_choice(choice) for choice in choices]
        if any(has_output):
            self.tokens.count_output()
        return True

    def _take_in_head(self, found: dict[str, Any]) -> None:
        """What all events repeat, from the first one."""
        for name in _HEAD:
            value = found.get(name)
            if isinstance(value, str | int) and self._room(len(str(value)) + _OVERHEAD_BYTES):
                self._head[name] = value

    def _take_in_choice(self, found: dict[str, Any]) -> bool:
        """Whether a choice's piece has output."""
        index = found.get("index", 0)
        choice = self._choices.get(index)
        if choice is None:
            if not self._room(_OVERHEAD_BYTES):
                return False
            choice = self._choices[index] = _Choice("delta" in found)
        if isinstance(reason := found.get("finish_reason"), str):
            choice.finish_reason = reason[:_OVERHEAD_BYTES]
        self._omits |= found.get(_OMITTED) is not None
        delta = found.get("delta") if choice.is_chat else {"text": found.get("text")}
        if not isinstance(delta, dict):
            return False
        if len(delta) > 1 or not self._append(choice.message, delta):
            self._merge(choice.message, delta, 0)
        return _has_output(delta)

    def _append(self, into: dict[str, Any], delta: dict[str, Any]) -> bool:
        """Whether the delta was one more piece of a text, as nearly all are, and is in it now."""
        for name, piece in delta.items():
            known = into.get(name)
            if type(piece) is str and type(known) is bytearray and name not in _WHOLE:
                text = piece.encode()
                if self._room(len(text)):
                    known += text
                return True
        return False

    def _merge(self, into: dict[str, Any], delta: dict[str, Any], depth: int) -> None:
        for name, value in delta.items():
            known = into.get(name)
            if name == _OMITTED:
                self._omits |= value is not None
            elif name not in into and not self._room(len(name) + _OVERHEAD_BYTES):
                continue
            elif isinstance(value, str):
                self._merge_text(into, name, value)
            elif isinstance(value, dict) and depth < _MAX_DEPTH:
                inner = into[name] = known if isinstance(known, dict) else {}
                self._merge(inner, value, depth + 1)
            elif isinstance(value, list) and depth < _MAX_DEPTH:
                inner = into[name] = known if isinstance(known, dict) else {_LIST: True}
                self._merge_list(inner, value, depth + 1)
            elif value is not None or name not in into:
                into[name] = value if isinstance(value, bool | int | float) else None

    def _merge_text(self, into: dict[str, Any], name: str, piece: str) -> None:
        text = piece.encode()
        known = into.get(name)
        if name in _WHOLE or not isinstance(known, bytearray):
            if name in _WHOLE and known and (known == text or not text):
                return
            known = into[name] = bytearray()
        if self._room(len(text)):
            known += text

    def _merge_list(self, into: dict[Any, Any], items: list[Any], depth: int) -> None:
        """Items that are numbered are merged by their number, others added."""
        for item in items:
            if isinstance(item, dict) and isinstance(index := item.get("index"), int):
                if index not in into:
                    if not 0 <= index <= _MAX_INDEX or not self._room(_OVERHEAD_BYTES):
                        self.truncated = True
                        continue
                    into[index] = {}
                self._merge(into[index], _without_index(item), depth)
            elif self._room(len(dumped := orjson.dumps(item))):
                into[len(into) + _MAX_INDEX] = orjson.Fragment(dumped)

    def _take_in_response(self, kind: str, found: dict[str, Any], data: bytes) -> bool:
        """An event of the Responses API; the last one has the whole answer."""
        if kind in _RESPONSE_ENDS and isinstance(response := found.get("response"), dict):
            self.is_done = True
            if isinstance(usage := response.get("usage"), dict):
                self._usage = usage
            if isinstance(error := response.get("error"), dict):
                self._error = error_of(error)
            if not self._keeps_raw and not self._unread:  # its pieces are in the whole
                self._kept -= len(self._raw)
                self._raw.clear()
                self.truncated = False
            dumped = orjson.dumps(response)
            if self._room(len(dumped)):
                self._response = dumped
        elif self._response is None and not self._keeps_raw:
            self._keep_raw(b"data: " + data + b"\n\n")
        if kind.endswith(".delta") and found.get("delta"):
            self.tokens.count_output()
        return True

    # -- what is kept

    def _room(self, wanted: int) -> bool:
        """Whether so many more bytes may be kept; they count from here on."""
        needed = self._kept + wanted
        if needed > self._max_bytes:
            self.truncated = True
            return False
        while needed > self._granted:
            if not self._budget.take(GRANT_BYTES):
                self.truncated = self._starved = True
                return False
            self._taken += GRANT_BYTES
            self._granted += GRANT_BYTES
        self._kept = needed
        return True

    def _keep_raw(self, text: bytes) -> None:
        """Keep the beginning of the bytes, as far as there is room for them."""
        left = self._max_bytes - self._kept
        if len(text) > left:
            self.truncated = True
            text = text[:left]
        if text and self._room(len(text)):
            self._raw += text

    def _keep_raw_unless_whole(self, event: bytes) -> None:
        if not self._keeps_raw:
            self._keep_raw(event)

    def _bound_carry(self) -> None:
        """Give up an unfinished event for which there is no room; its bytes are kept as such."""
        size = len(self._carry)
        if size <= GRANT_BYTES and not self._skips:
            return
        if not self._skips and self._room(size):
            self._kept -= size  # it is not kept yet: there only has to be room for it
            return
        if not self._skips:
            self._unread += 1
            self._skips = True
        left = len(self._carry) - _BLANK_LINE_BYTES
        self._keep_raw_unless_whole(bytes(self._carry[:left]))
        del self._carry[:left]
        self._searched = 0

    # -- the body

    def _assembled(self) -> bytes | None:
        """The answer as it would have come in one piece; None when nothing of it was read."""
        if not self._choices and not self._head:
            return None
        head = {name: self._head[name] for name in _HEAD if name in self._head}
        if head.get("object") == "chat.completion.chunk":
            head["object"] = "chat.completion"
        choices = []
        for index, choice in sorted(self._choices.items()):
            body = _plain(choice.message)
            parts = {"message": body} if choice.is_chat else body
            choices.append({"index": index, **parts, "finish_reason": choice.finish_reason})
        whole = {**head, "choices": choices}
        if self._usage is not None:
            whole["usage"] = self._usage
        return orjson.dumps(whole)


def error_of(error: object) -> str:
    """The text of an `error` member: OpenAI's has a message in it."""
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        error = error["message"]
    return error if isinstance(error, str) else orjson.dumps(error).decode()


# Marks a merged list: a dict by number, which becomes a list at the end.
_LIST: Any = None


def _plain(merged: Any) -> Any:
    """Merged deltas as JSON can write them."""
    if isinstance(merged, bytearray):
        return merged.decode()
    if not isinstance(merged, dict):
        return merged
    if _LIST in merged:
        items = sorted((key, value) for key, value in merged.items() if key is not _LIST)
        return [_plain(value) for _, value in items]
    return {name: _plain(value) for name, value in merged.items()}


def _error_in(found: dict[str, Any]) -> object:
    """What an event that is an error says; None when it is another one."""
    return found if found.get("object") == "error" else found.get("error")


def _without_index(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "index"}


def _is_choice(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    index = found.get("index", 0)
    return type(index) is int and 0 <= index <= _MAX_INDEX and ("delta" in found or "text" in found)


def _has_output(delta: dict[str, Any]) -> bool:
    """Whether a piece says anything: a role alone, or an empty text, is not a first token."""
    for name, value in delta.items():  # noqa: SIM110  a generator would take twice the time
        if value and name != "role":
            return True
    return False


def _is_field(line: bytes) -> bool:
    """Whether a line is a comment or a field that says nothing by itself."""
    return line.startswith((b":", b"event:", b"id:", b"retry:"))
