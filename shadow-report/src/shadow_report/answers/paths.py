"""Paths into answers and requests: `predictions[*]`, `outputs.score.data[*]`, `values[0]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

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
