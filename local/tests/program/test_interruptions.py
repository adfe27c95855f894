"""Ctrl-C at any moment: one line at most, nothing of what would have come next, nothing left."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import psutil
from runs import OF_SCRIPTED, PRIMARY_ALONE, Run, Start, up
from waiting import until


def test_while_the_manifests_are_read(start: Start, tmp_path: Path) -> None:
    """There is nothing to stop yet, or hardly anything: it ends, by the signal or by itself."""
    run = start("demo", "--folder", str(tmp_path / "stack"))
    until((tmp_path / "stack" / "demo" / "lock").exists)
    run.ctrl_c()
    assert run.ends() in (-signal.SIGINT, 130)
    assert run.output.read_text().split("\n")[-2:] in ([""], ["stopping", ""])


def test_while_the_database_is_made(start: Start, tmp_path: Path) -> None:
    """initdb gets the signal as well; its complaint is not shown."""
    run = start("demo", "--folder", str(tmp_path / "stack"))
    until((tmp_path / "stack" / "demo" / "postgres").exists)
    run.ctrl_c()
    assert run.ends() == 130
    # Where the signal comes late, the database is made.
    assert re.fullmatch(r"starting Postgres\n(waiting .*\n)*stopping\n", run.output.read_text())


def test_while_the_models_load(start: Start, tmp_path: Path) -> None:
    """Whatever is started by then ends; asked by `up`, that is a success."""
    run = up(start, tmp_path / "stack", KUSTOMIZATION=PRIMARY_ALONE)
    run.says(r"^waiting for the models \(0 of ")
    run.ctrl_c()
    assert run.ends() == 0
    assert re.fullmatch(r"starting Postgres\n(waiting .*\n)*stopping\n", run.output.read_text())


def test_during_traffic(start: Start, tmp_path: Path) -> None:
    """The calls are given up, and so is what the follower has still to bring."""
    run = start("demo", "--folder", str(tmp_path), TOPOLOGY="follow", REQUESTS="100000")
    run.says(r"^waiting for the models \(4 of 5 ready\)$")
    run.says(r"^sending calls through the gateway: 100000$")
    _ends_there(run, "sending calls through the gateway: 100000")


def test_while_the_report_is_made(start: Start, tmp_path: Path) -> None:
    """shadow-report ends without a trace, and the second round is not begun."""
    run = start("demo", "--folder", str(tmp_path), program=OF_SCRIPTED, REQUESTS="20")
    run.says(r"^judging$")
    until(lambda: _reports(run) != [])
    _ends_there(run, "")


def test_while_the_shadow_is_replaced(start: Start, tmp_path: Path) -> None:
    """Neither the new shadow nor the second round comes."""
    run = start("demo", "--folder", str(tmp_path), program=OF_SCRIPTED, REQUESTS="20")
    step = run.says(r"^replacing the shadow by .+$")[0]
    _ends_there(run, step)


def _ends_there(run: Run, step: str) -> None:
    run.ctrl_c()
    assert run.ends() == 130
    # A busy machine's shadow may be behind, which is said.
    output = re.sub(r"\d+ copies wait for the shadow, .*\n", "", run.output.read_text())
    assert output.endswith(f"{step}\nstopping\n")
    assert output.count("stopping") == 1
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output


def _reports(run: Run) -> list[psutil.Process]:
    found = []
    for child in run.process.children():
        try:
            if "shadow-report" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found
