"""Paths into answers and requests: `predictions[*]`, `outputs.score.data[*]`, `values[0]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import orjson

# A step is an object's key, or a position in a list; None stands for every position.
Step = str | int | None

_STEP = re.compile(
    r"""\.?(?:
        (?P<key>[^.\[\]]+)
      | \[(?P<every>\*)\]
      | \[(?P<index>\d+)\]
      | \["(?P<quoted>[^"]*)"\]
    )""",
    re.VERBOSE,
)
_PLAIN_KEY = re.compile(r"[^.\[\]]+")


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path; keys with dots or brackets are written `["a.b"]`.

    Raises ValueError with the path and what a path looks like.
    """
    steps: list[Step] = []
    at = 2 if text.startswith("$.") else 1 if text.startswith("$") else 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            break
        if match["every"]:
            steps.append(None)
        elif match["index"]:
            steps.append(int(match["index"]))
        else:
            steps.append(match["key"] or match["quoted"] or "")
        at = match.end()
    if not steps or at < len(text):
        raise ValueError(
            f"'{text}' is not a path; write it like predictions[*] or outputs.score.data[*]."
        )
    return tuple(steps)


def join(path: str, step: Step) -> str:
    """The path one step further, written so that `parse_path` reads it back."""
    if step is None:
        return f"{path}[*]"
    if isinstance(step, int):
        return f"{path}[{step}]"
    if not _PLAIN_KEY.fullmatch(step):
        return f'{path}["{step}"]'
    return f"{path}.{step}" if path else step


def pick(value: object, steps: tuple[Step, ...]) -> object:
    """The value at a path, of `[*]` the first; None when there is none."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and not isinstance(step, str):
            index = step or 0
            value = value[index] if index < len(value) else None
        else:
            return None
    return value


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two numbers agree when |p - s| <= absolute + relative * max(|p|, |s|)."""

    absolute: float = 1e-9
    relative: float = 1e-6


@dataclass(frozen=True, slots=True)
class Rules:
    """How answers are compared: the tolerance, exceptions by path, and paths to leave out."""

    tolerance: Tolerance = field(default_factory=Tolerance)
    by_path: dict[str, Tolerance] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    def tolerance_at(self, path: str, above: Tolerance) -> Tolerance:
        """The tolerance at a path; `above` is the one of the path that it stands in."""
        return self.by_path.get(path, above)


NO_VALUE = "(none)"
MAX_VALUE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class RequestField:
    """Something that a request says about itself: a JSON path of its body, or `header:NAME`."""

    name: str
    header: str | None
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, text: str) -> RequestField:
        """From the command line; ValueError when it is neither a header nor a path."""
        if text.startswith("header:"):
            if not (header := text.removeprefix("header:").strip().lower()):
                raise ValueError(f"'{text}' names no header; write it like header:x-country.")
            return cls(text, header, ())
        return cls(text, None, parse_path(text))

    def read(self, body: object, headers: object) -> str:
        """The field's value as text, cut when it is long."""
        if self.header is None:
            value = pick(body, self.steps)
        elif isinstance(headers, dict):
            value = next((v for k, v in headers.items() if k.lower() == self.header), None)
        else:
            value = None
        if value is None:
            return NO_VALUE
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return text[:MAX_VALUE_LENGTH]


def request_parts(body: bytes | None, headers: bytes | None) -> tuple[object, object]:
    """The request's body and headers as values; None where they are not JSON."""
    parts: list[object] = []
    for text in (body, headers):
        try:
            parts.append(orjson.loads(text) if text else None)
        except orjson.JSONDecodeError:
            parts.append(None)
    return parts[0], parts[1]
