"""How many trials settle a question."""

from __future__ import annotations

import pytest

from shadow_report.statistics.sequences import TRIALS_LIMIT, trials_until


@pytest.mark.parametrize("answer", [1, 2, 700, 8_062, 123_456_789, TRIALS_LIMIT])
@pytest.mark.parametrize("start", [0, 1, 500])
def test_finds_the_first_settled_number(answer: int, start: int) -> None:
    """To the trial, from any start."""
    assert trials_until(lambda n: n >= answer, start) == max(answer, start, 1)


def test_never_settled_is_none() -> None:
    """It gives up past a billion instead of searching on."""
    assert trials_until(lambda _: False, 10) is None
