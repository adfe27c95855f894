"""Values that never leave the process: named by JSON path, replaced before the spool sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

REDACTED = "[redacted]"

# $.user.email   instances[*].ssn   predictions[0]['date of birth']   $..password
_STEP = re.compile(
    r"(?P<deep>\.\.)?(?:\.?(?P<name>[^.\[\]'\"$*\s]+)|\.?(?P<any>\*)"
    r"|\[(?:(?P<index>\d+)|(?P<each>\*)|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\")\])"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path: a key, an index or all (None); `deep` looks at all depths below."""

    key: str | int | None
    deep: bool = False


JsonPath = tuple[Step, ...]


class Unparseable(ValueError):
    """The body is no JSON that can be searched, so it must not be stored."""


def parse_path(text: str) -> JsonPath:
    """The steps of a path of names, ['names'], [indexes], [*], .* and ..name, or ValueError."""
    rest = text.removeprefix("$")
    if rest and rest is text and not rest.startswith("["):
        rest = "." + rest
    steps = []
    position = 0
    while position < len(rest):
        match = _STEP.match(rest, position)
        if match is None or ((match["name"] or match["any"]) and rest[position] != "."):
            raise ValueError(
                f"{text!r} is not a JSON path; write it like $.user.email or rows[*].id"
            )
        steps.append(_step(match))
        position = match.end()
    if not steps:
        raise ValueError(f"{text!r} names no value; write it like $.user.email or rows[*].id")
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    deep = match["deep"] is not None
    if match["index"] is not None:
        return Step(int(match["index"]), deep)
    for group in ("name", "single", "double"):
        if match[group] is not None:
            return Step(match[group], deep)
    return Step(None, deep)


def redact(body: bytes, paths: tuple[JsonPath, ...]) -> bytes:
    """The body with every value that a path names replaced by "[redacted]"; Unparseable if no JSON.

    A body in which no path names anything comes back as it is. Any other is written anew: the order
    of keys stays, spaces and repeated keys go, integers past 64 bits become floats.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unparseable(str(error)) from None
    try:
        replaced = [_replace(document, path) for path in paths]
    except RecursionError:
        raise Unparseable("nested too deep to be searched") from None
    # A repeated key hides its earlier values from the parsed document.
    if not any(replaced) and not _repeats_a_key(body, document):
        return body
    return orjson.dumps(document)


def _replace(node: Any, path: JsonPath) -> bool:
    """Replace what `path` names below `node`; False when it names nothing there."""
    step, rest = path[0], path[1:]
    replaced = False
    for place in _places(node, step):
        if not rest:
            place[0][place[1]] = REDACTED
            replaced = True
        elif _replace(place[0][place[1]], rest):
            replaced = True
    if step.deep:
        children = (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        )
        for child in list(children):
            replaced = _replace(child, path) or replaced
    return replaced


def _places(node: Any, step: Step) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict):
        if step.key is None:
            yield from ((node, key) for key in list(node))
        elif step.key in node:
            yield node, step.key
    elif isinstance(node, list):
        if step.key is None:
            yield from ((node, index) for index in range(len(node)))
        elif isinstance(step.key, int) and step.key < len(node):
            yield node, step.key


def _repeats_a_key(body: bytes, document: Any) -> bool:
    """Whether the text may hold more keys than the document: it has more colons."""
    keys = 0
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            keys += len(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(child for child in node if isinstance(child, (dict, list)))
    return body.count(b":") > keys
