"""Every topology keeps every promise, with the default settings and with others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from promises import broken_promises
from promises_to_callers import INFERENCE
from tree import OTHER_SETTINGS, REPOSITORY, TOPOLOGIES, Tree


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
