"""The examples' objects: what an API server with these CRDs would say to each of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from schemas import schema_errors
from tree import REPOSITORY, Tree, kustomize, parse

ROLLOUTS = sorted(REPOSITORY.glob("examples/rollouts/*.yaml"))
EXAMPLES = sorted(
    path.parent
    for depth in ("*", "*/*")
    for path in REPOSITORY.glob(f"examples/{depth}/kustomization.yaml")
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_an_examples_objects_are_accepted(example: Path) -> None:
    """Unknown fields, wrong types, missing ones, namespaces of nobody: none."""
    items = parse(kustomize(example))
    assert [error for item in items for error in schema_errors(item)] == []
    assert {item["metadata"]["namespace"] for item in items} == {"prokube-demo-profile"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_leaves_the_timeout_to_the_settings(tmp_path: Path, example: Path) -> None:
    """What predict-timeout-seconds says holds at each of its places, the gateway and the hop."""
    tree, place = Tree(tmp_path / "tree"), example.relative_to(REPOSITORY)
    shutil.copytree(example, tree.folder / place, ignore=shutil.ignore_patterns(".*"))
    said = "predict-timeout-seconds: "
    tree.replace("manifests/settings/settings.yaml", f'{said}"60"', f'{said}"135"')
    items = tree.objects(str(place))
    found = {
        route["timeout"]
        for item in items
        for route in item.get("spec", {}).get("http", ())
        if item["kind"] == "VirtualService" and "timeout" in route
    }
    found |= {
        f"{variable['value']}s"
        for item in items
        for container in item.get("spec", {}).get("transformer", {}).get("containers", ())
        for variable in container.get("env", ())
        if variable["name"] == "PREDICT_TIMEOUT_SECONDS"
    }
    assert found == {"135s"}


@pytest.mark.parametrize("file", ROLLOUTS, ids=lambda file: file.name)
def test_a_rollouts_object_is_accepted(file: Path) -> None:
    """By the CRDs of Flagger and of Argo Rollouts."""
    assert schema_errors(yaml.safe_load(file.read_text())) == ()


def test_rollouts_ask_where_the_live_verdict_is(tmp_path: Path) -> None:
    """Each URL has the host of its Service, and a path that the server has."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    hosts = {
        f"{item['metadata']['name']}.{item['metadata']['namespace']}"
        for item in tree.objects()
        if item["kind"] == "Service" and item["spec"]["ports"][0]["port"] == 80
    }
    canary, template = (yaml.safe_load(file.read_text())["spec"] for file in reversed(ROLLOUTS))
    urls = {hook["url"]: "/gate" for hook in canary["analysis"]["webhooks"]}
    urls |= {template["args"][0]["value"]: "/verdict.json"}
    assert len(urls) == 2
    for url, path in urls.items():
        assert urlsplit(url).netloc in hosts
        assert urlsplit(url).path == path
