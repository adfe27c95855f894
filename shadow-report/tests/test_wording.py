"""Numbers as a person reads them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shadow_report.wording import counted, duration, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.01, "1 %"),
        (0.001, "0.1 %"),
        (0.000812345, "0.0812 %"),
        (0.02613, "2.61 %"),
        (0.99931234, "99.9312 %"),
        (0.99, "99 %"),
        (-0.0756, "-7.56 %"),
        (1e-15, "0 %"),
        (0.0000000002, "0.00000002 %"),
    ],
)
def test_percent_keeps_the_digits_that_matter(share: float, text: str) -> None:
    """Near 0 and near 100 % alike, without an exponent."""
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (119, "119 s"),
        (120, "2 min"),
        (121, "3 min"),
        (7_200, "2 h"),
        (86_400, "24 h"),
        (172_801, "3 days"),
    ],
)
def test_duration_picks_the_unit_that_fits(seconds: float, text: str) -> None:
    """Rounded up: a wait is never shorter than announced."""
    assert duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 pairs"), (1, "1 pair"), (2992, "2,992 pairs")])
def test_counted_knows_the_singular(number: int, text: str) -> None:
    assert counted(number, "pair") == text
