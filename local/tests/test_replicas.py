"""Several pods of each component, as an autoscaler would make them: every call is counted once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from calls import post_at_once
from gateways import Gateways, rendered, transformers_of
from runs import SCRIPTED, Start
from stored import wait_for_pairs
from test_grpc import DOUBLED, ENTRY, infer
from tree import MIRRORED
from waiting import until

from shadow_local.stack import Options, Stack
from shadow_local.translate.document import Untranslated, topology

CALLS = 300
GRPC_CALLS = 40  # below the limit of open copies
TRIPLED = [9.9, 186.9, 972.0]


def dictated(primary: object, shadow: object) -> dict[str, str]:
    """What has the predictors of examples/scripted answer so, as one model each would."""
    bodies = {"answer": primary, "shadow_answer": shadow}
    return {name: json.dumps({"body": json.dumps(body)}) for name, body in bodies.items()}


def outputs(values: list[float]) -> dict[str, object]:
    """An answer with one tensor."""
    tensor = {"name": "output-0", "datatype": "FP64", "shape": [len(values)], "data": values}
    return {"model_name": "model", "outputs": [tensor]}


BODY = json.dumps(dictated({"predictions": DOUBLED}, {"predictions": TRIPLED})).encode()
PARAMETERS = dictated(outputs(DOUBLED), outputs(TRIPLED))
COMPLETE = "SELECT count(*) FROM inference_responses WHERE request_time >= %s"
RECORDERS = """
SELECT role, count(*) FILTER (WHERE request_time >= %s), count(*), max(sequence)
FROM inference_requests GROUP BY role, recorder_id ORDER BY role
"""


@pytest.fixture(scope="module")
def two_pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A deployment with two pods of each component; the requests dictate what its models answer."""
    stack = Stack(Options(tmp_path_factory.mktemp("two-pods"), SCRIPTED, replicas=2))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def test_each_pod_has_its_own_address_and_spool(two_pods: Stack) -> None:
    """What one pod holds, no other one writes."""
    assert two_pods.state is not None
    for side in (two_pods.state.primary, two_pods.state.shadow):
        assert side is not None
        (second,) = side.more
        assert second.transformer_url != side.transformer_url
        assert second.spool_dir != side.spool_dir


@pytest.mark.parametrize("name", MIRRORED)
def test_two_pods_of_each_side_count_exactly(
    two_pods: Stack, gateways: Gateways, name: str
) -> None:
    """Each call is one pair, whichever pods took it; each pod records its share without a gap."""
    gateway = gateways.start_before(transformers_of(two_pods), rendered(name))
    began = datetime.now(UTC)
    answers = post_at_once(gateway.predict_url, CALLS, BODY)
    assert {body for _, _, body in answers} == {b'{"predictions": [6.6, 124.6, 648.0]}'}
    wait_for_pairs(two_pods, [headers["x-shadow-pair-id"] for _, headers, _ in answers])
    for _ in range(GRPC_CALLS):
        assert infer(gateway.url, ENTRY, parameters=PARAMETERS) == DOUBLED
    expected = (2 * (CALLS + GRPC_CALLS),)
    with psycopg.connect(two_pods.database.uri, autocommit=True) as connection:
        until(lambda: connection.execute(COMPLETE, [began]).fetchone() == expected)
        recorders = connection.execute(RECORDERS, [began]).fetchall()
        assert connection.execute("SELECT * FROM inference_gaps").fetchall() == []
    assert [role for role, *_ in recorders] == ["primary", "primary", "shadow", "shadow"]
    assert all(share > 0 and count == sequence for _, share, count, sequence in recorders)
    for role in ("primary", "shadow"):
        shares = [share for recorded_by, share, _, _ in recorders if recorded_by == role]
        assert sum(shares) == CALLS + GRPC_CALLS


def test_more_pods_than_the_manifests_allow_are_refused(tmp_path: Path) -> None:
    """`maxReplicas` holds here too."""
    with pytest.raises(Untranslated, match="maxReplicas"):
        Stack(Options(tmp_path, topology("standard"), replicas=4))


def test_a_number_of_pods_is_a_number(start: Start) -> None:
    """Anything else is told in one line."""
    run = start("up", REPLICAS="two")
    assert run.ends() == 1
    assert "REPLICAS is 'two'; set it to a whole number" in run.output.read_text()
