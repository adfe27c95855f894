"""What the options promise; one line for each promise that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pod_security import violations
from routes import Objects, mode, of_kind

ISVC = "serving.kserve.io/inferenceservice"


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """What is wrong with the options that are in the output; those that are not say nothing."""
    sides = [settings["primary"], settings["shadow"]]
    for policy in of_kind(objects, "AuthorizationPolicy"):
        yield from _api_key(policy["spec"], settings)
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
        for violation in violations(job["spec"]["jobTemplate"]["spec"]["template"]["spec"]):
            yield f"{job['metadata']['name']}: {violation}"


def _monitor(spec: dict[str, Any], sides: list[str]) -> Iterator[str]:
    if spec["selector"]["matchLabels"] != {"component": "transformer"}:
        yield "the monitor does not find the transformers"
    if spec["selector"]["matchExpressions"] != [{"key": ISVC, "operator": "In", "values": sides}]:
        yield "the monitor does not find both sides"
    (endpoint,) = spec["podMetricsEndpoints"]
    if (endpoint["targetPort"], endpoint["path"]) != (8080, "/metrics"):
        yield "the monitor asks where there are no metrics"


def _api_key(spec: dict[str, Any], settings: dict[str, str]) -> Iterator[str]:
    if spec["action"] != "DENY":
        yield "a rule that allows would open the gateway to whoever it names"
    names = (settings["entry"], settings["primary"], settings["shadow"])
    ways_in = [f"/serving/{settings['profile']}/{name}/*" for name in names]
    if spec["rules"][0]["to"] != [{"operation": {"paths": ways_in}}]:
        yield "a way in needs no key"
    if spec["rules"][0]["when"] != [
        {"key": "request.headers[x-api-key]", "notValues": ["sesame123"]}
    ]:
        yield "another header or value than the key opens the way"
    if spec["selector"]["matchLabels"] != {"istio": settings["gateway-label"]}:
        yield "the gateway does not ask for the key"


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
