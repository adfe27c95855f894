"""The one way to say that a caller made a mistake, and how values look in that message."""

import json
from collections.abc import Sequence

# Longer values are cut: messages go to callers, and into the transformer's records.
MAX_SHOWN = 40


class BadInput(ValueError):
    """The caller's mistake: the message names the field, the position and the value."""


def show(value: object) -> str:
    """The value as JSON would write it, in one line and cut to a readable length."""
    if isinstance(value, str):
        return json.dumps(value[:MAX_SHOWN]) + ("…" if len(value) > MAX_SHOWN else "")
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return "an object"
    return _cut(json.dumps(value, default=repr))


def show_shape(shape: Sequence[int]) -> str:
    """A shape in one short line, however long the caller made it."""
    return _cut(str(list(shape[:MAX_SHOWN])))


def _cut(text: str) -> str:
    return text[:MAX_SHOWN] + "…" if len(text) > MAX_SHOWN else text
