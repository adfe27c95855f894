"""Figures and foreign text as they are shown."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_reports import side

from shadow_report.output.page import marked
from shadow_report.output.plots import scale
from shadow_report.wording import (
    NOT_RECORDED,
    about,
    around,
    cut,
    number,
    one_line,
    percent,
    signed,
    span,
    visible,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.5, "50 %"),
        (0.0288, "2.88 %"),
        (0.9984, "99.84 %"),
        (0.99997, "99.997 %"),
        (0.00048, "0.048 %"),
        (1e-7, "0.00001 %"),
        (None, "–"),  # noqa: RUF001
        (math.nan, "–"),  # noqa: RUF001
    ],
)
def test_percent(share: float | None, text: str) -> None:
    """Two or three telling digits."""
    assert percent(share) == text


@given(st.floats(1e-6, 1 - 1e-6))
def test_a_share_between_never_reads_as_none_or_all(share: float) -> None:
    """0 % and 100 % are kept for exactly that."""
    assert percent(share) not in ("0 %", "100 %", "-0 %")


def test_numbers() -> None:
    """Four telling digits, thousands separated, the sign of a difference always there."""
    assert [number(v) for v in (0.00012345, 3.14159, 12345.6, -2.0)] == [
        "0.0001234",
        "3.142",
        "12,346",
        "-2",
    ]
    assert [signed(v) for v in (1.5, -1.5, 0.0, None)] == ["+1.5", "-1.5", "0", "–"]  # noqa: RUF001
    assert [span(h) for h in (0.0, 30.0, 0.51, 24 * 8.0)] == [
        "0 s",
        "1 d 6 h",
        "30 min 36 s",
        "8 d",
    ]


def test_figures_known_within_one_per_cent() -> None:
    """No more digits than that."""
    values = (0.0040268, 8.922, 12345.6, 0.0, None)
    assert [about(v) for v in values] == ["0.00403", "8.92", "12,300", "0", "–"]  # noqa: RUF001


@given(st.text(alphabet=st.characters(), max_size=200))
def test_visible_text_holds_nothing_that_acts(text: str) -> None:
    """What goes out can be encoded and holds no control but line feed and tab."""
    shown = visible(text)
    shown.encode()
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert "\n" not in one_line(text)


@given(st.text(max_size=80), st.integers(1, 40))
def test_cut_keeps_the_limit(text: str, limit: int) -> None:
    """Never longer than asked, and whole when it fits."""
    assert len(cut(text, limit)) <= limit
    assert len(text) > limit or cut(text, limit) == text


@given(st.text(max_size=300), st.text(max_size=80), st.text(max_size=80), st.integers(8, 100))
def test_a_long_text_is_cut_around_its_difference(
    same: str, one: str, other: str, limit: int
) -> None:
    """Both are within the limit, and differ where the whole ones do."""
    first, second = around(same + one, same + other, limit)
    assert max(len(first), len(second)) <= limit
    assert (first == second) == (one == other)


@given(st.text(max_size=80), st.text(max_size=80))
def test_marking_differences_loses_no_text(primary: str, shadow: str) -> None:
    """The parts joined are the bodies; equal bodies have no mark."""
    first, second = marked(primary, shadow)
    assert "".join(part for part, _ in first) == primary
    assert "".join(part for part, _ in second) == shadow
    assert any(differs for _, differs in first + second) == (primary != shadow)


def test_marks_the_token_that_differs() -> None:
    """A number is marked whole, its neighbours are not."""
    first, second = marked('{"a": [6.6, 1]}', '{"a": [9.9, 1]}')
    assert [part for part, differs in first if differs] == ["6.6"]
    assert [part for part, differs in second if differs] == ["9.9"]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9))
def test_every_value_has_a_place_on_its_axis(values: list[float]) -> None:
    """An axis holds all its values, also when they are all the same, and has round ticks within."""
    axis = scale(values, 0, 100)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert 1 <= len(axis.ticks()) <= 11
    assert all(
        axis.low - 1e-6 * abs(axis.low) <= tick <= axis.high + 1e-6 * abs(axis.high)
        for tick in axis.ticks()
    )


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ({"first": 10}, "double, version first"),
        ({NOT_RECORDED: 10}, "double"),
        ({"first": 9, "next": 1}, "double"),
        ({"first": 9, NOT_RECORDED: 1}, "double"),
        ({}, "double"),
    ],
)
def test_a_side_names_its_only_version(versions: dict[str, int], text: str) -> None:
    """Nothing extra where no version was recorded, or several were."""
    assert replace(side("primary", "double"), model_versions=versions).title == text
