"""What the options promise; one line for each promise that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pod_security import violations
from promises_of_pods import environment
from routes import (
    COMPONENT,
    ENTRY,
    GRPC,
    SERVING_PATH,
    Objects,
    mode,
    of_kind,
    routed,
    routes_of,
    shadow_sides,
)

ISVC = "serving.kserve.io/inferenceservice"
PART = {"app.kubernetes.io/part-of": "shadow-deployment"}


def _senders(entry: str, *components: str) -> dict[str, Any]:
    """Who calls a shadow's transformer besides the gateway, of this deployment alone."""
    among = [{"key": COMPONENT, "operator": "In", "values": [*components]}]
    return {"podSelector": {"matchLabels": {ENTRY: entry}, "matchExpressions": among}}


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """What is wrong with the options that are in the output; those that are not say nothing."""
    shadows = [settings[side] for side in shadow_sides(objects)]
    sides = [settings["primary"], *shadows]
    for policy in of_kind(objects, "AuthorizationPolicy"):
        yield f"AuthorizationPolicy {policy['metadata']['name']} may cut off ports of other people"
    guarded = [r for r in routes_of(objects, settings["gateway"]) if "x-api-key" in str(r["match"])]
    if guarded:
        yield from _api_key(objects, settings)
    yield from _policies(objects, sides, settings)
    for monitor in of_kind(objects, "PodMonitor"):
        if monitor["metadata"]["labels"][COMPONENT] == "pod-monitor":
            yield from _monitor(monitor["spec"], sides)
        else:
            yield from _monitor_of_reports(monitor["spec"], settings["entry"], len(shadows))
    for job in of_kind(objects, "CronJob"):
        yield from _job(job, shadows)


def _job(job: dict[str, Any], shadows: list[str]) -> Iterator[str]:
    name, labels = job["metadata"]["name"], job["metadata"]["labels"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    # One shadow is found, whatever it is called; several are named.
    named = environment(pod).get("SHADOW_CANDIDATES")
    if labels[COMPONENT] == "report" and named != (",".join(shadows) if shadows[1:] else None):
        yield f"{name}: it judges {named}"
    if pod.get("enableServiceLinks") is not False:
        yield f"{name}: Services write into its environment"
    for violation in violations(pod):
        yield f"{name}: {violation}"


def _monitor(spec: dict[str, Any], sides: list[str]) -> Iterator[str]:
    if spec["selector"]["matchLabels"] != {"component": "transformer"}:
        yield "the monitor does not find the transformers"
    if spec["selector"]["matchExpressions"] != [{"key": ISVC, "operator": "In", "values": sides}]:
        yield "the monitor does not find both sides"
    yield from _endpoint(spec)


def _monitor_of_reports(spec: dict[str, Any], entry: str, followers: int) -> Iterator[str]:
    components = ["follower", "live-verdict", "second-follower"][: followers + 1]
    named = [{"key": COMPONENT, "operator": "In", "values": components}]
    if spec["selector"] != {"matchLabels": PART | {ENTRY: entry}, "matchExpressions": named}:
        yield "the monitor does not find the follower and the live verdict"
    yield from _endpoint(spec)


def _endpoint(spec: dict[str, Any]) -> Iterator[str]:
    (endpoint,) = spec["podMetricsEndpoints"]
    if (endpoint["targetPort"], endpoint["path"]) != (8080, "/metrics"):
        yield "the monitor asks where there are no metrics"


def _chosen(policy: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = policy["spec"]["podSelector"]["matchLabels"]
    return labels


def _api_key(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """Without the key every way in is refused, and nothing else of the gateway is."""
    routes = routes_of(objects, settings["gateway"])
    for name in (settings["entry"], settings["primary"], settings["shadow"]):
        root = f"/serving/{settings['profile']}/{name}"
        calls = {f"{root}/v1/models/model:predict": {}, f"{root}/anything": {}}
        calls[f"{GRPC}ModelInfer"] = {SERVING_PATH: root}
        for path, headers in calls.items():
            for key in ({}, {"x-api-key": "sesame"}, {"x-api-key": "sesame123,"}):
                route = routed(routes, path, headers | key) or {}
                if route.get("directResponse") != {"status": 403}:
                    yield f"{path} with {headers | key} needs no key"
    elsewhere = f"/serving/{settings['profile']}/other/v1/models"
    if routed(routes, elsewhere) or routed(routes, "/", {SERVING_PATH: elsewhere}):
        yield "the key is asked for on other people's paths"


def _policies(objects: Objects, sides: list[str], settings: dict[str, str]) -> Iterator[str]:
    policies = [p for p in of_kind(objects, "NetworkPolicy") if ISVC in _chosen(p)]
    if not policies:
        return
    knative = mode(of_kind(objects, "InferenceService")[0]) == "Knative"
    chosen = [_chosen(policy) for policy in policies]
    wanted = [{ISVC: s, "component": c} for s in sides for c in ("predictor", "transformer")]
    if any(labels not in chosen for labels in wanted) or len(chosen) != len(wanted):
        yield f"the network policies are for {chosen}"
    followed = not of_kind(objects, "VirtualService")
    for policy in policies:
        yield from _network(policy, knative, followed, settings)
    follower = PART | {COMPONENT: "follower", ENTRY: settings["entry"]}
    if followed and follower not in [_chosen(p) for p in of_kind(objects, "NetworkPolicy")]:
        yield "anybody reaches the follower"


def _network(
    policy: dict[str, Any], knative: bool, followed: bool, settings: dict[str, str]
) -> Iterator[str]:
    name, spec = policy["metadata"]["name"], policy["spec"]
    target = spec["podSelector"]["matchLabels"]
    if spec["policyTypes"] != ["Ingress"] or not all(rule.get("from") for rule in spec["ingress"]):
        yield f"{name} opens the pods to anyone"
        return
    first = spec["ingress"][0]
    own = {"podSelector": {"matchLabels": {ISVC: target[ISVC], "component": "transformer"}}}
    namespace = {"kubernetes.io/metadata.name": settings["gateway-namespace"]}
    gateway: dict[str, Any] = {"namespaceSelector": {"matchLabels": namespace}}
    if not followed:  # the Gateway API has no label that every gateway's pods have
        gateway["podSelector"] = {"matchLabels": {"istio": settings["gateway-label"]}}
    expected = own if target["component"] == "predictor" and not knative else gateway
    if first["from"][0] != expected:
        yield f"{name} lets in {first['from'][0]}"
    port = 8012 if knative else 8080
    if first["ports"][0] != {"protocol": "TCP", "port": port}:
        yield f"{name} is not for the port that serves"
    entry = settings["entry"]
    sender = {"podSelector": {"matchLabels": {COMPONENT: "follow-later", ENTRY: entry}}}
    if followed:
        sender = _senders(entry, "follower", "follow-later")
    copies = [sender] if target == {ISVC: settings["shadow"], "component": "transformer"} else []
    if followed and target == {ISVC: settings["second-shadow"], "component": "transformer"}:
        sender = _senders(entry, "second-follower")
        copies = [sender]
    grpc = [rule for rule in spec["ingress"] if {"protocol": "TCP", "port": 8081} in rule["ports"]]
    expected_for_grpc = [[gateway, *copies]] if target["component"] == "transformer" else []
    if [rule["from"] for rule in grpc] != expected_for_grpc:
        yield f"{name} lets others than the gateway and a follower in for gRPC, or not these"
    # In Knative mode a follower's calls come through the gateway.
    if not knative and (sender in first["from"]) != bool(copies):
        yield f"{name}: a follower does not reach the shadow alone"
