"""What a path names is replaced, and nothing else changes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimal_transformer.paths import compile_path
from minimal_transformer.recording.redaction import MAX_BYTES, REDACTED, Redaction


def redacted(body: str, *paths: str) -> str:
    clean = Redaction(map(compile_path, paths)).clean(body.encode())
    assert clean is not None
    return clean.decode()


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
        ("a[-1]", '{"a": [1, 2]}', '{"a":[1,"#"]}'),
        ("a[::2]", '{"a": [1, 2, 3]}', '{"a":["#",2,"#"]}'),
        ("$..['a','b']", '[{"a": 1}, {"b": 2, "c": 3}]', '[{"a":"#"},{"b":"#","c":3}]'),
        ("[?@.kind == 'x'].id", '[{"kind": "x", "id": 1}]', '[{"kind":"x","id":"#"}]'),
        ("é", '{"é": 1}', '{"é":"#"}'),
        ("secret", '{"\\u0073ecret": 1}', '{"secret":"#"}'),
    ],
)
def test_paths(path: str, body: str, result: str) -> None:
    """The forms of the README."""
    assert redacted(body, path) == result.replace("#", REDACTED)


@pytest.mark.parametrize(
    "body",
    [
        '":{"',
        '"{\\"a\\":{\\"b\\":1}}"',
        '{"b":  1.50}',
        "[]",
        "null",
        '{"a": {"c": 1}}',
        "3",
        # A colon within a string is not a key's.
        '{"at": "12:30:00", "n": 123456789012345678901234567890, "s": "\\"a\\": \\\\"}',
        '{"x": ["a", ":"], "b\\":": 1e300}',
    ],
)
def test_body_without_a_match_is_unchanged(body: str) -> None:
    """Byte for byte."""
    assert redacted(body, "$.a.b", "x[3]", "[?@.a].b") == body


def test_earlier_value_of_a_repeated_key_goes() -> None:
    """The parser sees the last one; the text had both."""
    assert redacted('{"a": {"b": "SECRET"}, "a": {}}', "a.b") == '{"a":{}}'


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", 2000 * b"[" + 2000 * b"]"])
def test_what_cannot_be_searched(body: bytes) -> None:
    """Is refused, so that it is not stored."""
    assert Redaction([compile_path("$..a")]).clean(body) is None


@pytest.mark.parametrize("path", ["$..a", "$..[?@.a].a"])
@pytest.mark.parametrize("depth", [260, 600, 1000])
def test_what_is_nested_too_deep(path: str, depth: int) -> None:
    """Found but not to be written, or not to be searched: nothing is stored, nothing raised."""
    body = b'{"x":' * depth + b'{"a":"SECRET"}' + b"}" * depth
    assert Redaction([compile_path(path)]).clean(body) is None


@pytest.mark.parametrize("path", ["$..password", "$..*", "$.a", "$..[?@.x].y"])
@pytest.mark.parametrize("body", [b"[%b]" % b",".join([b"[]"] * 3_000_000), b"7" * 5_000_000])
def test_what_is_too_large_is_not_parsed(path: str, body: bytes) -> None:
    """Past the limit nothing is read of a body: parsed, 20 MB of [] take 680 MiB."""
    assert Redaction([compile_path(path)]).clean(body) is None


def test_search_ends_at_its_deadline() -> None:
    """Nothing of a body that was not searched in time is given out; the deadline may be over."""
    paths = Redaction([compile_path("$..password")])
    body = b'{"password": 1, "x": [%b]}' % b",".join([b"[]"] * 300_000)
    assert len(body) < MAX_BYTES
    assert paths.clean(body, time.monotonic() + 1e-4) is None
    assert paths.clean(body, time.monotonic() - 1) is None
    assert paths.clean(body) is not None


def test_filter_sees_what_another_path_names() -> None:
    """Every path is searched in the body as it came."""
    body = '[{"kind":"x","id":1}]'
    assert redacted(body, "[*].kind", "[?@.kind == 'x'].id") == (
        f'[{{"kind":"{REDACTED}","id":"{REDACTED}"}}]'
    )


NESTED = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.text(),
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


@given(
    document=NESTED,
    path=st.sampled_from(
        [
            "a",
            "..a",
            "*",
            "..*",
            "a.b",
            "..a..b",
            "[0]",
            "..[-1]",
            "..[::2]",
            "a[*].b",
            "..['a','b']",
        ]
    ),
)
def test_the_library_names_the_same_values(document: Any, path: str) -> None:
    """The compiled search finds what python-jsonpath finds, for every kind of step."""
    compiled = compile_path(path)
    expected = json.loads(json.dumps(document))
    # python-jsonpath 2.2 takes a text for JSON to parse, or for an array of its characters.
    for match in [] if isinstance(expected, str) else list(compiled.finditer(expected)):
        assert match.parent is not None
        if isinstance(match.parent.obj, str):
            continue
        match.parent.obj[match.parts[-1]] = REDACTED
    assert json.loads(redacted(json.dumps(document), path)) == expected
