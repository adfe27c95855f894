"""What may be concluded from a report that is some seconds old."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sample_reports import promoted

from shadow_report.live.standing import Standing


@pytest.mark.parametrize("now", [9.9996, 10.0004, 10.0005, 10.0006, 10.001])
def test_a_verdict_is_too_old_as_it_is_shown(now: float) -> None:
    """At the limit, too: nobody reads WAIT beside an age that the limit allows, nor a verdict
    beside one that it does not.
    """
    concluded = Standing("shadow", promoted(), seen_at=0.0).conclude(now, timedelta(seconds=10))
    for shown in (json.loads(concluded.gate()), json.loads(concluded.document())):
        assert (shown["verdict"] == "WAIT") is (shown["age_seconds"] > 10)
