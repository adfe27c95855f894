"""The stages of a shadow's life: each is one `kubectl apply -k`, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from promises_of_pods import environment
from promises_to_callers import INFERENCE
from routes import COMPONENT, GRPC, SERVING_PATH, Objects, of_kind, routed, routes_of
from routes import service_reached as reached
from tree import STAGES_OF_THEIR_OWN, TOPOLOGIES, Tree


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
    for item in on:
        component = item["metadata"]["labels"].get(COMPONENT)
        if component in ("callers", "grpc") and item["kind"] == "VirtualService":
            del item["spec"]["http"][1]["mirrors"]
        if component == "follower":
            item["spec"]["replicas"] = 0
    assert on == off


def test_primary_alone_has_no_trace_of_a_shadow(tree: Tree) -> None:
    """The first stage needs no shadow's image, and leaves no way to one."""
    text = tree.text("manifests/stages/primary-alone")
    assert tree.settings()["shadow"] not in text
    objects = tree.objects("manifests/stages/primary-alone")
    assert len(of_kind(objects, "InferenceService")) == 1
    assert len(of_kind(objects, "DestinationRule")) == 0
    assert len(of_kind(objects, "Service")) == 1
    assert of_kind(objects, "Deployment") == []
    settings = tree.settings()
    names, later = (
        [route["name"] for route in routes_of(found, settings["gateway"])]
        for found in (objects, tree.objects())
    )
    # A rule of the Gateway API is called here by its path.
    to_shadow = re.compile(f"shadow|/serving/{settings['profile']}/{settings['shadow']}(/.*)?")
    assert names == [name for name in later if not to_shadow.fullmatch(name)] != later


def test_primary_alone_does_not_touch_the_primary_later(tree: Tree) -> None:
    """Adding a shadow restarts nothing of the primary."""
    alone = of_kind(tree.objects("manifests/stages/primary-alone"), "InferenceService")
    assert alone[0] in of_kind(tree.objects(), "InferenceService")


def test_promoted_shadow_answers_the_callers(tree: Tree) -> None:
    """By REST and by gRPC the entry leads to the former shadow; nothing is mirrored or limited."""
    settings, objects = tree.settings(), tree.objects("manifests/stages/shadow-promoted")
    routes = routes_of(objects, settings["gateway"])
    path = f"/serving/{settings['profile']}/{settings['entry']}"
    calls = [(path + below, {"content-length": "2"}) for below in INFERENCE]
    calls += [(f"{path}/v2", {})]
    calls += [(f"{GRPC}{method}", {SERVING_PATH: path}) for method in ("ModelInfer", "ModelReady")]
    for called, headers in calls:
        route = routed(routes, called, headers)
        assert route is not None
        assert _answering(objects, route) == settings["shadow"]
    assert not any("mirrors" in route for route in routes)
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


@pytest.fixture
def two_shadows(tree: Tree, request: pytest.FixtureRequest) -> Tree:
    """The same topology with the option second-shadow."""
    tree.switch_on(f"second-shadow/{request.node.callspec.params['tree']}")
    return tree


def test_stages_take_both_shadows_along(two_shadows: Tree) -> None:
    """Before them there is no trace of either; added, neither has copies; what one promotes leaves
    the other a shadow, without calls.
    """
    settings = two_shadows.settings()
    alone = two_shadows.text("manifests/stages/primary-alone")
    assert settings["shadow"] not in alone
    assert settings["second-shadow"] not in alone
    added = two_shadows.objects("manifests/stages/shadow-added")
    assert len(of_kind(added, "InferenceService")) == 3
    assert {item["spec"]["replicas"] for item in of_kind(added, "Deployment")} <= {0}
    promoted = two_shadows.objects("manifests/stages/shadow-promoted")
    for objects in (added, promoted):
        routes = routes_of(objects, settings["gateway"])
        assert not any("mirrors" in route for route in routes)
    roles = {
        service["metadata"]["name"]: environment(service["spec"]["transformer"])["SHADOW_ROLE"]
        for service in of_kind(promoted, "InferenceService")
    }
    assert roles == {
        settings["primary"]: "shadow",
        settings["shadow"]: "primary",
        settings["second-shadow"]: "shadow",
    }


def test_follow_later_stops_where_there_is_no_shadow_to_call(two_shadows: Tree) -> None:
    """Before there is one, and once its answers are the callers'; any other stage starts it again,
    whoever has suspended it.
    """
    two_shadows.switch_on("follow-later")
    stages = {stage: f"manifests/stages/{stage}" for stage in STAGES_OF_THEIR_OWN}
    suspended = {
        stage: job["spec"].get("suspend")
        for stage, folder in {"mirroring-on": ".", **stages}.items()
        for job in of_kind(two_shadows.objects(folder), "CronJob")
        if job["metadata"]["labels"][COMPONENT] == "follow-later"
    }
    assert suspended == {
        "mirroring-on": False,
        "primary-alone": True,
        "shadow-added": False,
        "shadow-promoted": True,
    }


def _answering(objects: Objects, route: dict[str, Any]) -> str | None:
    authority = route.get("rewrite", {}).get("authority")
    return reached(objects, route["route"][0]["destination"], authority)
