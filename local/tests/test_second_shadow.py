"""The option second-shadow on this machine: two candidates get every call and are judged."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest
from calls import post
from gateways import Gateways, Running, transformers_of
from rich.console import Console
from test_grpc import DOUBLED, infer
from tree import MIRRORED, TOPOLOGIES, Tree
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


@pytest.fixture
def gateway(topology: str, follow: Stack, gateways: Gateways, tmp_path: Path) -> Iterator[Running]:
    """The topology's gateway before the same servers; where it mirrors, the followers rest."""
    manifests = with_option(topology, tmp_path / "tree").objects()
    running = gateways.start_before(transformers_of(follow), manifests)
    resting = [] if topology == "follow" else followers()
    for process in resting:
        process.suspend()
    try:
        yield running
    finally:
        # What the gateway has brought to a shadow is recorded by now: they leave it alone.
        for process in resting:
            process.resume()


def followers() -> list[psutil.Process]:
    """Both of them, as they run now: another test may have had to start one again."""
    children = psutil.Process().children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    found = [child for child in alive if "follow" in child.cmdline()[:4]]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_both_get_every_call_under_one_pair_id(
    follow: Stack, gateway: Running, topology: str
) -> None:
    """REST and gRPC: three rows to a call, each with its own model's answer; the caller gets the
    primary's.
    """
    began = datetime.now(UTC)
    sent = {}
    for number in range(1, CALLS + 1):
        body = json.dumps({"values": [number]}).encode()
        status, headers, answer = post(gateway.predict_url, body)
        assert (status, json.loads(answer)) == (200, {"predictions": [2.0 * number]})
        sent[headers.get("x-shadow-pair-id", number)] = number
    assert infer(gateway.url, {"x-serving-path": gateway.serving_path or ""}) == DOUBLED
    with psycopg.connect(follow.database.uri, autocommit=True) as connection:

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
    if topology in MIRRORED:
        assert pairs == set(sent)
    for pair in pairs:
        (value,) = answers[pair, "double-minimal-inference"]
        assert answers[pair, FIRST] == [value * 1.5]
        assert answers[pair, SECOND] == [value * 2]


@pytest.mark.parametrize("topology", ["follow", "knative"])
def test_the_report_judges_both(follow: Stack, gateway: Running, tmp_path: Path) -> None:
    """What `make report` runs names the candidates, and each has pairs of its own."""
    assert follow.candidates == (FIRST, SECOND)
    state = follow.state
    assert state is not None
    assert state.candidates == (FIRST, SECOND)
    assert len(state.more_shadows) == len(state.more_followers) == 1
    began = datetime.now(UTC)
    for _ in range(CALLS):
        assert post(gateway.predict_url)[0] == 200
    with psycopg.connect(follow.database.uri, autocommit=True) as connection:
        until(lambda: connection.execute(ANSWERED, [began]).fetchone() == (3 * CALLS,))
    file = tmp_path / "report.json"
    uri = follow.database.of_role("report")
    more = ["--json", str(file), "--settle", "0s", "--since", began.isoformat()]
    words, env = comparison(uri, follow.mirror_percentage, more, state.candidates)
    code = subprocess.run(words, env=env, check=False, capture_output=True).returncode
    report = json.loads(file.read_text())
    services = [each["shadow"]["service"] for each in report["candidates"]]
    assert services == [FIRST, SECOND]
    assert [each["pairs"] for each in report["candidates"]] == [CALLS] * 2
    # A few pairs of which all differ: more of them would reject.
    assert {each["verdict"] for each in report["candidates"]} <= {"WAIT", "REJECT"}
    assert code in (10, 11)


def test_the_demonstration_shows_both(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each candidate's own answers next to the primary's, and one report on the two of them; each
    follower brings its shadow each call once, also to the one in a replaced shadow's place.
    """
    tree = with_option("follow", tmp_path / "tree")
    # Calls reach the primary in any order; so few are all shown, the README's one among them.
    demonstrate(Options(tmp_path / "run", tree.folder), SHOWN_PAIRS, Console(width=100))
    shown = capfd.readouterr().out
    assert re.search(r"6\.6 124\.6 648 +9\.9 186\.9 972", shown)
    assert re.search(r"6\.6 124\.6 648 +13\.2 249\.2 1296", shown)
    all_paired = f"{SHOWN_PAIRS} of {SHOWN_PAIRS} calls paired; in {{}} of them the answers differ."
    assert shown.count(all_paired.format(SHOWN_PAIRS)) == 3
    assert shown.count(all_paired.format(0)) == 1
    assert shown.count("alpha 0.05 is shared among the 2 candidates.") == 2
    assert "repeated pair id" not in shown
