"""The alerts as Prometheus reads them: each fires on what it is for, and leads to its runbook."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tree import REPOSITORY, Tree

UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
WHAT_RUNS_IT = "put promtool on PATH (Debian's package prometheus has it), or name it in PROMTOOL"


@pytest.fixture
def groups(tmp_path: Path) -> list[dict[str, Any]]:
    """The rules as they are rendered with the default settings."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    (rules,) = [item for item in tree.objects() if item["kind"] == "PrometheusRule"]
    found: list[dict[str, Any]] = rules["spec"]["groups"]
    return found


def names(groups: list[dict[str, Any]]) -> list[str]:
    return [rule["alert"] for group in groups for rule in group["rules"]]


def promtool(*words: str | Path) -> None:
    """Run it; AssertionError with what it says when it objects."""
    if PROMTOOL is None:
        pytest.skip(WHAT_RUNS_IT)
    run = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_rules_and_their_texts_are_sound(tmp_path: Path, groups: list[dict[str, Any]]) -> None:
    """Expressions, durations and the templates in the annotations, as Prometheus parses them."""
    file = tmp_path / "alerts.yaml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    promtool("check", "rules", file)


def test_each_alert_fires_on_what_it_is_for(tmp_path: Path, groups: list[dict[str, Any]]) -> None:
    """By promtool's own unit tests, which know when an alert is pending, firing and over."""
    for group in groups:
        for rule in group["rules"]:
            del rule["annotations"]  # else every expected alert would repeat its prose
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": groups}))
    tests = shutil.copy(UNIT_TESTS, tmp_path)
    promtool("test", "rules", tests)


def test_a_live_verdict_that_does_not_run_is_not_missed(
    tmp_path: Path, groups: list[dict[str, Any]]
) -> None:
    """Its metrics are missing only where the option that makes them is on."""
    tree = Tree(tmp_path / "without")
    tree.switch_on("alerts")
    (rules,) = [item for item in tree.objects() if item["kind"] == "PrometheusRule"]
    added = set(names(groups)) - set(names(rules["spec"]["groups"]))
    assert added == {"ShadowVerdictMissing"}


def test_no_alert_is_untested(groups: list[dict[str, Any]]) -> None:
    """Each is expected somewhere, and somewhere it is expected to be silent."""
    seen: dict[str, set[bool]] = {}
    for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        for look in test.get("alert_rule_test", []):
            seen.setdefault(look["alertname"], set()).add(bool(look["exp_alerts"]))
    assert seen == {name: {True, False} for name in names(groups)}


def test_each_alert_has_its_runbook(groups: list[dict[str, Any]]) -> None:
    """In the order of the rules, under a heading of its name; as the settings come, a link leads to
    that heading in this repository."""
    links = [
        rule["annotations"]["runbook_url"].split("#") for group in groups for rule in group["rules"]
    ]
    [page] = {page for page, _ in links}
    text = (REPOSITORY / page).read_text()
    headings = re.findall(r"^### (Shadow\w+)$", text, re.MULTILINE)
    assert headings == names(groups)
    assert [anchor for _, anchor in links] == [heading.lower() for heading in headings]
