"""The option second-shadow on this machine: two candidates get every call and are judged."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from calls import post
from gateways import Gateways, transformers_of
from rich.console import Console
from test_grpc import DOUBLED, infer
from tree import Tree
from waiting import until

from shadow_local.demo import SHOWN_PAIRS, demonstrate
from shadow_local.report import comparison
from shadow_local.stack import Options, Stack

FIRST, SECOND = "triple-minimal-inference", "quadruple-minimal-inference"
CALLS = 20
COUNT = "SELECT count(*) FROM inference_requests WHERE protocol = %s AND request_time >= %s"
ANSWERED = "SELECT count(*) FROM inference_responses WHERE request_time >= %s"
ANSWERS = """
SELECT pair_id, inference_service, response_data FROM inference_requests
JOIN inference_responses USING (record_id, request_time, pair_id)
WHERE protocol = 'v1' AND request_time >= %s
"""


def with_option(topology: str, folder: Path) -> Tree:
    """A topology with the option on."""
    tree = Tree(folder)
    tree.choose_topology(topology)
    tree.switch_on(f"second-shadow/{topology}")
    return tree


@pytest.fixture(scope="module")
def knative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The topology with Knative, with two shadows."""
    folder = tmp_path_factory.mktemp("knative")
    stack = Stack(Options(folder / "stack", with_option("knative", folder / "tree").folder))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(params=["knative", "follow"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each of the two; `standard` differs from `knative` in its gateway alone."""
    running: Stack = request.getfixturevalue(request.param)
    return running


def test_both_get_every_call_under_one_pair_id(stack: Stack) -> None:
    """By the deployment's own gateway."""
    state = stack.state
    assert state is not None
    path = state.serving_path or ""
    check_both_get_every_call(stack, state.predict_url, state.gateway_url, path)


def test_the_standard_gateway_copies_to_both(
    knative: Stack, gateways: Gateways, tmp_path: Path
) -> None:
    """Its mirrors lead straight to the transformers."""
    manifests = with_option("standard", tmp_path / "tree").objects()
    gateway = gateways.start_before(transformers_of(knative), manifests)
    path = gateway.serving_path or ""
    check_both_get_every_call(knative, gateway.predict_url, gateway.url, path)


def check_both_get_every_call(
    stack: Stack, predict_url: str, gateway_url: str, serving_path: str
) -> None:
    """REST and gRPC: three rows to a call, each with its own model's answer; the caller gets the
    primary's.
    """
    assert stack.state is not None
    began = datetime.now(UTC)
    sent = {}
    for number in range(1, CALLS + 1):
        body = json.dumps({"values": [number]}).encode()
        status, headers, answer = post(predict_url, body)
        assert (status, json.loads(answer)) == (200, {"predictions": [2.0 * number]})
        sent[headers.get("x-shadow-pair-id", number)] = number
    assert infer(gateway_url, {"x-serving-path": serving_path}) == DOUBLED
    with psycopg.connect(stack.database.uri, autocommit=True) as connection:

        def count(protocol: str) -> int:
            found = connection.execute(COUNT, [protocol, began]).fetchone()
            return int(found[0]) if found else 0

        until(lambda: count("v1") >= 3 * CALLS and count("grpc") >= 3)
        # A call's answer may be written after its request.
        until(lambda: connection.execute(ANSWERED, [began]).fetchone() == (3 * CALLS + 3,))
        rows = connection.execute(ANSWERS, [began]).fetchall()
    answers = {(pair, service): answer["predictions"] for pair, service, answer in rows}
    assert len(answers) == len(rows) == 3 * CALLS
    pairs = {pair for pair, _ in answers}
    assert len(pairs) == CALLS
    if not stack.state.follower:
        assert pairs == set(sent)
    for pair in pairs:
        (value,) = answers[pair, "double-minimal-inference"]
        assert answers[pair, FIRST] == [value * 1.5]
        assert answers[pair, SECOND] == [value * 2]


def test_the_report_judges_both(stack: Stack, tmp_path: Path) -> None:
    """What `make report` runs names the candidates, and each has pairs of its own."""
    assert stack.candidates == (FIRST, SECOND)
    state = stack.state
    assert state is not None
    assert state.candidates == (FIRST, SECOND)
    assert len(state.more_shadows) == 1
    assert len(state.more_followers) == (1 if state.follower else 0)
    began = datetime.now(UTC)
    for _ in range(CALLS):
        assert post(state.predict_url)[0] == 200
    with psycopg.connect(stack.database.uri, autocommit=True) as connection:
        until(lambda: connection.execute(ANSWERED, [began]).fetchone() == (3 * CALLS,))
    file = tmp_path / "report.json"
    uri = stack.database.of_role("report")
    more = ["--json", str(file), "--settle", "0s", "--since", began.isoformat()]
    words, env = comparison(uri, stack.mirror_percentage, more, state.candidates)
    code = subprocess.run(words, env=env, check=False, capture_output=True).returncode
    report = json.loads(file.read_text())
    services = [each["shadow"]["service"] for each in report["candidates"]]
    assert services == [FIRST, SECOND]
    assert [each["pairs"] for each in report["candidates"]] == [CALLS] * 2
    # A few pairs of which all differ: more of them would reject.
    assert {each["verdict"] for each in report["candidates"]} <= {"WAIT", "REJECT"}
    assert code in (10, 11)


def test_the_demonstration_shows_both(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each candidate's own answers next to the primary's, and one report on the two of them."""
    tree = with_option("standard", tmp_path / "tree")
    # Calls reach the primary in any order; so few are all shown, the README's one among them.
    demonstrate(Options(tmp_path / "run", tree.folder), SHOWN_PAIRS, Console(width=100))
    shown = capfd.readouterr().out
    assert re.search(r"6\.6 124\.6 648 +9\.9 186\.9 972", shown)
    assert re.search(r"6\.6 124\.6 648 +13\.2 249\.2 1296", shown)
    all_paired = f"{SHOWN_PAIRS} of {SHOWN_PAIRS} calls paired; in {{}} of them the answers differ."
    assert shown.count(all_paired.format(SHOWN_PAIRS)) == 3
    assert shown.count(all_paired.format(0)) == 1
    assert shown.count("alpha 0.05 is shared among the 2 candidates.") == 2
