"""The margins and their defaults."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from shadow_report.judging.questions import Margins


def test_defaults_are_those_of_the_contract() -> None:
    """Coverage 99 %, new faults 0.1 %, disagreement 1 %, slow 1 %, alpha 0.05, no duration."""
    margins = Margins()
    assert margins.min_coverage == 0.99
    assert margins.max_faults == 0.001
    assert margins.max_disagreement == 0.01
    assert margins.max_slow == 0.01
    assert margins.alpha == 0.05
    assert margins.min_duration == timedelta(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_coverage", 99),
        ("max_faults", -0.1),
        ("max_disagreement", math.nan),
        ("max_slow", math.inf),
        ("alpha", 0),
        ("alpha", 1),
        ("min_duration", timedelta(hours=-1)),
    ],
)
def test_senseless_margin_is_refused_by_name(name: str, value: object) -> None:
    """A percentage given as 99 stops here, with the name and the value."""
    with pytest.raises(ValueError, match=f"{name} is .*; set it"):
        Margins(**{name: value})  # type: ignore[arg-type]
