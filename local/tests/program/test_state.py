"""Each kustomization has data of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tree import Tree

from shadow_local.processes import model_files
from shadow_local.stack import Options, Stack, version_of
from shadow_local.state import STATE, copies_url_of, data_folder, other_models
from shadow_local.translate.document import render, repository
from shadow_local.translate.services import inference_services


def test_the_example_keeps_the_runners_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both topologies run the same models; the root named by hand is the same deployment."""
    monkeypatch.chdir(repository())
    assert data_folder(None) == data_folder(Path()) == data_folder(repository()) == Path()


def test_no_kustomization_shares_data_with_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One model's records are never compared with another's, however its folder is written."""
    monkeypatch.chdir(repository())
    own = data_folder(Path("examples/scikit-learn"))
    assert own == Path("kustomizations/examples-scikit-learn")
    assert data_folder(repository() / "examples" / "scikit-learn/") == own
    assert data_folder(tmp_path) not in (own, Path())


def test_only_calls_through_the_running_gateway_wait_for_its_copies(tmp_path: Path) -> None:
    """A URL elsewhere has nothing to do with the stack that runs here, nor has one of no stack."""
    here, copies = "http://127.0.0.1:8080", "http://127.0.0.1:9/stats"
    assert copies_url_of(tmp_path, f"{here}/serving") is None
    (tmp_path / STATE).write_text(json.dumps({"gateway_url": here, "copies_url": copies}))
    assert copies_url_of(tmp_path, f"{here}/serving") == copies
    assert copies_url_of(tmp_path, f"{here}1/serving") is None
    (tmp_path / STATE).write_text(json.dumps({"gateway_url": here, "copies_url": None}))
    assert copies_url_of(tmp_path, f"{here}/serving") is None


def test_another_model_under_a_version_of_before_is_told(tmp_path: Path) -> None:
    """Once, when it comes, and in what; a version of its own is nothing to tell of."""
    model = {"image, arguments or variables": "a", "model.py": "b"}
    first = {"double, version 1": model, "triple, version 1": model}
    assert other_models(tmp_path, first) == {}
    assert other_models(tmp_path, first) == {}
    mended = {**first, "triple, version 1": {**model, "model.py": "c", "names.json": "d"}}
    changed = {"triple, version 1": ["model.py", "names.json"]}
    assert other_models(tmp_path, mended) == changed
    assert other_models(tmp_path, {"triple, version 2": {}}) == {}
    assert other_models(tmp_path, first) == changed


def test_a_version_is_of_what_makes_the_model(tmp_path: Path) -> None:
    """Its factor here, and not how many replicas there may be or what they may take."""
    tree = Tree(tmp_path / "tree")

    def versions() -> dict[str, dict[str, str]]:
        return Stack(Options(tmp_path / "stack", tree.folder)).versions

    before = versions()
    version = tree.settings()["shadow-version"]
    assert len(before) == 2
    tree.choose_settings(tree.settings() | {"shadow-max-replicas": "7"})
    assert versions() == before
    tree.replace("manifests/inference/shadow/shadow.yaml", '"3"', '"4"')
    changed = {name for name, model in versions().items() if before[name] != model}
    assert changed == {f"{tree.settings()['shadow']}, version {version}"}


def test_a_version_is_of_the_files_that_make_the_model(tmp_path: Path) -> None:
    """Its project's modules and the file that its container names, and not another side's."""
    project = tmp_path / "examples" / "own"
    folder = project / "models"
    (project / "tests").mkdir(parents=True)
    folder.mkdir()
    (project / "pyproject.toml").write_text('[project.scripts]\niris-classifier = "model:main"\n')
    files = [project / "model.py", folder / "first.joblib", folder / "retrained.joblib"]
    for file in files:
        file.write_text("1")
    manifests = render(repository() / "examples" / "scikit-learn")
    primary, shadow = (service.predictor for service in inference_services(manifests))

    def changed(file: Path) -> list[bool]:
        before = [model_files(side, tmp_path, project) for side in (primary, shadow)]
        file.write_text("2")
        after = [model_files(side, tmp_path, project) for side in (primary, shadow)]
        return [old != new for old, new in zip(before, after, strict=True)]

    assert [changed(file) for file in files] == [[True, True], [True, False], [False, True]]
    assert changed(project / "README.md") == [False, False]
    assert changed(project / "tests" / "test_model.py") == [False, False]
    in_storage = replace(primary, model="models")
    before = model_files(in_storage, tmp_path, project)
    assert changed(folder / "config.json") == [False, False]
    assert model_files(in_storage, tmp_path, project) != before


def test_a_version_may_be_made_of_other_variables(tmp_path: Path) -> None:
    """As Kubernetes expands it, and the transformer records it."""
    tree = Tree(tmp_path / "tree")
    folder = tree.folder / "team"
    folder.mkdir()
    patch = (
        "- {op: test, path: /spec/transformer/containers/0/env/2/name, value: MODEL_VERSION}\n"
        "- {op: replace, path: /spec/transformer/containers/0/env/2/value,"
        " value: $(SHADOW_ROLE)-2}\n"
    )
    patches = [{"target": {"kind": "InferenceService"}, "patch": patch}]
    resources = ["../manifests/mirroring"]
    (folder / "kustomization.yaml").write_text(
        json.dumps({"resources": resources, "patches": patches})
    )
    services = Stack(Options(tmp_path / "stack", folder)).services
    assert [version_of(service) for service in services] == ["primary-2", "shadow-2"]
