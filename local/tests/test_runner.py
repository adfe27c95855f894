"""`shadow-local` as a program: what it says, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from calls import post
from waiting import until

from shadow_local.ports import free_port

PROGRAM = Path(sys.executable).with_name("shadow-local")
SETTINGS = ("GATEWAY_PORT", "KUSTOMIZATION", "MIRROR_HOST_SUFFIX", "POSTGRES_URI", "REQUESTS")
SETTINGS += ("TOPOLOGY", "WITHOUT", "X_API_KEY")


class Run:
    """A running `shadow-local`, and every process that came of it."""

    def __init__(self, folder: Path, *words: str, **settings: str) -> None:
        env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self.folder = folder
        self.output = folder / "output.txt"
        self.seen: set[psutil.Process] = set()
        with self.output.open("wb") as output:
            self.process = psutil.Popen(
                [PROGRAM, *words], env=env | settings, stdout=output, stderr=output
            )

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line; fail when the program ended without it."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.output.read_text(), re.MULTILINE)

        until(lambda: found() is not None or self.process.poll() is not None, 240)
        match = found()
        assert match, self.output.read_text()
        self.seen |= set(self.process.children(recursive=True)) if self.is_running else set()
        return match

    @property
    def is_running(self) -> bool:
        return bool(self.process.poll() is None)

    def ends(self) -> int:
        """Wait for the end; the exit code. Nothing that it started may be left."""
        code = int(self.process.wait(120))
        until(lambda: not self.left())
        return code

    def left(self) -> list[str]:
        """The command lines of what still runs."""
        running = (p for p in self.seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE)
        return [" ".join(process.cmdline()) for process in running]


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def run(*words: str, **settings: str) -> Run:
        folder = tmp_path / f"run-{len(runs)}"
        folder.mkdir()
        runs.append(Run(folder, *words, **settings))
        return runs[-1]

    yield run
    for item in runs:
        if item.is_running:
            item.process.kill()
            item.process.wait()


def up(start: Start, folder: Path, *words: str, **settings: str) -> Run:
    port = str(free_port())
    return start("up", "--folder", str(folder), *words, GATEWAY_PORT=port, **settings)


def test_up_tells_where_it_is_and_ends_at_ctrl_c(start: Start, tmp_path: Path) -> None:
    """`ready:` has the URL, state.json the rest; the key is demanded; Ctrl-C ends everything."""
    run = up(start, tmp_path / "stack", X_API_KEY="s3cret")
    url = run.says(r"^ready: (\S+)$")[1]
    state = json.loads((tmp_path / "stack" / "state.json").read_text())
    assert state["predict_url"] == url
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
    report = start("report", "--folder", str(tmp_path / "stack"), "--settle", "0s")
    assert report.ends() in (10, 11)
    assert re.search("REJECT|WAIT", report.output.read_text())
    run.process.send_signal(signal.SIGINT)
    assert run.ends() == 0
    assert not (tmp_path / "stack" / "state.json").exists()
    assert "Traceback" not in run.output.read_text()


def test_records_outlive_a_killed_runner(start: Start, tmp_path: Path) -> None:
    """SIGKILL of the runner leaves no process, and the next run in the folder has its pairs."""
    folder = tmp_path / "stack"
    run = up(start, folder)
    url = run.says(r"^ready: (\S+)$")[1]
    pair_ids = [post(url)[1]["x-shadow-pair-id"] for _ in range(5)]
    run.process.kill()
    run.ends()
    again = up(start, folder)
    again.says(r"^ready: (\S+)$")
    uri = json.loads((folder / "state.json").read_text())["postgres_uri"]
    query = """SELECT count(*) FROM inference_pairs
    WHERE pair_id = ANY(%s) AND primary_status = 200 AND shadow_status = 200"""

    def all_there() -> bool:
        with psycopg.connect(uri) as connection:
            return connection.execute(query, [pair_ids]).fetchone() == (5,)

    until(all_there)
    again.process.terminate()
    assert again.ends() == 0


def test_a_dead_child_stops_the_stack(start: Start, tmp_path: Path) -> None:
    """When a model dies the rest ends too, and the reason is on the screen."""
    run = up(start, tmp_path / "stack")
    run.says(r"^ready: ")
    state = json.loads((tmp_path / "stack" / "state.json").read_text())
    os.kill(state["shadow"]["predictor_pid"], signal.SIGKILL)
    assert run.ends() == 1
    assert "shadow-predictor was ended by SIGKILL; " in run.output.read_text()
    assert "Traceback" not in run.output.read_text()


def test_a_process_left_out_is_started_by_hand(start: Start, tmp_path: Path) -> None:
    """`--without` prints the command that stands in for the process, and waits for it."""
    run = up(start, tmp_path / "stack", "--without", "primary-transformer")
    line = run.says(r"^(\S+=\S+ .*minimal_transformer .*)$")[1]
    by_hand = subprocess.Popen(
        ["env", *shlex.split(line)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = run.says(r"^ready: (\S+)$")[1]
        assert post(url)[2] == b'{"predictions":[6.6,124.6,648.0]}'
        run.process.terminate()
        assert run.ends() == 0
        assert by_hand.poll() is None
    finally:
        by_hand.terminate()
        by_hand.wait(60)


def test_demo_shows_pairs_and_both_verdicts(
    start: Start, tmp_path: Path, empty_postgres_uri: str
) -> None:
    """It ends by itself with every pair, in the database of POSTGRES_URI when that is set."""
    settings = {"REQUESTS": "40", "POSTGRES_URI": empty_postgres_uri, "COLUMNS": "200"}
    run = start("demo", "--folder", str(tmp_path / "stack"), **settings)
    assert run.ends() == 0
    output = run.output.read_text()
    assert "40 of 40 calls paired; in 40 of them the answers differ." in output
    assert "40 of 40 calls paired; in 0 of them the answers differ." in output
    assert "REJECT" in output
    assert "\x1b" not in output
    with psycopg.connect(empty_postgres_uri) as connection:
        stored = connection.execute("SELECT count(*) FROM inference_pairs").fetchone()
    assert stored == (80,)


def test_report_without_a_deployment_says_so(start: Start, tmp_path: Path) -> None:
    """There is nothing to compare before something runs."""
    run = start("report", "--folder", str(tmp_path))
    assert run.ends() == 1
    assert "start `make up`, or set POSTGRES_URI" in run.output.read_text()


def test_a_busy_port_is_named(start: Start, tmp_path: Path) -> None:
    """One line says which port, who wanted it, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start("up", "--folder", str(tmp_path / "stack"), GATEWAY_PORT=str(port))
        assert run.ends() == 1
    assert run.output.read_text() == (
        f"shadow-local: Port {port} (gateway) is in use; "
        "stop what listens there or set GATEWAY_PORT to another.\n"
    )


