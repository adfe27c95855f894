"""What the options promise; one line for each promise that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pod_security import violations
from routes import GRPC, SERVING_PATH, Objects, mode, of_kind, routed, routes_of

ISVC = "serving.kserve.io/inferenceservice"


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """What is wrong with the options that are in the output; those that are not say nothing."""
    sides = [settings["primary"], settings["shadow"]]
    for policy in of_kind(objects, "AuthorizationPolicy"):
        yield f"AuthorizationPolicy {policy['metadata']['name']} may cut off ports of other people"
    guarded = [r for r in routes_of(objects, settings["gateway"]) if "x-api-key" in str(r["match"])]
    if guarded:
        yield from _api_key(objects, settings)
    if policies := of_kind(objects, "NetworkPolicy"):
        knative = mode(of_kind(objects, "InferenceService")[0]) == "Knative"
        chosen = [policy["spec"]["podSelector"]["matchLabels"] for policy in policies]
        wanted = [{ISVC: s, "component": c} for s in sides for c in ("predictor", "transformer")]
        if any(labels not in chosen for labels in wanted) or len(chosen) != len(wanted):
            yield f"the network policies are for {chosen}"
        for policy in policies:
            yield from _network(policy, knative, settings)
    for monitor in of_kind(objects, "PodMonitor"):
        yield from _monitor(monitor["spec"], sides)
    for job in of_kind(objects, "CronJob"):
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        if pod.get("enableServiceLinks") is not False:
            yield f"{job['metadata']['name']}: Services write into its environment"
        for violation in violations(pod):
            yield f"{job['metadata']['name']}: {violation}"


def _monitor(spec: dict[str, Any], sides: list[str]) -> Iterator[str]:
    if spec["selector"]["matchLabels"] != {"component": "transformer"}:
        yield "the monitor does not find the transformers"
    if spec["selector"]["matchExpressions"] != [{"key": ISVC, "operator": "In", "values": sides}]:
        yield "the monitor does not find both sides"
    (endpoint,) = spec["podMetricsEndpoints"]
    if (endpoint["targetPort"], endpoint["path"]) != (8080, "/metrics"):
        yield "the monitor asks where there are no metrics"


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


def _network(policy: dict[str, Any], knative: bool, settings: dict[str, str]) -> Iterator[str]:
    name, spec = policy["metadata"]["name"], policy["spec"]
    target = spec["podSelector"]["matchLabels"]
    if spec["policyTypes"] != ["Ingress"] or not all(rule.get("from") for rule in spec["ingress"]):
        yield f"{name} opens the pods to anyone"
        return
    first = spec["ingress"][0]
    own = {"podSelector": {"matchLabels": {ISVC: target[ISVC], "component": "transformer"}}}
    namespace = {"kubernetes.io/metadata.name": settings["gateway-namespace"]}
    gateway = {
        "namespaceSelector": {"matchLabels": namespace},
        "podSelector": {"matchLabels": {"istio": settings["gateway-label"]}},
    }
    expected = own if target["component"] == "predictor" and not knative else gateway
    if first["from"][0] != expected:
        yield f"{name} lets in {first['from'][0]}"
    port = 8012 if knative else 8080
    if first["ports"][0] != {"protocol": "TCP", "port": port}:
        yield f"{name} is not for the port that serves"
    grpc = [rule for rule in spec["ingress"] if {"protocol": "TCP", "port": 8081} in rule["ports"]]
    expected_for_grpc = [[gateway]] if target["component"] == "transformer" else []
    if [rule["from"] for rule in grpc] != expected_for_grpc:
        yield f"{name} lets others than the gateway in for gRPC"
