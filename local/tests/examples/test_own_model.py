"""docs/your-own-model.md, done: its files are the example's, and its commands and figures hold."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from calls import post
from waiting import until

from shadow_local.stack import Options, Stack
from shadow_local.translate.document import repository

EXAMPLE = repository() / "examples" / "scikit-learn"
PAGE = (repository() / "docs" / "your-own-model.md").read_text()
PAIRS = """
SELECT primary_response #>> '{predictions,0}', shadow_response #>> '{predictions,0}'
FROM inference_pairs WHERE primary_status = 200 AND shadow_status = 200
ORDER BY request_time
"""
# The answer depends on both columns, so that a swapped one shows.
TRAINED_ON_A_FRAME = """
import pandas as pd
from types import SimpleNamespace
from sklearn.ensemble import HistGradientBoostingClassifier as Trees
people = pd.DataFrame({"age": [*range(100)] * 2, "sex": [*"fm"] * 100}).astype({"sex": "category"})
limit = people.sex.map({"f": 60, "m": 30}).astype(int)
labels = (people.age > limit).map({True: "old", False: "young"})
self = SimpleNamespace(model=Trees(categorical_features="from_dtype").fit(people, labels))
payload = {"instances": [{"sex": "m", "age": 45, "id": 7}, {"sex": "f", "age": 45, "id": 8}]}
"""
ASKED = "print(self.model.predict(rows).tolist())\n"


def commands(containing: str) -> str:
    """The page's only shell line with these words."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", "").splitlines()]
    [line] = [line for line in lines if containing in line]
    return line


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(line: str, **settings: str) -> str:
    """What a line of the page prints, in the repository's root; it has to succeed."""
    done = subprocess.run(
        ["bash", "-euc", line],
        cwd=repository(),
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained() -> str:
    """Both model files, made by the page's command; what it printed."""
    return run(commands("train.py"))


@pytest.fixture(scope="module")
def settings(trained: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The page's `make up`, by the runner itself; the variables of the second terminal."""
    assert trained
    [folder] = re.findall(r"^make up KUSTOMIZATION=(\S+)$", PAGE, re.MULTILINE)
    stack = Stack(Options(tmp_path_factory.mktemp("own"), repository() / folder))
    try:
        state = stack.start()
        exports = "; ".join([commands("export DOMAIN_NAME"), commands("export PREDICT_URL")])
        documented = run(f'{exports}; echo "$PREDICT_URL"').strip()
        here = documented.replace("http://127.0.0.1:8080", state.gateway_url)
        assert here == state.predict_url
        yield {
            "PREDICT_URL": here,
            "POSTGRES_URI": stack.database.of_role("report"),
        }
    finally:
        stack.stop()


def test_the_page_shows_the_files() -> None:
    """The model's lines and the kustomization are those of the example."""
    model, _ = blocks("python")
    [kustomization] = blocks("yaml")
    assert model in (EXAMPLE / "model.py").read_text()
    assert kustomization == (EXAMPLE / "kustomization.yaml").read_text()
    assert len(model.splitlines()) <= 12


def test_a_dataframes_model_is_given_its_columns() -> None:
    """The page's line, on rows whose keys stand in another order than in training, one too many."""
    _, line = blocks("python")
    program = TRAINED_ON_A_FRAME + line + ASKED
    answer = run(f"examples/scikit-learn/.venv/bin/python - <<'END'\n{program}END")
    assert answer == "['old', 'young']\n"


def test_training_prints_what_the_page_shows(trained: str) -> None:
    """Both models are there, and as good as the page says."""
    assert f"```\n{trained}```" in PAGE


def test_the_retrained_model_is_judged_by_its_labels(
    settings: dict[str, str], tmp_path: Path
) -> None:
    """The page's calls leave their pairs of labels; too many differ, until one allows for it."""
    words = shlex.split(commands("curl"))
    typed = [("content-type", "application/json")]
    answer = post(settings["PREDICT_URL"], words[-1].encode(), typed)[2].decode()
    assert f"`{answer}`" in PAGE
    answers = run(commands("traffic.py"), **settings)
    calls = 1 + sum(int(line.split()[0]) for line in answers.splitlines())

    def pairs() -> list[tuple[str, str]]:
        with psycopg.connect(settings["POSTGRES_URI"]) as connection:
            return connection.execute(PAIRS).fetchall()

    until(lambda: len(pairs()) == calls)
    assert pairs()[0] == ("versicolor", "virginica")
    assert {label for pair in pairs() for label in pair} == {"setosa", "versicolor", "virginica"}
    differing = [pair for pair in pairs() if pair[0] != pair[1]]
    assert f"disagreement: {len(differing)} of {calls} pairs disagree" in PAGE

    code, report = compare(tmp_path, settings)
    assert (code, report["verdict"]) == (10, "REJECT")
    often = f"is another label: {len(differing)} of {len(differing)} such pairs."
    assert often in str(report["reasons"])
    assert often in PAGE
    code, report = compare(tmp_path, settings, "--max-disagreement", "0.1")
    assert (code, report["verdict"]) == (11, "WAIT")


def compare(folder: Path, settings: dict[str, str], *more: str) -> tuple[int, dict[str, object]]:
    """Exit code and report of `shadow-report compare`."""
    program = repository() / "shadow-report" / ".venv" / "bin" / "shadow-report"
    done = subprocess.run(
        [program, "compare", "--settle", "0s", "--json", folder / "report.json", *more],
        env=os.environ | settings,
        capture_output=True,
        check=False,
    )
    return done.returncode, json.loads((folder / "report.json").read_text())
