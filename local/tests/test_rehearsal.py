"""The stages of a shadow's life and the options, as a cluster would get them in turn."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import psycopg
import pytest
from backends import Backend
from calls import post
from gateways import Gateways
from tree import MIRRORED, OPTIONS, Tree
from waiting import until

from shadow_local.stack import Options, Stack
from shadow_local.translate.cluster import problems, warnings
from shadow_local.translate.document import of_kind, render, repository

# Stage: who answers the callers, whether the other one gets copies, and what the direct paths do.
STAGES = {
    "primary-alone": ("primary", False, (200, 404)),
    "shadow-added": ("primary", False, (200, 200)),
    "mirroring-on": ("primary", True, (200, 200)),
    "mirroring-off": ("primary", False, (200, 200)),
    "shadow-promoted": ("shadow", False, (200, 200)),
}


@pytest.mark.parametrize("topology", MIRRORED)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_does_what_its_name_says(  # noqa: PLR0917
    gateways: Gateways,
    primary: Backend,
    shadow: Backend,
    tmp_path: Path,
    topology: str,
    stage: str,
) -> None:
    """In each stage the right model answers, and the other gets copies only when it should."""
    answerer, copies, direct = STAGES[stage]
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    manifests = render(tree.folder / "manifests" / "stages" / stage)
    gateway = gateways.start_from(manifests, primary.port, shadow.port)
    for _ in range(10):
        status, headers, body = post(gateway.predict_url)
        assert (status, json.loads(body)) == (200, {"from": answerer})
        assert headers["x-shadow-pair-id"]
    for name, wanted in zip(("double", "triple"), direct, strict=True):
        service = f"{name}-minimal-inference"
        url = gateway.predict_url.replace("mirrored-inference", service)
        assert post(url)[0] == wanted
    answering, other = (primary, shadow) if answerer == "primary" else (shadow, primary)
    # The direct calls came last: once they are there, so is every copy that was sent before them.
    expected = (11, 11 if copies else 1) if direct == (200, 200) else (11, 0)
    until(lambda: (len(answering.calls), len(other.calls)) == expected)


def test_the_last_stage_runs_with_the_real_models(tmp_path: Path) -> None:
    """Who answers the callers is recorded as the primary, and nobody as a shadow; of the first one
    program/test_runner.py tells that.
    """
    stack = Stack(Options(tmp_path, repository() / "manifests" / "stages" / "shadow-promoted"))
    try:
        state = stack.start()
        status, headers, body = post(state.predict_url)
        assert status == 200
        assert json.loads(body)["predictions"] == pytest.approx([9.9, 186.9, 972.0])
        query = "SELECT role, inference_service FROM inference_requests WHERE pair_id = %s"
        pair_id = headers["x-shadow-pair-id"]

        def stored() -> list[tuple[str, str]]:
            with psycopg.connect(state.postgres_uri) as connection:
                return connection.execute(query, [pair_id]).fetchall()

        until(lambda: stored() != [])
        assert stored() == [("primary", "triple-minimal-inference")]
        assert state.shadow is not None
    finally:
        stack.stop()


@pytest.mark.parametrize("topology", MIRRORED)
def test_the_option_api_key_guards_every_path(
    gateways: Gateways, primary: Backend, shadow: Backend, tmp_path: Path, topology: str
) -> None:
    """Switched on, the gateway's own policy refuses what has no key, by any path."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.replace(OPTIONS, "# - api-key", "- api-key")
    gateway = gateways.start_from(render(tree.folder), primary.port, shadow.port)
    for entry in ("mirrored", "double-minimal", "triple-minimal"):
        url = gateway.predict_url.replace("mirrored", entry, 1)
        for headers in ([], [("x-api-key", "wrong")], [("x-api-key", "")]):
            assert post(url, headers=headers)[0] == 403
    assert not primary.calls
    assert not shadow.calls
    for entry in ("mirrored", "double-minimal", "triple-minimal"):
        url = gateway.predict_url.replace("mirrored", entry, 1)
        assert post(url, headers=[("x-api-key", "sesame123")])[0] == 200
    until(lambda: (len(primary.calls), len(shadow.calls)) == (2, 2))
    for call in primary.calls + shadow.calls:
        assert "x-api-key" not in call.headers


