"""Every topology keeps every promise, with the default settings and with others."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from promises import broken_promises
from promises_to_callers import INFERENCE
from tree import OPTIONS, OTHER_SETTINGS, REPOSITORY, TOPOLOGIES, Tree


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("settings", [None, OTHER_SETTINGS], ids=["defaults", "other-settings"])
def test_deployment_keeps_its_promises(
    tmp_path: Path, topology: str, settings: dict[str, str] | None
) -> None:
    """Routes, guards, pods, database users, options: what each file promises, the whole keeps."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    if settings:
        tree.choose_settings(settings)
    broken = broken_promises(tree)
    assert not broken, "\n".join(broken)


def test_what_the_transformer_serves_is_promised() -> None:
    """Each fixed path of its own; the promises ask every topology for what they list."""
    program = """
import json
from minimal_transformer.transformer import OPENAI_PATHS
print(json.dumps(sorted(OPENAI_PATHS)))
"""
    python = REPOSITORY / "minimal-transformer/.venv/bin/python"
    asked = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    missing = set(json.loads(asked.stdout)) - set(INFERENCE)
    assert not missing, "promises_to_callers.py, INFERENCE"


def test_options_are_off_unless_switched_on(tmp_path: Path) -> None:
    """As it comes, only the retention job is there besides the models and their routes."""
    kinds = {item["kind"] for item in Tree(tmp_path / "tree").objects()}
    assert kinds == {"InferenceService", "VirtualService", "DestinationRule", "CronJob", "Service"}


def test_the_options_repeat_no_figure(tmp_path: Path) -> None:
    """A figure stands where it is set: a comment with another one would be wrong after a change."""
    lines = (Tree(tmp_path / "tree").folder / OPTIONS).read_text().splitlines()
    comments = [line.split("#")[-1] for line in lines if "#" in line]
    assert len(comments) > 10
    assert [comment for comment in comments if re.search(r"\d|once a", comment)] == []


def test_a_missing_api_key_stops_the_rendering(tmp_path: Path) -> None:
    """Switched on without a key, the option does not render: nothing is opened by forgetting."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    (tree.folder / "manifests/options/api-key/api-key.env").unlink()
    with pytest.raises(AssertionError, match=r"api-key\.env"):
        tree.text()
