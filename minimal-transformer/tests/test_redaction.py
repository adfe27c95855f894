"""What a path names is replaced, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimal_transformer.redaction import REDACTED, Unparseable, parse_path, redact


def redacted(body: str, *paths: str) -> str:
    return redact(body.encode(), tuple(parse_path(path) for path in paths)).decode()


@pytest.mark.parametrize(
    ("path", "body", "result"),
    [
        ("$.a", '{"a": 1, "b": 2}', '{"a":"#","b":2}'),
        ("a.b", '{"a": {"b": [1], "c": 2}}', '{"a":{"b":"#","c":2}}'),
        ("$.a[*].b", '{"a": [{"b": 1}, {"b": 2}, 3]}', '{"a":[{"b":"#"},{"b":"#"},3]}'),
        ("a[1]", '{"a": [1, 2, 3]}', '{"a":[1,"#",3]}'),
        ("$[0]", "[1, 2]", '["#",2]'),
        ("$[*].x", '[{"x": 1}]', '[{"x":"#"}]'),
        ("$.*", '{"a": 1, "b": {}}', '{"a":"#","b":"#"}'),
        ("$..ssn", '{"ssn": 1, "a": [{"ssn": {"ssn": 2}}]}', '{"ssn":"#","a":[{"ssn":"#"}]}'),
        ("$.a..b", '{"b": 0, "a": {"x": {"b": 1}}}', '{"b":0,"a":{"x":{"b":"#"}}}'),
        ("$['a b']['c.d']", '{"a b": {"c.d": 1}}', '{"a b":{"c.d":"#"}}'),
        ('$["a"]', '{"a": null}', '{"a":"#"}'),
    ],
)
def test_paths(path: str, body: str, result: str) -> None:
    """The forms of the README."""
    assert redacted(body, path) == result.replace("#", REDACTED)


@pytest.mark.parametrize("body", ['{"b":  1.50}', "[]", "null", '{"a": {"c": 1}}', "3"])
def test_body_without_a_match_is_unchanged(body: str) -> None:
    """Byte for byte."""
    assert redacted(body, "$.a.b", "x[3]") == body


def test_earlier_value_of_a_repeated_key_goes() -> None:
    """The parser sees the last one; the text had both."""
    assert redacted('{"a": {"b": "SECRET"}, "a": {}}', "a.b") == '{"a":{}}'


@pytest.mark.parametrize(
    "text", ["", "$", "a b", "a[", "a[x]", "[", "a]b", "$a", "..", "a.", "'a'"]
)
def test_what_is_no_path(text: str) -> None:
    """Refused at start, with an example."""
    with pytest.raises(ValueError, match="write it like"):
        parse_path(text)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", 2000 * b"[" + 2000 * b"]"])
def test_what_cannot_be_searched(body: bytes) -> None:
    """Is refused, so that it is not stored."""
    with pytest.raises(Unparseable):
        redact(body, (parse_path("$..a"),))


NESTED = st.recursive(
    st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=10,
)


@given(document=NESTED)
def test_no_value_below_a_named_key_stays(document: object) -> None:
    """Whatever the nesting."""

    def values(node: object) -> list[object]:
        if isinstance(node, dict):
            inner = [value for child in node.values() for value in values(child)]
            return inner + ([node["a"]] if "a" in node else [])
        return [v for child in node for v in values(child)] if isinstance(node, list) else []

    found = values(json.loads(redacted(json.dumps(document), "$..a")))
    assert all(value == REDACTED for value in found)