@pytest.mark.parametrize("topology", MIRRORED)
def test_the_option_pass_paths_opens_them_and_no_others(
    gateways: Gateways, primary: Backend, shadow: Backend, tmp_path: Path, topology: str
) -> None:
    """By each way to a model; what enters is copied like any other call, and arrives as it is."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on("pass-paths")
    manifests = render(tree.folder)
    gateway = gateways.start_from(manifests, primary.port, shadow.port)
    for path in ("predict", "images/draw"):
        assert post(gateway.entry_url + path)[0] == 200
    assert post(gateway.entry_url + "predict", b"x" * 1_000_000)[0] == 200
    for path in ("predicts", "imagesx/a", "", "metrics", "predict/../metrics"):
        assert post(gateway.entry_url + path)[0] == 404
    paths = ["/predict", "/images/draw"]
    until(lambda: sorted(call.path for call in shadow.calls) == sorted(paths))
    assert [call.path for call in primary.calls] == [*paths, "/predict"]
    for entry, model in (("double", primary), ("triple", shadow)):
        del model.calls[:]
        url = gateway.entry_url.replace("mirrored-inference", f"{entry}-minimal-inference")
        assert post(url + "images/draw")[0] == 200
        assert [call.path for call in model.calls] == ["/images/draw"]
    assert passed_paths(manifests) == {"/predict,/images"}


def test_the_pages_route_opens_a_path_in_the_topology_follow(
    gateways: Gateways, primary: Backend, shadow: Backend, tmp_path: Path
) -> None:
    """docs/models/other.md: its HTTPRoute beside ours, its patch on the InferenceServices, and what
    stands on top for the cluster.
    """
    page = (repository() / "docs/models/other.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    _, patch, route, _, on_top = blocks
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("follow")
    own = tree.folder / "own"
    own.mkdir()
    (own / "route.yaml").write_text(route)
    kustomization = "resources: [../manifests/mirroring, route.yaml]\npatches:\n" + patch
    (own / "kustomization.yaml").write_text(kustomization)
    gateway = gateways.start_from(render(own), primary.port, shadow.port)
    assert post(gateway.entry_url + "predict")[0] == 200
    assert post(gateway.entry_url + "images")[0] == 404
    assert [call.path for call in primary.calls] == ["/predict"]
    (tree.folder / "yours").symlink_to(own)
    cluster = tree.folder / "cluster"
    cluster.mkdir()
    (cluster / "kustomization.yaml").write_text(on_top)
    manifests = render(cluster)
    assert not [*problems(manifests), *warnings(manifests)]
    for service in of_kind(manifests, "InferenceService"):
        (container,) = service["spec"]["predictor"]["containers"]
        assert "args" not in container
        assert container["ports"][0]["containerPort"] == 8000


def test_the_pages_patches_for_an_image_of_each_side(tmp_path: Path) -> None:
    """docs/models/other.md: with a name of its own, and nothing of the example's model."""
    page = (repository() / "docs/models/other.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (patches,) = (block for block in blocks if "churn:5" in block)
    own = Tree(tmp_path / "tree").folder / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(f"resources: [../manifests/mirroring]\n{patches}")
    manifests = render(own)
    assert not [*problems(manifests), *warnings(manifests)]
    services = of_kind(manifests, "InferenceService")
    for service, version in zip(services, ("5", "6"), strict=True):
        (container,) = service["spec"]["predictor"]["containers"]
        (transformer,) = service["spec"]["transformer"]["containers"]
        assert (container["image"][-7:], container["env"]) == (f"churn:{version}", [])
        assert {"name": "MODEL_VERSION", "value": version} in transformer["env"]


def test_the_pages_folder_for_servers_started_by_hand(tmp_path: Path) -> None:
    """docs/models/language-model.md: its two files, without which the check finds anything."""
    page = (repository() / "docs/models/language-model.md").read_text()
    blocks = re.findall(r"^```(?:toml|yaml)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    project, kustomization = (text for text in blocks if " {op:" not in text.partition("\n")[0])
    own = Tree(tmp_path / "tree").folder / "examples" / "yours"
    own.mkdir(parents=True)
    (own / "kustomization.yaml").write_text(kustomization)
    manifests = render(own)
    assert not [*problems(manifests), *warnings(manifests)]
    for service in of_kind(manifests, "InferenceService"):
        (container,) = service["spec"]["predictor"]["containers"]
        name = container["image"].removesuffix(":1")
        assert name in tomllib.loads(project)["project"]["scripts"]


def test_the_pages_line_that_paces_both_models(tmp_path: Path) -> None:
    """docs/models/language-model.md: one line more in the example's first patch."""
    page = (repository() / "docs/models/language-model.md").read_text()
    (line,) = re.findall(r"^ +- \{op: add.*TOKENS_PER_SECOND.*\n", page, re.MULTILINE)
    example = Tree(tmp_path / "tree").folder / "examples" / "generative"
    example.mkdir(parents=True)
    written = (repository() / "examples/generative/kustomization.yaml").read_text()
    paced = written.replace("    patch: |\n", f"    patch: |\n{line}", 1)
    (example / "kustomization.yaml").write_text(paced)
    manifests = render(example)
    assert not [*problems(manifests), *warnings(manifests)]
    for service in of_kind(manifests, "InferenceService"):
        (container,) = service["spec"]["predictor"]["containers"]
        assert {"name": "TOKENS_PER_SECOND", "value": "20"} in container["env"]


def test_the_pages_lines_for_the_clusters_own_runtime(tmp_path: Path) -> None:
    """docs/models/runtime.md: on top of the folder for a bucket, in place of the example's."""
    page = (repository() / "docs/models/runtime.md").read_text()
    lines = re.findall(
        r"^ +- \{op: .*(?:kserve-mlserver|MLSERVER_MODEL_NAME).*\n", page, re.MULTILINE
    )
    examples = Tree(tmp_path / "tree").folder / "examples"
    no_models = shutil.ignore_patterns(".venv", "iris-models")
    shutil.copytree(repository() / "examples/runtime", examples / "runtime", ignore=no_models)
    own = examples / "own"
    own.mkdir()
    removed = (
        "  - target: {kind: KIND}\n"
        '    patch: "{$patch: delete, kind: KIND, metadata: {name: any}}"\n'
    )
    (own / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        "resources:\n  - ../runtime\npatches:\n"
        + "".join(removed.replace("KIND", k) for k in ("ServingRuntime", "PersistentVolumeClaim"))
        + "  - target: {kind: InferenceService}\n    patch: |\n"
        + "      - {op: replace, path: /spec/predictor/model/storageUri, value: 's3://bucket/churn'}\n"
        + "".join(lines)
    )
    manifests = render(own)
    assert not [*problems(manifests), *warnings(manifests)]
    assert not of_kind(manifests, "ServingRuntime")
    for service in of_kind(manifests, "InferenceService"):
        model = service["spec"]["predictor"]["model"]
        assert model["runtime"] == "kserve-mlserver"
        assert model["env"] == [{"name": "MLSERVER_MODEL_NAME", "value": "model"}]


def test_the_pages_folder_for_models_from_a_bucket(tmp_path: Path) -> None:
    """docs/models/runtime.md: on top of the example, in one namespace, and without its claim."""
    page = (repository() / "docs/models/runtime.md").read_text()
    blocks = re.findall(r"^# examples/bucket/(\S+).*\n((?:.*\n)*?)```", page, re.MULTILINE)
    examples = Tree(tmp_path / "tree").folder / "examples"
    no_models = shutil.ignore_patterns(".venv", "iris-models")
    shutil.copytree(repository() / "examples/runtime", examples / "runtime", ignore=no_models)
    own = examples / "bucket"
    own.mkdir()
    for name, text in blocks:
        (own / name.rstrip(",")).write_text(text)
    manifests = render(own)
    assert not [*problems(manifests), *warnings(manifests)]
    assert not of_kind(manifests, "PersistentVolumeClaim")
    services = of_kind(manifests, "InferenceService")
    namespaces = {
        item["metadata"]["namespace"] for item in (*services, *of_kind(manifests, "Secret"))
    }
    assert len(namespaces) == 1
    predictors = [service["spec"]["predictor"] for service in services]
    stored = {predictor["model"]["storageUri"] for predictor in predictors}
    assert stored == {"s3://bucket/churn/7", "s3://bucket/churn/8"}
    assert {predictor["serviceAccountName"] for predictor in predictors} == {"models"}


def passed_paths(manifests: list[dict[str, Any]]) -> set[str]:
    """What the transformers pass on."""
    services = [item for item in manifests if item["kind"] == "InferenceService"]
    containers = [item["spec"]["transformer"]["containers"][0] for item in services]
    settings = [{v["name"]: v.get("value") for v in container["env"]} for container in containers]
    return {env["PASS_PATHS"] for env in settings}
