"""Every spelling of a path is the same path, and a path that names nothing is refused."""

from __future__ import annotations

import pytest

from minimal_transformer.paths import compile_path, split_paths


@pytest.mark.parametrize(
    ("spellings", "path"),
    [
        (("secret", ".secret", "$.secret", "['secret']", '$["secret"]', " secret "), "$['secret']"),
        (("user.ssn", "$.user['ssn']", "['user'].ssn"), "$['user']['ssn']"),
        (('["request_id"]', "request_id"), "$['request_id']"),
        (("predictions[0].score", "$['predictions'][0].score"), "$['predictions'][0]['score']"),
        (("..password", "$..password", "$..['password']"), "$..['password']"),
        (("*.x", "$[*].x", "[*]['x']"), "$[*]['x']"),
        (("a['b.c']", '$.a["b.c"]'), "$['a']['b.c']"),
        (("$['\\u0061']", "a"), "$['a']"),
        (("rows[-1]",), "$['rows'][-1]"),
        (("rows[?@.kind == 'x'].id",), "$['rows'][?@['kind'] == 'x']['id']"),
    ],
)
def test_every_spelling_is_the_same_path(spellings: tuple[str, ...], path: str) -> None:
    """The leading `$` may be left out; str() of a path is its one normal form."""
    assert {str(compile_path(spelling)) for spelling in spellings} == {path}


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a[", "a[x]", "[", "a]b", "$a", "..", "a.", "'a'", "$.a | $.b", "$.~a"],
)
def test_what_is_not_a_path(text: str) -> None:
    """Refused at start, with an example; nothing beyond RFC 9535 is a path."""
    with pytest.raises(ValueError, match=r"is not a JSON path; write it like \$\.user\.email"):
        compile_path(text)


def test_the_root_is_not_a_value_of_its_own() -> None:
    """Who wants to store nothing of a body has RECORD_MAX_BODY_BYTES."""
    with pytest.raises(ValueError, match="names the whole body; write it like"):
        compile_path("$")


@pytest.mark.parametrize(
    "text",
    ["a[2:1]", "[::0]", "[:0]", "[-1:-3]", "[:-1:-1]", "a[0, 3:3].b", "a[?1 == 2]", "..b[1:1]"],
)
def test_what_can_never_match(text: str) -> None:
    """Refused at start: it redacts nothing, whatever its author meant."""
    with pytest.raises(ValueError, match="can never name a value; correct its slice or filter"):
        compile_path(text)


@pytest.mark.parametrize("text", ["[1:]", "[-3:-1]", "[3:-1]", "[::-1]", "[-1:0:-1]", "[-2:5]"])
def test_what_matches_some_length(text: str) -> None:
    """A slice is refused only when no array has what it names."""
    path = compile_path(text)
    assert any(path.findall(list(range(length))) for length in range(10))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("$.a, b[*].c", ("$.a", "b[*].c")),
        ("['a,b'],c['x', 'y'],d", ("['a,b']", "c['x', 'y']", "d")),
        ("a[?@.b == '],' || @.c],d", ("a[?@.b == '],' || @.c]", "d")),
        ("['it\\'s, so'],d", ("['it\\'s, so']", "d")),
        ("a,,b", ("a", "", "b")),
    ],
)
def test_commas_inside_a_path_separate_nothing(text: str, paths: tuple[str, ...]) -> None:
    """A list of paths is split between them only."""
    assert split_paths(text) == paths
