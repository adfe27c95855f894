"""When calls are due: arithmetic on a given clock, no waiting."""

from datetime import UTC, datetime, timedelta

import pytest

from shadow_report import SettingWrong
from shadow_report.replay.candidate import Pace, parse_rate

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def test_no_rate_never_waits() -> None:
    """Without a rate every call is due at once."""
    pace = Pace(None, original_timing=False)
    assert [pace.wait(START, now) for now in (0.0, 0.1, 5.0)] == [0.0, 0.0, 0.0]


def test_rate_is_a_ceiling_without_bursts() -> None:
    """Calls are 1/rate apart; time that a slow candidate cost is not made up."""
    pace = Pace(10.0, original_timing=False)
    assert pace.wait(START, 100.0) == 0.0
    assert pace.wait(START, 100.0) == pytest.approx(0.1)
    assert pace.wait(START, 103.0) == 0.0
    assert pace.wait(START, 103.0) == pytest.approx(0.1)


def test_original_timing_keeps_the_distances() -> None:
    """Each call comes as long after the first as it once did."""
    pace = Pace(None, original_timing=True)
    times = [START, START + timedelta(seconds=2), START + timedelta(seconds=2.5)]
    assert [pace.wait(time, 50.0) for time in times] == [0.0, 2.0, 2.5]


def test_original_timing_under_a_ceiling() -> None:
    """With both, a burst of the past is spread to the rate."""
    pace = Pace(1.0, original_timing=True)
    assert [pace.wait(START, 50.0) for _ in range(3)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "rate"), [("50", 50), ("50/s", 50), ("600/m", 10), ("7200/h", 2), (" 2.5 /S", 2.5)]
)
def test_rates(text: str, rate: float) -> None:
    """Per second unless it says otherwise."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0/s", "-1/s", "fast", "5/d", "nan", "1e3"])
def test_no_rates(text: str) -> None:
    """Anything else is a usage error that shows the right form."""
    with pytest.raises(SettingWrong, match="50/s"):
        parse_rate(text)
