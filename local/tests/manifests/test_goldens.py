"""What kubectl renders is compared with committed files, character by character."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import tree
import yaml
from goldens import FOLDER, renderings
from routes import KNATIVE_GATEWAY
from tree import OTHER_SETTINGS, REPOSITORY, Tree, kustomize

SCALED = {"standard-scale-metric", "standard-scale-target"}
SCALED_BY_KNATIVE = {"knative-scale-metric", "knative-scale-target"}
OF_MIRROR = {"mirror-percentage", "mirror-content-length", "mirror-grpc-copies"}
MIRROR_PORT = {"mirror-port", "mirror-port-name"}
MIRROR_PORT |= {f"second-{name}" for name in MIRROR_PORT}
UPDATE = "after a change on purpose: .venv/bin/python tests/manifests/goldens.py"


def test_output_is_the_committed_one(tmp_path: Path) -> None:
    """Topologies, default and other settings, every stage and option: nothing changes unseen."""
    rendered = dict(renderings(tmp_path))
    assert rendered.keys() == {path.name for path in FOLDER.iterdir()}, UPDATE
    for name, text in rendered.items():
        assert text == (FOLDER / name).read_text(), f"{name} differs; {UPDATE}"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="this machine has no kubectl")
def test_the_machines_kubectl_renders_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users have another one than the tests; seen with 1.27 to 1.33."""
    monkeypatch.setattr(tree, "KUBECTL", shutil.which("kubectl"))
    for name, text in renderings(tmp_path):
        assert text == (FOLDER / name).read_text(), name


def test_every_target_of_a_setting_names_one_kind() -> None:
    """Before 1.34 kubectl takes `A|B` for the name of a kind, and leaves the placeholder."""
    replacements = yaml.safe_load((REPOSITORY / "manifests/settings/replacements.yaml").read_text())
    kinds = [target["select"].get("kind", "") for one in replacements for target in one["targets"]]
    assert not [kind for kind in kinds if kind and not kind.isalpha()]


def test_repository_itself_is_the_standard_topology() -> None:
    """`kubectl apply -k .` applies what the tests look at."""
    assert kustomize(REPOSITORY) == (FOLDER / "standard.yaml").read_text(), UPDATE


def unused_settings(text: str) -> set[str]:
    """Those of kinds of objects that a topology does not have."""
    unused = SCALED if "deploymentMode: Knative" in text else SCALED_BY_KNATIVE
    if "\nkind: Gateway\n" not in text:
        unused = unused | MIRROR_PORT
    if "\nkind: VirtualService\n" not in text:
        unused = unused | OF_MIRROR | {"gateway-label"}
    return unused


def test_no_default_value_is_left_behind(tmp_path: Path) -> None:
    """With other settings no value of the default settings is anywhere in the output."""
    defaults = Tree(tmp_path).settings()
    for path in FOLDER.glob("*-other-settings.yaml"):
        # Knative puts its own gateway there, whatever the settings say.
        text = path.read_text().replace(KNATIVE_GATEWAY, "")
        for name in defaults.keys() - unused_settings(text):
            # These words stand in other places too; promises.py knows the settings' own.
            if not re.fullmatch(r"\d+|cpu|concurrency", defaults[name]):
                assert defaults[name] not in text, f"{path.name} still has the default {name}"
            # The Gateway API has the gateway's namespace and its name in two fields.
            parts = OTHER_SETTINGS[name].split("/") if name == "gateway" else [OTHER_SETTINGS[name]]
            assert all(part in text for part in parts), f"{path.name} lacks the new {name}"
