"""The option second-shadow on this machine: two candidates get every call and are judged."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from calls import post
from rich.console import Console
from test_grpc import DOUBLED, infer
from tree import TOPOLOGIES, Tree
from waiting import until

from shadow_local.demo import demonstrate
from shadow_local.report import comparison
from shadow_local.stack import Options, Stack

FIRST, SECOND = "triple-minimal-inference", "quadruple-minimal-inference"
CALLS = 20
ANSWERS = """
SELECT pair_id, inference_service, response_data FROM inference_requests
JOIN inference_responses USING (record_id, request_time, pair_id) WHERE protocol = 'v1'
"""


@pytest.fixture(scope="module", params=TOPOLOGIES)
def two_shadows(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Stack]:
    """A topology with the option on."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    tree.choose_topology(request.param)
    tree.switch_on(f"second-shadow/{request.param}")
    stack = Stack(Options(tmp_path_factory.mktemp("two"), tree.folder))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def test_both_get_every_call_under_one_pair_id(two_shadows: Stack) -> None:
    """REST and gRPC: three rows to a call, each with its own model's answer; the caller gets the
    primary's.
    """
    state = two_shadows.state
    assert state is not None
    sent = {}
    for number in range(1, CALLS + 1):
        body = json.dumps({"values": [number]}).encode()
        status, headers, answer = post(state.predict_url, body)
        assert (status, json.loads(answer)) == (200, {"predictions": [2.0 * number]})
        sent[headers.get("x-shadow-pair-id", number)] = number
    assert infer(state.gateway_url, {"x-serving-path": state.serving_path or ""}) == DOUBLED
    with psycopg.connect(two_shadows.database.uri, autocommit=True) as connection:

        def count(protocol: str) -> int:
            query = "SELECT count(*) FROM inference_requests WHERE protocol = %s"
            found = connection.execute(query, [protocol]).fetchone()
            return int(found[0]) if found else 0

        until(lambda: count("v1") >= 3 * CALLS and count("grpc") >= 3, 120)
        rows = connection.execute(ANSWERS).fetchall()
    answers = {(pair, service): answer["predictions"] for pair, service, answer in rows}
    assert len(answers) == len(rows) == 3 * CALLS
    pairs = {pair for pair, _ in answers}
    assert len(pairs) == CALLS
    if two_shadows.mirror_percentage and not state.follower:
        assert pairs == set(sent)
    for pair in pairs:
        (value,) = answers[pair, "double-minimal-inference"]
        assert answers[pair, FIRST] == [value * 1.5]
        assert answers[pair, SECOND] == [value * 2]


def test_the_report_judges_both(two_shadows: Stack, tmp_path: Path) -> None:
    """What `make report` runs names the candidates, and each has pairs of its own."""
    assert two_shadows.candidates == (FIRST, SECOND)
    state = two_shadows.state
    assert state is not None
    assert state.candidates == (FIRST, SECOND)
    assert len(state.more_shadows) == 1
    assert len(state.more_followers) == (1 if state.follower else 0)
    file = tmp_path / "report.json"
    uri = two_shadows.database.of_role("report")
    more = ["--json", str(file), "--settle", "0s"]
    words, env = comparison(uri, two_shadows.mirror_percentage, more, state.candidates)
    code = subprocess.run(words, env=env, check=False, capture_output=True).returncode
    report = json.loads(file.read_text())
    services = [each["shadow"]["service"] for each in report["candidates"]]
    assert services == [FIRST, SECOND]
    assert [each["pairs"] for each in report["candidates"]] == [CALLS + 1] * 2
    # A few pairs of which all differ: more of them would reject.
    assert {each["verdict"] for each in report["candidates"]} <= {"WAIT", "REJECT"}
    assert code in (10, 11)


def test_the_demonstration_shows_both(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each candidate's own answers next to the primary's, and one report on the two of them."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on("second-shadow/standard")
    demonstrate(Options(tmp_path / "run", tree.folder), 12, Console(width=100))
    shown = capfd.readouterr().out
    assert re.search(r"6\.6 124\.6 648 +9\.9 186\.9 972", shown)
    assert re.search(r"6\.6 124\.6 648 +13\.2 249\.2 1296", shown)
    assert shown.count("12 of 12 calls paired; in 12 of them the answers differ.") == 3
    assert shown.count("12 of 12 calls paired; in 0 of them the answers differ.") == 1
    assert shown.count("alpha 0.05 is shared among the 2 candidates.") == 2
