"""The stages of a shadow's life: each is one `kubectl apply -k`, and does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from promises_of_pods import environment
from routes import Objects, of_kind, prefix, routes_of, service_reached
from tree import TOPOLOGIES, Tree


@pytest.fixture(params=TOPOLOGIES)
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(request.param)
    return tree


def test_mirroring_on_is_the_root(tree: Tree) -> None:
    """`kubectl apply -k .` is the stage with everything on."""
    assert tree.text("manifests/stages/mirroring-on") == tree.text()


def test_mirroring_off_is_shadow_added(tree: Tree) -> None:
    """Off takes the deployment back to where it was before the copies."""
    off = tree.text("manifests/stages/mirroring-off")
    assert off == tree.text("manifests/stages/shadow-added")


def test_mirroring_off_only_takes_the_copies_away(tree: Tree) -> None:
    """Both models stay as they are: no pod restarts, the entry answers as before."""
    on, off = tree.objects(), tree.objects("manifests/stages/mirroring-off")
    entry = next(item for item in on if _is_entry(item))
    del entry["spec"]["http"][0]["mirrors"]
    assert on == off


def test_primary_alone_has_no_trace_of_a_shadow(tree: Tree) -> None:
    """The first stage needs no shadow's image, and leaves no way to one."""
    text = tree.text("manifests/stages/primary-alone")
    assert tree.settings()["shadow"] not in text
    objects = tree.objects("manifests/stages/primary-alone")
    assert len(of_kind(objects, "InferenceService")) == 1
    assert len(of_kind(objects, "DestinationRule")) == 0
    assert len(_callers(tree, objects)) == 3


def test_primary_alone_does_not_touch_the_primary_later(tree: Tree) -> None:
    """Adding a shadow restarts nothing of the primary."""
    alone = of_kind(tree.objects("manifests/stages/primary-alone"), "InferenceService")
    assert alone[0] in of_kind(tree.objects(), "InferenceService")


def test_promoted_shadow_answers_the_callers(tree: Tree) -> None:
    """Both routes of the entry lead to the former shadow; nothing is mirrored or limited."""
    settings, objects = tree.settings(), tree.objects("manifests/stages/shadow-promoted")
    entry = [r for r in _callers(tree, objects) if prefix(r).endswith(f"/{settings['entry']}/")]
    assert [_answering(objects, route) for route in entry] == [settings["shadow"]] * 2
    assert not any("mirrors" in route for route in entry)
    for rule in of_kind(objects, "DestinationRule"):
        limited = "trafficPolicy" in rule["spec"]
        assert not limited or rule["spec"]["host"].endswith(".istio-system.svc.cluster.local")


def test_promotion_swaps_the_roles_and_nothing_else_of_the_models(tree: Tree) -> None:
    """The one who answers is recorded as primary; taking it back restores every byte."""
    before = of_kind(tree.objects(), "InferenceService")
    after = of_kind(tree.objects("manifests/stages/shadow-promoted"), "InferenceService")
    roles = [environment(service["spec"]["transformer"])["SHADOW_ROLE"] for service in after]
    assert roles == ["shadow", "primary"]
    for service, role in zip(after, ["primary", "shadow"], strict=True):
        service["spec"]["transformer"]["containers"][0]["env"][0]["value"] = role
    assert after == before


def _is_entry(item: dict[str, Any]) -> bool:
    component = item["metadata"]["labels"].get("app.kubernetes.io/component")
    return component in ("entry", "callers")


def _callers(tree: Tree, objects: Objects) -> list[dict[str, Any]]:
    return routes_of(objects, tree.settings()["gateway"])


def _answering(objects: Objects, route: dict[str, Any]) -> str | None:
    authority = route["rewrite"].get("authority")
    return service_reached(objects, route["route"][0]["destination"], authority)
