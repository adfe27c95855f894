"""What GitHub runs: our own commands, nothing that can change under us, no right too many."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from shadow_local.translate.document import repository

FOLDER = repository() / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.iterdir())}
JOBS = {
    f"{name}: {job}": content
    for name, workflow in WORKFLOWS.items()
    for job, content in workflow["jobs"].items()
}
SCRIPTS = [
    (name, step["run"])
    for name, job in JOBS.items()
    for step in job.get("steps", [])
    if "run" in step
]


def test_a_change_passes_what_a_developer_runs() -> None:
    """`.ci/run` for each push and pull request, before images are published and pins proposed."""
    assert [step.get("run") for step in JOBS["ci.yml: check"]["steps"]][1:] == [".ci/run"]
    assert {"push", "pull_request"} <= WORKFLOWS["ci.yml"]["on"].keys()
    assert JOBS["release.yml: images"]["needs"] == "ci"
    assert JOBS["release.yml: release"]["needs"] == "images"
    assert JOBS["pins.yml: propose"]["needs"] == "try"
    assert ".ci/run" in [run for name, run in SCRIPTS if name == "pins.yml: try"]


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """A tag can be moved to other code; the comment says which one the commit had."""
    for action in re.findall(r"uses: (.*)", path.read_text()):
        assert re.fullmatch(r"\./\S+|actions/[a-z-]+@[0-9a-f]{40} +# v\d+\.\d+\.\d+", action)


@pytest.mark.parametrize(("name", "script"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
def test_scripts_are_sound(name: str, script: str, tmp_path: Path) -> None:
    """Shell that shellcheck accepts, programs and make targets of this repository."""
    file = tmp_path / "script"
    file.write_text(f"#!/usr/bin/env bash\n{script}")
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}: {done.stdout}"
    targets = re.findall(r"^([a-z-]+):", (repository() / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"^make ([a-z-]+)", script, re.MULTILINE):
        assert target in targets
    for used in re.findall(r"\btools/\w+\.py|\.ci/\w+", script):
        assert (repository() / used).exists()


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_a_job_that_may_write_runs_nothing_new(job: dict[str, Any]) -> None:
    """The newest packages, and the tests of a pull request, run where the token can only read."""
    rights = job.get("permissions", {"contents": "read"})
    runs = [step.get("run", "") for step in job.get("steps", [])]
    if any(re.search(r"^(make lock|\.ci/run)", run, re.MULTILINE) for run in runs):
        assert set(rights.values()) == {"read"}
        assert all(
            step["with"]["persist-credentials"] is False
            for step in job["steps"]
            if "checkout" in step.get("uses", "")
        )
