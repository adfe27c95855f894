"""Children are watched, and none of them outlives the process that started them."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import until

from shadow_local import Explained
from shadow_local.supervisor import ChildDied, Command, Supervisor

# A child with a child of its own that ignores SIGTERM, both known by the file they write.
FAMILY = """
import os, subprocess, sys, time
grandchild = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
grandchild += "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", grandchild, sys.argv[1] + "/grandchild"])
open(sys.argv[1] + "/child", "w").write(str(os.getpid()))
time.sleep(600)
"""
STARTER = """
import sys, time
from pathlib import Path
from shadow_local.supervisor import Command, Supervisor
folder = Path(sys.argv[1])
words = (sys.executable, "-c", sys.argv[2], str(folder))
Supervisor(folder / "logs").start(Command("family", words, {}, folder))
time.sleep(600)
"""


def python(folder: Path, program: str, name: str = "child", stop_seconds: int = 30) -> Command:
    words = (sys.executable, "-c", program, str(folder))
    return Command(name, words, dict(os.environ), folder, stop_seconds=stop_seconds)


def pid_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(tmp_path / "logs")
    yield running
    running.hurried = True
    running.stop_all()


def test_stopping_ends_children_and_what_they_started(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """Nothing of a family is left, a grandchild that ignores SIGTERM included."""
    supervisor.start(python(tmp_path, FAMILY))
    pids = [pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")]
    supervisor.stop_all()
    until(lambda: not any(_is_running(pid) for pid in pids))


def test_a_killed_starter_leaves_no_child(tmp_path: Path) -> None:
    """Even SIGKILL of the runner ends its children and theirs."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), FAMILY])
    pids = [pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")]
    starter.kill()
    starter.wait()
    until(lambda: not any(_is_running(pid) for pid in pids))


def test_a_dead_child_is_reported_with_its_last_lines(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """The message has the name, the exit code, and the end of the child's output."""
    program = "import sys; print('\\n'.join(str(n) for n in range(100))); sys.exit('out of luck')"
    supervisor.start(python(tmp_path, program, "shadow-predictor"))
    message = _death(supervisor)
    assert message.startswith("shadow-predictor exited with code 1; ")
    assert message.endswith("  98\n  99\n  out of luck")
    assert "\n  80\n" not in message


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-26 03:00:00.000 7 ERROR kserve: failed to start",
        '{"level": "ERROR", "message": "failed to start"}',
        "[2026-11-26 03:00:00.000][7][critical][main] failed to start",
        "2026-11-26 03:00:00 UTC [7] FATAL:  failed to start",
        "psycopg.OperationalError: failed to start",
    ],
)
def test_an_error_that_later_lines_hide_is_reported(
    supervisor: Supervisor, tmp_path: Path, line: str
) -> None:
    """The last few errors stand before the last lines, once each."""
    program = f"print(7 * ({line!r} + '\\n') + '\\n'.join(str(n) for n in range(100)))"
    supervisor.start(python(tmp_path, program, "shadow-predictor"))
    message = _death(supervisor)
    errors = 5 * f"  {line}\n"
    assert f" ends:\n{errors}  ...\n  85\n" in message
    assert message.endswith("\n  98\n  99")


def test_a_killed_child_is_reported_with_its_signal(supervisor: Supervisor, tmp_path: Path) -> None:
    """A signal is named, not given as a negative number; an empty log is shown as one."""
    pid = supervisor.start(python(tmp_path, "import time; time.sleep(600)", "gateway"))
    os.kill(pid, 9)
    message = _death(supervisor)
    assert message.startswith("gateway was ended by SIGKILL; ")
    assert message.endswith("(nothing)")


STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + "/ready", "w").write("1")
time.sleep(600)
"""


def test_a_stubborn_child_is_killed_after_its_grace(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child has its grace period to end by itself, of which one is told, and no more."""
    monkeypatch.setattr("shadow_local.supervisor.LATE_END_SECONDS", 0)
    pid = supervisor.start(python(tmp_path, STUBBORN, stop_seconds=1))
    pid_in(tmp_path / "ready")
    said: list[str] = []
    supervisor.stop("child", said.append)
    assert not _is_running(pid)
    (told,) = said
    assert re.fullmatch("child takes long to end: it is killed in [01] s, or by .* Ctrl-C", told)


