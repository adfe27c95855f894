"""`shadow-local` as a program: what it says, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import psycopg
from calls import get, post
from rich.console import Console
from runs import PRIMARY_ALONE, PROGRAM, SCRIPTED, Start, up
from tree import Tree
from waiting import until

from shadow_local.demo import demonstrate
from shadow_local.stack import Options

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def test_up_tells_where_it_is_and_ends_at_ctrl_c(start: Start, tmp_path: Path) -> None:
    """`ready:` has the URL, state.json the rest; the key is demanded; Ctrl-C ends everything."""
    run = up(start, tmp_path / "stack", X_API_KEY="s3cret", SERVE_SINCE="2026-01-02")
    url = run.says(r"^ready: (\S+)$")[1]
    assert run.says(r"^callers need X_API_KEY's value in x-api-key$")
    assert run.says(r"^primary-transformer writes to postgresql://\S+; on a cluster, ")
    assert run.says(
        r"^models: primary double-minimal-inference \(minimal-predictor, version 0.1.0\), shadow "
        r"triple-\S+ \(.*, version 0.1.0\); kustomization.yaml, topology standard$"
    )
    state = json.loads((tmp_path / "stack" / "state.json").read_text())
    assert state["predict_url"] == url
    assert Path(state["postgres_log"]).is_file()
    assert url.startswith(state["gateway_url"] + "/serving/prokube-demo-profile/")
    assert post(url)[0] == 403
    assert post(url, headers=[("x-api-key", "s3cret")])[2] == b'{"predictions":[6.6,124.6,648.0]}'
    for role in ("primary", "shadow"):
        side = state[role]
        assert post(f"{side['transformer_url']}/v1/models/model:predict")[0] == 200
        assert post(f"{side['predictor_url']}/v1/models/model:predict")[0] == 200
        assert "minimal_transformer" in _command_line(side["transformer_pid"])
        assert "minimal_predictor" in _command_line(side["predictor_pid"])
        assert Path(side["spool_dir"]).is_dir()
        host, port = side["transformer_grpc_url"].split(":")
        socket.create_connection((host, int(port))).close()
    with psycopg.connect(state["postgres_uri"]) as connection:
        assert connection.execute("SELECT count(*) >= 0 FROM inference_pairs").fetchone() == (True,)
    post(url, headers=[("x-api-key", "s3cret")])
    page = run.says(r"^verdict: (\S+)$")[1]
    assert state["verdict_url"] == page
    until(lambda: json.loads(get(f"{page}verdict.json")[2])["pairs"] > 0)
    assert json.loads(get(f"{page}verdict.json")[2])["window"]["since"].startswith("2026-01-02")
    assert b"triple-minimal-inference" in get(page)[2]
    assert 400 <= get(f"{page}gate")[0] < 500
    report = start("report", "--folder", str(tmp_path / "stack"), "--settle", "0s")
    assert report.ends() in (10, 11)
    assert re.search("REJECT|WAIT", report.output.read_text())
    assert "have changed" not in report.output.read_text()
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert not (tmp_path / "stack" / "state.json").exists()
    assert "Traceback" not in run.output.read_text()


def test_the_report_and_the_live_verdict_judge_alike(start: Start, tmp_path: Path) -> None:
    """By the manifests' rules as they were at the start, and by what else is given to the live
    verdict there; an option of one's own wins. Where nothing mirrors, the follower brings the pair
    that they judge.
    """
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("follow")
    tree.switch_on("live-verdict")
    tree.switch_on("rules")
    rules = "rules:\n  - {path: 'predictions[*]', compare: number, absolute: 999}\n"
    (tree.folder / "manifests/options/rules/rules.yaml").write_text(rules)
    tree.replace(
        "manifests/options/live-verdict/deployment.yaml", "--port=8080]", "--port=8080, --alpha=2%]"
    )
    kustomization = tree.example("scripted")
    run = up(start, tmp_path / "stack", KUSTOMIZATION=str(kustomization))
    assert run.says(r"^models: .*, topology follow$")
    url = run.says(r"^ready: (\S+)$")[1]
    assert post(url)[0] == 200
    page, file = run.says(r"^verdict: (\S+)$")[1], tmp_path / "report.json"
    until(lambda: json.loads(get(f"{page}verdict.json")[2])["pairs"] > 0)
    live = json.loads(get(f"{page}verdict.json")[2])
    words = ("report", "--folder", str(tmp_path / "stack"), "--settle", "0s", "--json", str(file))
    (tree.folder / "manifests/options/rules/rules.yaml").write_text("rules: []\n")
    edited = start(*words)
    assert edited.ends() == 11
    assert f"manifests of {kustomization} have changed since" in edited.output.read_text()
    report = json.loads(file.read_text())
    assert [rule["compare"] for rule in live["settings"]["rules"]] == ["number"]
    assert live["settings"]["alpha"] == 0.02
    for name in ("rules", "alpha"):
        assert report["settings"][name] == live["settings"][name]
    (tmp_path / "none.yaml").write_text("rules: []\n")
    assert start(*words, "--rules", str(tmp_path / "none.yaml"), "--alpha=3%").ends() in (10, 11)
    own = json.loads(file.read_text())["settings"]
    assert (own["rules"], own["alpha"]) == ([], 0.03)
    run.process.terminate()
    assert run.ends() == 0


def test_records_outlive_a_killed_runner_and_a_dead_child_stops_the_next(
    start: Start, tmp_path: Path
) -> None:
    """SIGKILL of the runner leaves no process, and the next run in the folder has its pairs. When
    one of its models dies the rest ends too, and the reason is on the screen.
    """
    folder = tmp_path / "stack"
    run = up(start, folder, KUSTOMIZATION=str(SCRIPTED))
    url = run.says(r"^ready: (\S+)$")[1]
    pair_ids = [post(url)[1]["x-shadow-pair-id"] for _ in range(5)]
    copies = json.loads((folder / "state.json").read_text())["copies_url"]
    # Of a copy that is cut off the shadow's record says that its caller left.
    until(lambda: not any(figure["value"] for figure in json.loads(get(copies)[2])["stats"]))
    run.process.kill()
    run.ends()
    again = up(start, folder, KUSTOMIZATION=str(SCRIPTED))
    assert again.says(
        r"^models: .* \(scripted-\S+, .*; examples/scripted/kustomization.yaml, topol"
    )
    since = again.says(r'^without the calls of earlier runs: .* ARGS="--since (\S+)"$')[1]
    url = again.says(r"^ready: (\S+)$")[1]
    state = json.loads((folder / "state.json").read_text())
    query = """SELECT count(*) FROM inference_pairs
    WHERE pair_id = ANY(%s) AND primary_status = 200 AND shadow_status = 200"""

    def all_there() -> bool:
        with psycopg.connect(state["postgres_uri"]) as connection:
            return connection.execute(query, [pair_ids]).fetchone() == (5,)

    until(all_there)
    pair_ids = [post(url)[1]["x-shadow-pair-id"] for _ in range(5)]
    until(all_there)
    report = [PROGRAM, "report", "--folder", str(folder), "--since", since]
    judged = subprocess.run(report, capture_output=True, text=True, timeout=240, check=False)
    assert "5 compared" in judged.stdout
    os.kill(state["primary"]["predictor_pid"], signal.SIGKILL)
    assert again.ends() == 1
    assert "primary-predictor was ended by SIGKILL; " in again.output.read_text()
    assert "Traceback" not in again.output.read_text()


def test_the_first_stages_processes_are_started_by_hand(start: Start, tmp_path: Path) -> None:
    """`--without` prints the commands that stand in for the processes, and waits for them; who
    answers alone is recorded as the primary, and nobody as a shadow.
    """
    words = ("--without", "primary-transformer, primary-predictor")
    run = up(start, tmp_path / "stack", *words, KUSTOMIZATION=PRIMARY_ALONE)
    by_hand = []
    try:
        for module in ("minimal_transformer", "minimal_predictor"):
            line = run.says(rf"^(\S+=\S+ .*{module} .*)$")[1]
            command = ["env", *shlex.split(line)]
            nowhere = subprocess.DEVNULL
            by_hand.append(subprocess.Popen(command, stdout=nowhere, stderr=nowhere))
        url = run.says(r"^ready: (\S+)$")[1]
        _, headers, body = post(url)
        assert body == b'{"predictions":[6.6,124.6,648.0]}'
        state = json.loads((tmp_path / "stack" / "state.json").read_text())
        assert state["shadow"] is None
        query = "SELECT role, inference_service FROM inference_requests WHERE pair_id = %s"

        def stored() -> list[tuple[str, str]]:
            with psycopg.connect(state["postgres_uri"]) as connection:
                return connection.execute(query, [headers["x-shadow-pair-id"]]).fetchall()

        until(lambda: stored() != [])
        assert stored() == [("primary", "double-minimal-inference")]
        assert "writes to" not in run.output.read_text()  # where it does, that one alone knows
        run.process.terminate()
        assert run.ends() == 0
        assert [process.poll() for process in by_hand] == [None, None]
    finally:
        for process in by_hand:
            process.terminate()
            process.wait(240)


def test_demo_shows_pairs_and_both_verdicts(
    start: Start, tmp_path: Path, empty_postgres_uri: str
) -> None:
    """It ends by itself with every pair, in the database of POSTGRES_URI when that is set.

    Nothing on loopback goes through a proxy of the environment, which leads nowhere here.
    """
    settings = {"REQUESTS": "40", "POSTGRES_URI": empty_postgres_uri, "COLUMNS": "200"}
    settings |= dict.fromkeys(PROXIES, "http://127.0.0.1:9") | {"no_proxy": "", "NO_PROXY": ""}
    run = start("demo", "--folder", str(tmp_path / "stack"), **settings)
    assert run.ends() == 0
    output = run.output.read_text()
    assert "40 of 40 calls paired; in 40 of them the answers differ." in output
    assert "40 of 40 calls paired; in 0 of them the answers differ." in output
    assert "REJECT" in output
    for title in ("The primary multiplies by 2, the shadow by 3", "2, and so does the shadow"):
        assert title in output
    assert "\x1b" not in output
    for step in ("connecting to POSTGRES_URI", "waiting for the models (0 of 4 ready)"):
        assert f"\n{step}\n" in f"\n{output}"
    for step in ("replacing the shadow by double-minimal-inference-next", "judging", "stopping"):
        assert f"\n{step}\n" in output
    assert "triple-minimal-inference" not in output[output.index("and so does the shadow") :]
    assert output.index("What to try next") > output.index("\nstopping\n")
    assert "make up  " in output
    with psycopg.connect(empty_postgres_uri) as connection:
        stored = connection.execute("SELECT count(*) FROM inference_pairs").fetchone()
    assert stored == (80,)


def test_demo_where_a_share_is_mirrored(tmp_path: Path) -> None:
    """It waits for no pair that will not come, and the report knows the share; of two shadows each
    has its pairs.
    """
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("knative")
    tree.switch_on("second-shadow/knative")
    tree.choose_settings(tree.settings() | {"mirror-percentage": "50"})
    with (tmp_path / "screen").open("w+") as output:
        screen = Console(file=output, width=200)
        demonstrate(Options(tmp_path / "stack", tree.example("scripted")), 60, screen)
        output.seek(0)
        paired = [int(found) for found in re.findall(r"(\d+) of 60 calls paired", output.read())]
    assert len(paired) == 4
    assert all(0 < count < 60 for count in paired)


def _command_line(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline())
