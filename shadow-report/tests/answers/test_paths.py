"""Paths read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow_report.answers.paths import join, parse_path, pick


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("predictions[*]", ("predictions", None)),
        ("outputs.score.data[*]", ("outputs", "score", "data", None)),
        ("values[0]", ("values", 0)),
        ("$.a.b", ("a", "b")),
        ('a["b.c"][2]', ("a", "b.c", 2)),
        ("[*][*].x", (None, None, "x")),
    ],
)
def test_paths_are_parsed(text: str, steps: tuple[object, ...]) -> None:
    assert parse_path(text) == steps


@pytest.mark.parametrize("text", ["", "$", ".", "a..b", "a[", "a[x]", "a]b", "a."])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        parse_path(text)


steps = st.lists(
    st.none() | st.integers(0, 99) | st.text("ab.[]*0 ", min_size=1, max_size=4), min_size=1
)


@given(steps)
def test_a_written_path_is_read_back(taken: list[str | int | None]) -> None:
    """What the report shows can be given to --ignore and --tolerance."""
    path = ""
    for step in taken:
        path = join(path, step)
    assert list(parse_path(path)) == taken


def test_picking_a_value() -> None:
    document = {"meta": {"country": "de"}, "rows": [{"id": 7}, {"id": 8}]}
    assert pick(document, parse_path("meta.country")) == "de"
    assert pick(document, parse_path("rows[1].id")) == 8
    assert pick(document, parse_path("rows[*].id")) == 7
    assert pick(document, parse_path("rows[9].id")) is None
    assert pick(document, parse_path("meta.country.x")) is None
