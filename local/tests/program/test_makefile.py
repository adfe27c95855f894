"""What `make` says of a mistyped variable, when it cannot install, and while it tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path

import pytest
import typer

from shadow_local.cli import app
from shadow_local.translate.document import repository

INDEX = "http://127.0.0.1:9/simple"  # nobody listens there
OFFLINE = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_FIND_LINKS": "",
    "PIP_INDEX_URL": INDEX,
    "PIP_RETRIES": "0",
    "UV_DEFAULT_INDEX": INDEX,
    "UV_HTTP_RETRIES": "0",
}
PROJECT = """
[project]
name = "some-project"
version = "0"
dependencies = ["nobody-has-this-in-a-cache"]
"""


@pytest.fixture(autouse=True)
def outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A make that runs these tests hands its own options on, which add lines to what is said, and
    its level, at which no variable is checked.
    """
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.delenv("MAKELEVEL", raising=False)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the Makefile, its tools and one project, in a path with a space."""
    folder = tmp_path / "a clone"
    (folder / "some-project").mkdir(parents=True)
    shutil.copy(repository() / "Makefile", folder)
    shutil.copytree(repository() / "tools", folder / "tools")
    (folder / "some-project" / "pyproject.toml").write_text(PROJECT)
    return folder


MAKEFILE = (repository() / "Makefile").read_text()
LISTS = re.compile(r"^VARIABLES .= (.*)", re.MULTILINE)
LISTED = " ".join(LISTS.findall(MAKEFILE)).split()
MAKES_OWN = {"CURDIR", "MAKE", "MAKEFILE_LIST", "MAKELEVEL"}
SET = re.compile(r"(?<![-\w'\"])([A-Za-z_]+)=")


def said_by_make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A make that runs nothing."""
    return subprocess.run(
        ["make", "--dry-run", *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("KUSTOMISATION=examples/wine", "did you mean KUSTOMIZATION?"),
        ("ARG=--help", "did you mean ARGS?"),
        ("gateway_port=9000", "did you mean GATEWAY_PORT?"),
        ("FACTOR=3", f"there are {', '.join(LISTED)}"),
    ],
)
def test_a_mistyped_variable_is_refused(clone: Path, given: str, remedy: str) -> None:
    """In one line, which names the nearest one there is, or all of them; nothing is started."""
    done = said_by_make(clone, "psql", "TIMES=2", given)
    name = given.partition("=")[0]
    (line,) = done.stderr.splitlines()
    assert f"*** {name} is not a variable of this Makefile; {remedy}." in line
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("given", ["HTTPS_PROXY=http://a", "UV_DEFAULT_INDEX=b", "KUBECONFIG=c"])
def test_other_programs_variables_are_theirs(clone: Path, given: str) -> None:
    """What installers and kubectl read from the environment is not listed here."""
    done = said_by_make(clone, "help", given)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_make_around_this_one_may_have_variables_of_its_own(clone: Path) -> None:
    """They reach every make that it starts."""
    (clone / "outer.mk").write_text("all:\n\t@$(MAKE) help\n")
    done = subprocess.run(
        ["make", "-f", "outer.mk", "STAGE=blue"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_listed_variables_are_those_that_there_are() -> None:
    """All that `shadow-local` reads, the recipes expand and the pages use; and no other."""
    programs = typer.main.get_command(app).commands.values()
    of_options = {option.envvar for program in programs for option in program.params}
    assert of_options - {None} <= set(LISTED)
    assigned = set(re.findall(r"^(?:\S+: )?(\w+) :?= ", MAKEFILE, re.MULTILINE))
    expanded = set(re.findall(r"\$\(([A-Z_]+)\)", MAKEFILE))
    assert expanded - assigned - MAKES_OWN <= set(LISTED)
    used = set(chain.from_iterable(map(variables_of_make, documents())))
    assert len(used) > 10
    assert used <= set(LISTED)
    read = LISTS.sub("", MAKEFILE) + "".join(file.read_text() for file in sources())
    assert [name for name in LISTED if not re.search(rf"\b{name}\b", read)] == []
    assert sorted(LISTED) == LISTED


def documents() -> list[Path]:
    """The pages, the workflows and what runs them."""
    folder = repository()
    found = [*folder.glob("*.md"), *folder.glob("*/*.md"), *folder.glob("docs/*/*.md")]
    return [*found, *folder.glob("examples/*/*.md"), *folder.glob(".github/workflows/*.yml")]


def sources() -> list[Path]:
    """The programs and tests that read variables."""
    parts = (repository() / part for part in ("local", "shadow-report", "tools"))
    found = [file for part in parts for file in part.rglob("*.py") if ".venv" not in file.parts]
    return [file for file in found if file != Path(__file__)]


def variables_of_make(page: Path) -> set[str]:
    """Those that its make commands set: `make up NAME=value`, `NAME=value make up`."""
    text = page.read_text()
    after = re.findall(r"(?:^|[`$;&] ?)make ([^`\n]*)", text.replace("\\\n", " "), re.MULTILINE)
    before = re.findall(r"([A-Z_]+)=\S+ make\b", text)
    return set(before).union(*(SET.findall(re.sub(r"\"[^\"]*\"", "", line)) for line in after))


@pytest.mark.parametrize(("has_uv", "missing"), [(False, "uv"), (True, "some-project")])
def test_an_install_without_a_network_says_what_to_do(
    clone: Path, has_uv: bool, missing: str
) -> None:
    """The installer's reason, then one line: what was not installed, and each remedy."""
    path = [folder for folder in ("/usr/bin", "/bin") if not Path(folder, "uv").exists()]
    if has_uv:
        tools = repository() / ".tools" / "bin"
        path.insert(0, str(Path(shutil.which("uv") or tools / "uv").parent))
    done = subprocess.run(
        ["make", "install", "PROJECT=some-project"],
        cwd=clone,
        env=os.environ | OFFLINE | {"PATH": ":".join(path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2
    *reason, remedy, _make = done.stderr.splitlines()
    assert remedy.startswith(f"{missing} was not installed. Without a network, connect; behind a")
    assert "HTTPS_PROXY" in remedy
    assert "UV_DEFAULT_INDEX and PIP_INDEX_URL" in remedy
    assert "Retrying" not in "".join(reason)
    assert not (clone / "some-project" / ".venv" / "runs").exists()


def test_clean_removes_the_examples_models_and_nobody_elses(clone: Path) -> None:
    """What train.py writes goes; a file of another name is someone's own."""
    folder = clone / "examples" / "scikit-learn" / "models"
    folder.mkdir(parents=True)
    for name in ("first", "retrained", "own"):
        (folder / f"{name}.joblib").touch()
    subprocess.run(["make", "clean"], cwd=clone, capture_output=True, check=True)
    assert [path.name for path in folder.iterdir()] == ["own.joblib"]


def test_clean_removes_what_was_installed_into_a_copied_example(clone: Path) -> None:
    """The Makefile does not name the copy, and its files are someone's own."""
    copy = clone / "examples" / "churn"
    (copy / ".venv" / "bin").mkdir(parents=True)
    for name in ("uv.lock", "model.py"):
        (copy / name).touch()
    subprocess.run(["make", "clean"], cwd=clone, capture_output=True, check=True)
    assert [path.name for path in copy.iterdir()] == ["model.py"]


def test_clean_removes_pythons_bytecode(clone: Path) -> None:
    """Which every command here writes next to what it runs."""
    (clone / "some-project" / "src" / "__pycache__").mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=clone, capture_output=True, check=True)
    assert not [*clone.rglob("__pycache__")]


@pytest.mark.parametrize("target", ["demo", "up"])
def test_the_model_of_a_demonstration_can_be_kept_up(target: str) -> None:
    """MODEL says the same of both."""
    done = subprocess.run(
        ["make", "--dry-run", target, "MODEL=llm"],
        cwd=repository(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'shadow-local {target} --model "llm"' in done.stdout


def test_versions_that_exclude_each_other_are_told_apart_from_a_network(clone: Path) -> None:
    """A dependency was changed and its pin was not: uv's reason, and the command that mends it."""
    project = PROJECT.replace("nobody-has-this-in-a-cache", "own==1")
    project += '[tool.uv]\nconstraint-dependencies = ["own==2"]\n'
    done = with_two_versions(clone, "install", project)
    *reason, remedy, _make = done.stderr.splitlines()
    assert "own==1 and own==2" in " ".join(reason)
    assert remedy.startswith("some-project was not installed. What its pyproject.toml names")
    assert remedy.endswith("run: make lock PROJECT=some-project")


def test_a_lock_that_fails_leaves_the_pins(clone: Path) -> None:
    """What a project asks for excludes itself: uv's reason, and the project as it was."""
    project = PROJECT.replace("nobody-has-this-in-a-cache", 'own==1", "own==2')
    project += '[tool.uv]\nconstraint-dependencies = [\n    "own==1",\n]\n'
    done = with_two_versions(clone, "lock", project)
    *reason, remedy, _make = done.stderr.splitlines()
    assert "own==1 and own==2" in " ".join(reason)
    assert remedy.startswith("The pins are as they were.")
    assert (clone / "some-project" / "pyproject.toml").read_text() == project


def with_two_versions(clone: Path, target: str, project: str) -> subprocess.CompletedProcess[str]:
    """A target that fails for a project, where of its package `own` there are two versions."""
    (clone / "wheels").mkdir()
    for version in (1, 2):
        (clone / "wheels" / f"own-{version}-py3-none-any.whl").touch()
    (clone / "some-project" / "pyproject.toml").write_text(project)
    uv = shutil.which("uv") or repository() / ".tools" / "bin" / "uv"
    done = subprocess.run(
        ["make", target, "PROJECT=some-project", f"UV={uv}"],
        cwd=clone,
        env=os.environ | {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(clone / "wheels")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2
    return done


def test_an_install_of_nothing_says_what_there_is(clone: Path) -> None:
    """`make install` without PROJECT names the projects."""
    done = subprocess.run(
        ["make", "install"], cwd=clone, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2
    assert "\nSay which project: make install PROJECT=<one of " in f"\n{done.stderr}"


def test_a_page_is_asked_for_as_of_the_demo() -> None:
    """By HTML; ARGS has what else there is."""
    done = subprocess.run(
        ["make", "--dry-run", "report", "HTML=page.html", "ARGS=--last 15m"],
        cwd=repository(),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert 'shadow-local report --html "page.html" --last 15m ||' in done.stdout


def test_another_pythons_path_is_ignored(tmp_path: Path) -> None:
    """PYTHONPATH and PYTHONHOME are for the Python of the shell, not for the ones that run here."""
    (tmp_path / "typing.py").write_text("raise SystemExit('of another Python')")
    done = subprocess.run(
        ["make", "report", "ARGS=--help"],
        cwd=repository(),
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--max-disagreement" in done.stdout


def test_up_brings_an_example_up_to_date_that_was_changed_since(clone: Path) -> None:
    """Also where KUSTOMIZATION is a folder elsewhere, which may stand on it."""
    for name in ("local", "examples/changed", "examples/as-it-was"):
        stamp = clone / name / ".venv" / "runs"
        stamp.parent.mkdir(parents=True)
        (clone / name / "pyproject.toml").touch()
        stamp.touch()
    os.utime(clone / "examples/changed/.venv/runs", (0, 0))
    done = said_by_make(clone, "up", "IMAGES=some-project", f"KUSTOMIZATION={clone.parent}")
    assert "sync --quiet --project examples/changed " in done.stdout
    assert "examples/as-it-was" not in done.stdout
    assert done.stdout.rstrip().endswith("shadow-local up")


@pytest.fixture
def suites(clone: Path) -> Path:
    """Three projects whose pytest is a script: `good` and `slow` pass, `bad` fails."""
    for name, script in (
        ("good", "echo '3 passed in 1s'"),
        ("bad", "until [ -e ../slow/began ]; do sleep 0.1; done; echo '1 failed in 1s'; exit 1"),
        ("slow", "until [ -e ../bad/ended ]; do sleep 0.1; done; echo '4 passed in 2s'"),
    ):
        bin_folder = clone / name / ".venv" / "bin"
        bin_folder.mkdir(parents=True)
        (clone / name / "pyproject.toml").touch()
        (bin_folder / "pytest").write_text(
            f"#!/bin/sh\ntouch began; trap 'touch ended' EXIT\n{script}\n"
        )
        (bin_folder / "pytest").chmod(0o755)
        (bin_folder.parent / "tests").touch()
    return clone


def run_suites(folder: Path, *projects: str) -> subprocess.CompletedProcess[str]:
    """`make test` of these projects, as from a shell; stdout and stderr in one."""
    inherited = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PROGRESS", "BROKEN")
    return subprocess.run(
        ["make", "test", f"PROJECTS={' '.join(projects)}", f"LONG_TESTS={projects[0]}/test"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in inherited},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )


def test_every_suite_runs_and_says_so_whatever_another_does(suites: Path) -> None:
    """A line when each starts and ends; the broken one is named; the exit code says it."""
    done = run_suites(suites, "bad", "good", "slow")
    lines = done.stdout.splitlines()
    assert done.returncode == 2
    for name in ("bad", "good", "slow"):
        ends = next(line for line in lines if line.startswith(f"-- {name}/test ends after "))
        assert lines.index(f"-- {name}/test starts") < lines.index(ends)
    # The bad one waits for the slow one's start, the slow one for the bad one's end: a start is
    # printed at once, not with the suite's output.
    assert lines.index("-- slow/test starts") < lines.index("== bad/test")
    assert "3 suites ran, 1 of them broken" in lines
    assert "broken; run it alone by: make bad/test" in lines
    closing = [line for line in lines if " passed" in line or " failed" in line]
    # pytest's own closing lines are the only ones of their kind.
    assert sorted(closing) == ["1 failed in 1s", "3 passed in 1s", "4 passed in 2s"]


def test_suites_that_pass_are_a_success(suites: Path) -> None:
    """Exit code 0, and no suite named."""
    done = run_suites(suites, "good")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 suites ran, 0 of them broken")


def test_a_question_of_several_lines_reaches_psql(postgres_uri: str) -> None:
    """With the quotes that SQL has."""
    question = "SELECT count(*) AS \"all calls\"\nFROM inference_requests\nWHERE role = 'primary'"
    words = ("psql", f"SQL={question}", f"POSTGRES_URI={postgres_uri}")
    done = subprocess.run(
        ["make", *words], cwd=repository(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^all calls \| 0$", done.stdout, re.MULTILINE)
