"""What the report knows of the deployment."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from calls import post
from runs import Start
from stored import rows, wait_for_pairs
from tree import MIRRORED, SETTINGS, Tree

from shadow_local.report import comparison
from shadow_local.stack import Options, Stack
from shadow_local.translate.deployments import judging_options
from shadow_local.translate.document import render, repository
from shadow_local.translate.routes import mirror_percentage


@pytest.mark.parametrize("topology", MIRRORED)
@pytest.mark.parametrize("percentage", ["100", "12.5", "0.01"])
def test_the_mirrored_share_is_read_from_the_manifests(
    tmp_path: Path, topology: str, percentage: str
) -> None:
    """In either topology it is the one of the settings; a stage without copies has none."""
    tree = Tree(tmp_path)
    tree.choose_topology(topology)
    tree.replace(SETTINGS, 'mirror-percentage: "100"', f'mirror-percentage: "{percentage}"')
    assert mirror_percentage(render(tree.folder)) == float(percentage)
    assert mirror_percentage(render(tree.folder / "manifests/stages/mirroring-off")) is None


def test_the_report_gets_the_mirrored_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MIRROR_PERCENTAGE, unless that is set by hand or nothing is mirrored."""
    monkeypatch.delenv("MIRROR_PERCENTAGE", raising=False)
    assert comparison("postgresql://", 12.5, [])[1]["MIRROR_PERCENTAGE"] == "12.5"
    assert comparison("postgresql://", 100.0, [])[1]["MIRROR_PERCENTAGE"] == "100"
    assert "MIRROR_PERCENTAGE" not in comparison("postgresql://", None, [])[1]
    monkeypatch.setenv("MIRROR_PERCENTAGE", "10")
    assert comparison("postgresql://", 12.5, [])[1]["MIRROR_PERCENTAGE"] == "10"


def test_help_is_the_one_of_compare(start: Start, tmp_path: Path) -> None:
    """`make report ARGS=--help` shows the options that ARGS takes, also when nothing runs."""
    run = start("report", "--help", "--folder", str(tmp_path))
    assert run.ends() == 0
    assert "--max-disagreement" in run.output.read_text()


def test_a_mistyped_option_is_answered_with_what_can_be_typed(start: Start) -> None:
    """The report's own name may be on no PATH."""
    run = start("report", "--hmtl", "x", POSTGRES_URI="postgresql://127.0.0.1:9/x")
    assert run.ends() == 2
    output = run.output.read_text()
    assert "No such option: --hmtl" in output
    assert "`make report ARGS=--help`" in output


def test_a_model_without_a_record_yet_is_told(start: Start, tmp_path: Path, stack: Stack) -> None:
    """Its rows may be refused: a verdict on the version before would be taken for its own."""
    assert stack.state is not None
    assert stack.state.shadow is not None
    wait_for_pairs(stack, [post(stack.state.predict_url)[1]["x-shadow-pair-id"]])
    was = stack.state.shadow.version
    for version, is_told in ((was, False), ("next", True)):
        shadow = replace(stack.state.shadow, version=version)
        replace(stack.state, shadow=shadow).write(tmp_path)
        run = start("report", "--folder", str(tmp_path))
        assert run.ends() >= 10
        said = run.output.read_text()
        line = r"(?m)^(\S+) runs as version (\S+), and .* version (\S+), which"
        told = re.findall(line, said)
        assert told == [(shadow.service, "next", was)] * is_told
    assert f"{shadow.transformer_log} says why" in said
    assert Path(shadow.transformer_log).is_file()


def test_noise_is_of_the_primary_that_runs(start: Start, tmp_path: Path, stack: Stack) -> None:
    """Its own calls once more, over REST: a model that multiplies never differs from itself."""
    assert stack.state is not None
    stack.state.write(tmp_path)
    since = datetime.now(UTC).isoformat()
    pair_id = post(stack.state.predict_url)[1]["x-shadow-pair-id"]
    wait_for_pairs(stack, [pair_id])
    run = start("noise", "--folder", str(tmp_path), f"--since={since}")
    assert run.ends() == 0
    assert re.search(r"differs from itself in 0 % of 1 answer", run.output.read_text())
    query = "SELECT pair_id, role FROM inference_requests WHERE pair_id = ANY(%s)"
    (row,) = rows(stack, query, [f"itself:{pair_id}"])
    assert row["role"] == "primary"


def test_noise_needs_a_primary_that_runs(start: Start, tmp_path: Path) -> None:
    """Without `make up`, or in front of a database alone, there is nobody to ask."""
    run = start("noise", "--folder", str(tmp_path))
    assert run.ends() == 1
    assert "start `make up` and wait for `ready:`." in run.output.read_text()
    (tmp_path / "state.json").write_text(json.dumps({"primary": None}))
    run = start("noise", "--folder", str(tmp_path))
    assert run.ends() == 1
    assert "has no primary to ask" in run.output.read_text()


