"""An image is the project of this repository that has a console script of its name."""

from __future__ import annotations

import shutil
import venv
from pathlib import Path

import pytest
from gateways import rendered

from shadow_local.processes import Node, Ports, Project, component_command, project_of
from shadow_local.translate.document import Untranslated, of_kind, repository
from shadow_local.translate.services import Kind, inference_services


@pytest.mark.parametrize(
    ("image", "folder", "module"),
    [
        ("ghcr.io/prokube/minimal-predictor:0.1.0", "minimal-predictor", "minimal_predictor"),
        ("localhost:5000/minimal-transformer", "minimal-transformer", "minimal_transformer"),
        ("iris-classifier@sha256:0123", "examples/scikit-learn", "model"),
    ],
)
def test_an_image_is_found_by_its_name(image: str, folder: str, module: str) -> None:
    """Registry, tag and digest make no difference; the module is what the script starts."""
    found = project_of(image, repository(), repository())
    assert found == Project(repository() / folder, module)


def test_a_copy_of_an_example_is_run_from_its_own_folder(tmp_path: Path) -> None:
    """Both have the same console script; which kustomization is run decides."""
    for name in ("copy", "original"):
        folder = tmp_path / "examples" / name
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text('[project.scripts]\nmlserver = "mlserver:main"\n')
        assert project_of("mlserver:1", tmp_path, folder) == Project(folder, "mlserver")


def test_an_image_of_no_project_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """An empty repository has neither the project nor, once it does, its environment."""
    service = inference_services(rendered("standard"))[0]
    node = Node(tmp_path, tmp_path, lambda *_: "x", lambda uri: uri, tmp_path)
    with pytest.raises(
        Untranslated, match=r"predictor:.* is not built from .*; name .*models/runtime\.md"
    ):
        component_command(service, service.predictor, Ports(1, 2), 3, node)
    (tmp_path / "examples" / "mine").mkdir(parents=True)
    text = '[project.scripts]\nminimal-predictor = "mine:main"\n'
    (tmp_path / "examples" / "mine" / "pyproject.toml").write_text(text)
    with pytest.raises(Untranslated, match="run `make install PROJECT=examples/mine`"):
        component_command(service, service.predictor, Ports(1, 2), 3, node)


def test_a_copied_environment_is_refused(tmp_path: Path) -> None:
    """A folder copied with its .venv would run the code of the folder that it is a copy of."""
    service = inference_services(rendered("standard"))[0]
    node = Node(tmp_path, tmp_path, lambda *_: "x", lambda uri: uri, tmp_path)
    mine = tmp_path / "examples" / "mine"
    mine.mkdir(parents=True)
    text = '[project.scripts]\nminimal-predictor = "mine:main"\n'
    (mine / "pyproject.toml").write_text(text)
    venv.create(mine / ".venv")
    component_command(service, service.predictor, Ports(1, 2), 3, node)
    shutil.copytree(mine, tmp_path / "examples" / "copied", symlinks=True)
    (mine / "pyproject.toml").unlink()
    with pytest.raises(Untranslated, match=r"copy of .*/mine, .* `rm -rf examples/copied/\.venv`"):
        component_command(service, service.predictor, Ports(1, 2), 3, node)


def test_models_share_the_cores(tmp_path: Path) -> None:
    """A predictor computes with its part of them, unless its container sets the number."""
    manifests = rendered("standard")
    folder = repository()
    node = Node(folder, tmp_path, lambda *_: "x", lambda uri: uri, tmp_path, threads=3)

    def threads(kind: Kind) -> str | None:
        service = inference_services(manifests)[0]
        component = service.predictor if kind == "predictor" else service.transformer
        command, _ = component_command(service, component, Ports(1, 2), 3, node)
        return command.env.get("OMP_NUM_THREADS")

    assert threads("predictor") == "3"
    assert threads("transformer") is None
    for item in of_kind(manifests, "InferenceService"):
        for container in item["spec"]["predictor"]["containers"]:
            container["env"].append({"name": "OMP_NUM_THREADS", "value": "7"})
    assert threads("predictor") == "7"
