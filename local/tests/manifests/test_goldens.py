"""What kubectl renders is compared with committed files, character by character."""

from __future__ import annotations

from pathlib import Path

from goldens import FOLDER, renderings
from routes import KNATIVE_GATEWAY
from tree import OTHER_SETTINGS, REPOSITORY, Tree, kustomize

UPDATE = "after a change on purpose: .venv/bin/python tests/manifests/goldens.py"


def test_output_is_the_committed_one(tmp_path: Path) -> None:
    """Topologies, default and other settings, every stage and option: nothing changes unseen."""
    rendered = dict(renderings(tmp_path))
    assert rendered.keys() == {path.name for path in FOLDER.iterdir()}
    for name, text in rendered.items():
        assert text == (FOLDER / name).read_text(), f"{name} differs; {UPDATE}"


def test_repository_itself_is_the_standard_topology() -> None:
    """`kubectl apply -k .` applies what the tests look at."""
    assert kustomize(REPOSITORY) == (FOLDER / "standard.yaml").read_text(), UPDATE


def test_no_default_value_is_left_behind(tmp_path: Path) -> None:
    """With other settings no value of the default settings is anywhere in the output."""
    defaults = Tree(tmp_path).settings()
    for path in FOLDER.glob("*-other-settings.yaml"):
        # Knative puts its own gateway there, whatever the settings say.
        text = path.read_text().replace(KNATIVE_GATEWAY, "")
        for name in defaults.keys() - {"mirror-percentage"}:
            assert defaults[name] not in text, f"{path.name} still has the default {name}"
            assert OTHER_SETTINGS[name] in text, f"{path.name} lacks the new {name}"