@pytest.mark.parametrize(
    ("known", "remedy"),
    [
        ({"postgres_log": "/run/postgres.log"}, "look into /run/postgres.log, or end `make up`"),
        ({}, "it is the one of its POSTGRES_URI: check that it runs."),
    ],
)
def test_a_frozen_postgres_is_said(
    start: Start, tmp_path: Path, known: dict[str, str], remedy: str
) -> None:
    """It takes the connection and never answers; the report does not wait for it without an end.
    What an earlier run in the folder left there is no matter.
    """
    (tmp_path / "postgres.log").touch()
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        uri = f"postgresql://postgres@127.0.0.1:{frozen.getsockname()[1]}/postgres"
        (tmp_path / "state.json").write_text(json.dumps({"postgres_uri": uri} | known))
        run = start("report", "--folder", str(tmp_path))
        assert run.ends() == 1
    said = run.output.read_text()
    assert "Postgres of the running `make up` does not answer" in said
    assert remedy in said
    assert "timeout expired" in said
    assert "Traceback" not in said


def test_a_database_is_judged_by_the_repositorys_manifests(
    start: Start, tmp_path: Path, postgres_uri: str
) -> None:
    """With POSTGRES_URI nothing has to run here."""
    page = tmp_path / "report.json"
    run = start("report", "--folder", str(tmp_path), "--json", str(page), POSTGRES_URI=postgres_uri)
    assert run.ends() in (11, 12)
    assert json.loads(page.read_text())["pairs"] is not None


RULES = "rules:\n  - {path: 'predictions[*]', compare: number, absolute: 999}\n"
IN_A_CLUSTER = """
resources: [../manifests/mirroring]
patches:
  - target: {kind: InferenceService}
    patch: |-
      - op: replace
        path: /spec/predictor
        value:
          model:
            modelFormat: {name: sklearn}
            runtime: kserve-mlserver
            storageUri: s3://models/churn
"""
OTHER_RULES = "rules:\n  - {path: 'predictions[*]', compare: label}\n"


def rules_in(page: Path) -> list[str]:
    """The kinds of the rules that a report as JSON was made by."""
    return [rule["compare"] for rule in json.loads(page.read_text())["settings"]["rules"]]


@pytest.mark.parametrize("option", ["report", "live-verdict"])
def test_a_database_is_judged_by_the_manifests_rules(
    start: Start, tmp_path: Path, postgres_uri: str, option: str
) -> None:
    """As the CronJob and the live verdict of the cluster do; `--rules` in ARGS wins."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on(option)
    tree.switch_on("rules")
    (tree.folder / "manifests/options/rules/rules.yaml").write_text(RULES)
    (tmp_path / "other.yaml").write_text(OTHER_RULES)
    page = tmp_path / "report.json"
    words = ("report", "--kustomization", str(tree.folder), "--folder", str(tmp_path))
    words += ("--json", str(page))
    for more, kinds in (((), ["number"]), (("--rules", str(tmp_path / "other.yaml")), ["label"])):
        run = start(*words, *more, POSTGRES_URI=postgres_uri)
        assert run.ends() in (11, 12)
        assert rules_in(page) == kinds
        told = "options of the manifests' report: --rules=" in run.output.read_text()
        assert told is not bool(more)


def test_a_database_is_judged_by_manifests_whose_models_run_only_in_the_cluster(
    start: Start, tmp_path: Path, postgres_uri: str
) -> None:
    """A report runs no model: neither a runtime of the cluster nor a bucket has to be here."""
    tree = Tree(tmp_path / "tree")
    for option in ("report", "rules"):
        tree.switch_on(option)
    (tree.folder / "manifests/options/rules/rules.yaml").write_text(RULES)
    folder = tree.folder / "production"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(IN_A_CLUSTER)
    page = tmp_path / "report.json"
    words = ("report", "--kustomization", str(folder), "--folder", str(tmp_path))
    run = start(*words, "--json", str(page), POSTGRES_URI=postgres_uri)
    assert run.ends() in (11, 12)
    assert rules_in(page) == ["number"]


@pytest.mark.parametrize("options", [["report", "rules"], ["live-verdict", "rules"], ["report"]])
def test_the_live_verdict_here_has_the_rules_of_either_option(
    tmp_path: Path, options: list[str]
) -> None:
    """`make up` runs it also where the manifests have rules for their CronJob alone."""
    tree = Tree(tmp_path / "tree")
    for option in options:
        tree.switch_on(option)
    (tree.folder / "manifests/options/rules/rules.yaml").write_text(RULES)
    stack = Stack(Options(tmp_path / "run", tree.folder, live_verdict=True))
    (judge,) = [item for item in stack.deployments if item.component == "live-verdict"]
    files = [Path(word.partition("=")[2]) for word in judging_options(judge.container.args)]
    mounted = [judge.files[judge.container.mounts[str(file.parent)]][file.name] for file in files]
    assert mounted == [RULES] * ("rules" in options)


def test_what_a_live_verdict_judges_by_is_known_without_how_it_is_served() -> None:
    """Nor which calls it takes, which `make report` says itself."""
    command = "python -m shadow_report serve --since-rollout --address=127.0.0.1 --port 7"
    command += " --rules=/run/rules.yaml --last 15m --max-disagreement 5% --allow-worse-slices"
    assert judging_options(command.split()) == (
        "--rules=/run/rules.yaml",
        "--max-disagreement=5%",
        "--allow-worse-slices",
    )


def test_a_page_in_the_root_is_ignored_by_git() -> None:
    """The README's --html report.html does not show up as a change of the repository."""
    assert "/report.html" in (repository() / ".gitignore").read_text().splitlines()
