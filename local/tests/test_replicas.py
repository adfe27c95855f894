"""Several pods of each component, as an autoscaler would make them: every call is counted once."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from calls import post_at_once
from runs import Start
from stored import wait_for_pairs
from test_grpc import ENTRY, infer
from waiting import until

from shadow_local.stack import Options, Stack
from shadow_local.translate.document import Untranslated, topology

CALLS = 300
GRPC_CALLS = 40  # below the limit of open copies


@pytest.mark.parametrize("name", ["standard", "knative"])
def test_two_pods_of_each_side_count_exactly(tmp_path: Path, name: str) -> None:
    """Each call is one pair, whichever pods took it; each pod records its share without a gap."""
    stack = Stack(Options(tmp_path, topology(name), replicas=2))
    try:
        state = stack.start()
        for side in (state.primary, state.shadow):
            assert side is not None
            (second,) = side.more
            assert second.transformer_url != side.transformer_url
            assert second.spool_dir != side.spool_dir
        answers = post_at_once(state.predict_url, CALLS)
        assert {body for _, _, body in answers} == {b'{"predictions":[6.6,124.6,648.0]}'}
        wait_for_pairs(stack, [headers["x-shadow-pair-id"] for _, headers, _ in answers])
        for _ in range(GRPC_CALLS):
            assert infer(state.gateway_url, ENTRY) == [6.6, 124.6, 648.0]
        complete = "SELECT count(*) FROM inference_responses"
        with psycopg.connect(state.postgres_uri, autocommit=True) as connection:
            expected = (2 * (CALLS + GRPC_CALLS),)
            until(lambda: connection.execute(complete).fetchone() == expected)
            recorders = connection.execute(
                """SELECT role, count(*), max(sequence) FROM inference_requests
                GROUP BY role, recorder_id ORDER BY role"""
            ).fetchall()
            assert connection.execute("SELECT * FROM inference_gaps").fetchall() == []
        assert [role for role, _, _ in recorders] == ["primary", "primary", "shadow", "shadow"]
        assert all(0 < count == sequence for _, count, sequence in recorders)
        for role in ("primary", "shadow"):
            assert sum(n for r, n, _ in recorders if r == role) == CALLS + GRPC_CALLS
    finally:
        stack.stop()


def test_more_pods_than_the_manifests_allow_are_refused(tmp_path: Path) -> None:
    """`maxReplicas` holds here too."""
    with pytest.raises(Untranslated, match="maxReplicas"):
        Stack(Options(tmp_path, topology("standard"), replicas=4))


def test_a_number_of_pods_is_a_number(start: Start) -> None:
    """Anything else is told in one line."""
    run = start("up", REPLICAS="two")
    assert run.ends() == 1
    assert "REPLICAS is 'two'; set it to a whole number" in run.output.read_text()
