"""Values that never leave the process: named by a path, replaced before the spool sees them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from jsonpath import JSONPath
from jsonpath.exceptions import JSONPathRecursionError
from jsonpath.segments import JSONPathRecursiveDescentSegment
from jsonpath.selectors import Filter, IndexSelector, NameSelector, SliceSelector, WildcardSelector

REDACTED = "[redacted]"

# Beyond them nothing of a body is stored. Parsed, a body takes up to thirty times its size; a
# filter is evaluated by the library, which no deadline interrupts.
MAX_BYTES = 1024 * 1024
MAX_FILTERED_BYTES = 64 * 1024
_NODES_PER_LOOK = 4096


class TooSlow(Exception):
    """The search of a body did not end by its deadline."""


# Not JSON, nested too deep to be written (orjson) or searched (a filter), or too slow.
_NOT_SEARCHABLE = (
    TooSlow,
    orjson.JSONDecodeError,
    orjson.JSONEncodeError,
    JSONPathRecursionError,
    RecursionError,
)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# Where values stand: each place is an object or array, and a key or index in it.
_Places = list[tuple[Any, Any]]


class Redaction:
    """What RECORD_REDACT names, compiled once; false when it names nothing."""

    def __init__(self, paths: Iterable[JSONPath]) -> None:
        paths = tuple(paths)
        self._paths = [(_compiled(path), _names(path)) for path in paths]
        self._max_bytes = MAX_FILTERED_BYTES if any(map(_filters, paths)) else MAX_BYTES
        # The error column holds what a body of {"error": ...} says.
        self.hides_errors = any(find({"error": ""}, math.inf) for find, _ in self._paths)

    def __bool__(self) -> bool:
        return bool(self._paths)

    def clean(self, body: bytes, deadline: float = math.inf) -> bytes | None:
        """The body with every named value replaced by "[redacted]".

        None when it is not JSON that can be searched by `deadline` (of time.monotonic()), so that
        nothing of it may be stored. A body in which no path names anything comes back as it is. Any
        other is written anew: the order of keys stays, spaces and repeated keys go, integers past
        64 bits become floats.
        """
        if len(body) > self._max_bytes or time.monotonic() > deadline:
            return None
        try:
            document = orjson.loads(body)
            # Only these have values that can be named; the library would parse a text as JSON.
            if type(document) not in (dict, list):
                return body
            # A name stands in the bytes as it is, unless an escape spells it.
            is_plain = b"\\" not in body
            searches = [
                find
                for find, names in self._paths
                if not is_plain or all(name in body for name in names)
            ]
            if not searches:
                return body
            # All are found before one is replaced: a filter may ask for what another path names.
            places = [place for find in searches for place in find(document, deadline)]
            for container, key in places:
                container[key] = REDACTED
            # A repeated key hides its earlier values from the parsed document.
            if not places and not _repeats_a_key(body, document, deadline):
                return body
            return orjson.dumps(document)
        except _NOT_SEARCHABLE:
            return None


def _filters(path: JSONPath) -> bool:
    return any(isinstance(selector, Filter) for s in path.segments for selector in s.selectors)


def _compiled(path: JSONPath) -> Callable[[Any, float], _Places]:
    """What finds the path's values in a document: a tenth of the library's time.

    Its matches keep their path and their parents. Only filters, which need them, are left to it;
    it also takes a text for an array of characters.
    """
    if _filters(path):
        return lambda document, _: [
            (match.parent.obj, match.parts[-1])
            for match in path.finditer(document)
            if match.parent is not None and type(match.parent.obj) in (dict, list)
        ]
    steps = [
        (
            isinstance(segment, JSONPathRecursiveDescentSegment),
            [_keys_of(selector) for selector in segment.selectors],
        )
        for segment in path.segments
    ]

    def find(document: Any, deadline: float) -> _Places:
        nodes, places = [document], []
        for is_deep, selectors in steps:
            places = [
                (node, key)
                for node in (_descendants(nodes, deadline) if is_deep else nodes)
                for keys_of in selectors
                for key in keys_of(node)
            ]
            nodes = [node[key] for node, key in places]
        return places

    return find


def _keys_of(selector: object) -> Callable[[Any], Iterable[Any]]:
    """The keys or indexes that a selector chooses in a node."""
    match selector:
        case NameSelector(name=name):
            return lambda node: (name,) if type(node) is dict and name in node else ()
        case IndexSelector(index=index):
            return lambda node: (
                (index,) if type(node) is list and -len(node) <= index < len(node) else ()
            )
        case SliceSelector(slice=chosen):
            return lambda node: range(len(node))[chosen] if type(node) is list else ()
        case WildcardSelector():
            return lambda node: (
                list(node) if type(node) is dict else range(len(node)) if type(node) is list else ()
            )
    raise TypeError(f"a path has no {type(selector).__name__} by RFC 9535")


def _descendants(nodes: list[Any], deadline: float) -> list[Any]:
    """The objects and arrays among the nodes and below, each once: `$..*..*` stays linear.

    TooSlow past the deadline.
    """
    found: list[Any] = []
    seen: set[int] = set()
    stack = [node for node in nodes if type(node) in (dict, list)]
    is_one = len(stack) == 1
    while stack:
        if not len(found) % _NODES_PER_LOOK and time.monotonic() > deadline:
            raise TooSlow
        node = stack.pop()
        if not is_one:
            if id(node) in seen:
                continue
            seen.add(id(node))
        found.append(node)
        children = node.values() if type(node) is dict else node
        stack.extend([child for child in children if type(child) in (dict, list)])
    return found


def _names(path: JSONPath) -> list[bytes]:
    """The keys without which a body has nothing that the path names, as JSON writes them."""
    return [
        orjson.dumps(segment.selectors[0].name)
        for segment in path.segments
        if len(segment.selectors) == 1 and isinstance(segment.selectors[0], NameSelector)
    ]


def _repeats_a_key(body: bytes, document: Any, deadline: float) -> bool:
    """Whether the text holds more keys than the document: more colons outside of its strings."""
    keys = sum(len(node) for node in _descendants([document], deadline) if type(node) is dict)
    return body.count(b":") > keys and _STRING.sub(b"", body).count(b":") > keys
