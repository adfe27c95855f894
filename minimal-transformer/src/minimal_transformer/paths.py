"""The one path language: RFC 9535 JSONPath, whose leading `$` may be left out."""

from __future__ import annotations

from jsonpath import JSONPath, JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonpath.selectors import Filter, SliceSelector


class _Environment(JSONPathEnvironment):
    # Deeper bodies are not stored as JSON either; a filter's search of one raises.
    max_recursion_depth = 500


_ENVIRONMENT = _Environment(strict=True)


def compile_path(text: str) -> JSONPath:
    """The path that `text` spells; ValueError with a remedy when it is not one.

    `user.ssn`, `$.user.ssn` and `$['user']['ssn']` are the same path, and `str()` of it is the
    last spelling. A path that can never name a value is refused, as is `$`, which names them all.
    """
    text = text.strip()
    # Only the `$` is left out before a dot or a bracket, `$.` before a name or a wildcard.
    start = "" if text.startswith("$") else "$" if text.startswith((".", "[")) else "$."
    try:
        path = _ENVIRONMENT.compile(start + text)
    except (JSONPathError, ValueError):
        path = None
    if not isinstance(path, JSONPath):
        raise ValueError(f"{text!r} is not a JSON path; write it like $.user.email or rows[*].id")
    if not path.segments:
        raise ValueError(f"{text!r} names the whole body; write it like $.user.email or rows[*].id")
    if any(_is_void(selector) for segment in path.segments for selector in segment.selectors):
        raise ValueError(f"{text!r} can never name a value; correct its slice or filter")
    return path


def split_paths(text: str) -> tuple[str, ...]:
    """The paths in a comma-separated list; a comma between brackets or quotes separates nothing."""
    parts = [""]
    depth, quote, is_escaped = 0, "", False
    for character in text:
        if quote:
            quote = "" if character == quote and not is_escaped else quote
            is_escaped = character == "\\" and not is_escaped
        elif depth and character in "'\"":
            quote = character
        else:
            depth += (character in "[(") - (character in ")]")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts)


def _is_void(selector: object) -> bool:
    if isinstance(selector, Filter):
        # Neither the value nor the body is looked at: it holds for all values or for none.
        return not {"@", "$"} & set(str(selector))
    if not isinstance(selector, SliceSelector):
        return False
    step = 1 if selector.slice.step is None else selector.slice.step
    start, stop = selector.slice.start, selector.slice.stop
    if start is None:
        start = 0 if step > 0 else -1
    if step == 0 or stop is None:
        return bool(step == 0)
    # Counted from the same end, they can be compared without knowing the length.
    return (start < 0) == (stop < 0) and (start >= stop if step > 0 else start <= stop)