def test_a_second_run_in_the_same_folder_is_refused(start: Start, tmp_path: Path) -> None:
    """Two stacks would share one database folder; the second one says who is there."""
    first = up(start, tmp_path / "stack")
    until((tmp_path / "stack" / "lock").exists)
    until(lambda: (tmp_path / "stack" / "lock").read_text() != "")
    second = up(start, tmp_path / "stack")
    assert second.ends() == 1
    assert f"process {first.process.pid} already runs in" in second.output.read_text()
    first.process.terminate()
    assert first.ends() == 0


def test_a_start_that_is_interrupted_leaves_nothing(start: Start, tmp_path: Path) -> None:
    """SIGTERM while the models are still loading ends them."""
    run = up(start, tmp_path / "stack")
    until((tmp_path / "stack" / "logs" / "gateway.log").exists)
    run.seen |= set(run.process.children(recursive=True))
    run.process.terminate()
    assert run.ends() == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"TOPOLOGY": "mesh"}, "TOPOLOGY is 'mesh'; set it to standard or knative."),
        ({"WITHOUT": "green-model"}, "There is no green-model to leave out; there are primary-"),
        ({"POSTGRES_URI": "postgresql://127.0.0.1:1/gone"}, "127.0.0.1"),
    ],
)
def test_a_wrong_setting_is_one_line(
    start: Start, tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    """A setting that cannot be is said in its own words, without a trace."""
    run = up(start, tmp_path / "stack", **settings)
    assert run.ends() == 1
    assert words in run.output.read_text()
    assert "Traceback" not in run.output.read_text()


def _command_line(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline())