def test_a_frozen_child_ends_as_the_others_do(supervisor: Supervisor, tmp_path: Path) -> None:
    """SIGTERM alone would reach it when somebody lets it go on."""
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1] + "/ended", "w").write("1"), sys.exit()))
open(sys.argv[1] + "/ready", "w").write("1")
time.sleep(600)
"""
    pid = supervisor.start(python(tmp_path, program, stop_seconds=30))
    pid_in(tmp_path / "ready")
    os.kill(pid, signal.SIGSTOP)
    supervisor.stop_all()
    assert (tmp_path / "ended").exists()


def test_a_child_that_does_not_become_ready_is_explained_by_its_log(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow_local.supervisor.READY_SECONDS", 1)
    program = "import time; print('this pod is not ready', flush=True); time.sleep(60)"
    child = dataclasses.replace(
        python(tmp_path, program, "shadow-transformer"), probes=("http://127.0.0.1:9/ready",)
    )
    supervisor.start(child)
    log = tmp_path / "logs" / "shadow-transformer.log"
    until(lambda: "is not ready" in log.read_text())
    with pytest.raises(Explained, match=r"(?s)shadow-transformer: GET .*ends:\n.*is not ready"):
        supervisor.wait_until_ready(child)


NOT_READY = """
import http.server, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.server.asked > 2 else 503)
        self.server.asked += 1
        self.end_headers()
        self.wfile.write(b'{"error":\\n "no such model"}')

print("2026-11-26 03:00:00 WARNING nothing yet")
print("2026-11-26 03:00:01 WARNING set --predictor_protocol to v2")
print("2026-11-26 03:00:02 INFO asked again", flush=True)
with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
    server.asked = 0
    open(sys.argv[1] + "/port", "w").write(str(server.server_port))
    server.serve_forever()
"""


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_child_that_is_late_is_named_once_with_what_it_says(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    """Its probe's answer, its log, and the last line there in which something is wrong; one that is
    started by hand, whenever that may be, once it answers, and its log is elsewhere.
    """
    monkeypatch.setattr("shadow_local.supervisor.LATE_SECONDS", 0)
    child = python(tmp_path, NOT_READY, "primary-transformer")
    supervisor.start(child)
    url = f"http://127.0.0.1:{pid_in(tmp_path / 'port')}/ready"
    said: list[str] = []
    probed = dataclasses.replace(child, probes=(url,))
    supervisor.wait_until_ready(probed, by_hand, said.append)
    answer = f'GET {url}: 503 {{"error": "no such model"}}'
    assert [line.strip() for text in said for line in text.splitlines()] == (
        ["primary-transformer, started by hand, is not ready yet:", answer]
        if by_hand
        else [
            "primary-transformer is not ready after 0 s, waiting up to 300 s:",
            answer,
            f"{tmp_path / 'logs' / 'primary-transformer.log'} says last:",
            "2026-11-26 03:00:01 WARNING set --predictor_protocol to v2",
        ]
    )


@pytest.mark.parametrize(("name", "is_told"), [("shadow-predictor", True), ("gateway", False)])
def test_a_late_predictor_without_the_probed_path_is_told_of_others(
    supervisor: Supervisor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    is_told: bool,
) -> None:
    """It is a server without KServe's paths, or has a model of another name."""
    monkeypatch.setattr("shadow_local.supervisor.LATE_SECONDS", 0)
    child = python(tmp_path, NOT_READY.replace("503", "404"), name)
    supervisor.start(child)
    url = f"http://127.0.0.1:{pid_in(tmp_path / 'port')}/ready"
    said: list[str] = []
    probed = dataclasses.replace(child, probes=(url,))
    supervisor.wait_until_ready(probed, on_delay=said.append)
    assert ("docs/models/other.md" in said[0]) == is_told


def test_a_late_child_without_a_warning_is_named_with_its_log(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow_local.supervisor.LATE_SECONDS", 0)
    monkeypatch.setattr("shadow_local.supervisor.READY_SECONDS", 1)
    program = "import time; print('INFO still loading', flush=True); time.sleep(60)"
    child = dataclasses.replace(python(tmp_path, program), probes=("http://127.0.0.1:9/ready",))
    supervisor.start(child)
    said: list[str] = []
    with pytest.raises(Explained):
        supervisor.wait_until_ready(child, on_delay=said.append)
    assert len(said) == 1
    assert "GET http://127.0.0.1:9/ready: [Errno" in said[0]
    assert said[0].endswith("child.log")


def _death(supervisor: Supervisor) -> str:
    def died() -> bool:
        try:
            supervisor.check()
        except ChildDied:
            return True
        return False

    until(died)
    with pytest.raises(ChildDied) as death:
        supervisor.check()
    return str(death.value)


def _is_running(pid: int) -> bool:
    """Zombies are not: whoever inherited them has yet to look."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
