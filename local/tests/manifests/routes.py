"""Where a call goes, followed through the rendered VirtualServices as the gateway would."""

from __future__ import annotations

from typing import Any

Objects = list[dict[str, Any]]
KNATIVE_GATEWAY = "knative-local-gateway.istio-system.svc.cluster.local"


def of_kind(objects: Objects, kind: str) -> Objects:
    return [item for item in objects if item["kind"] == kind]


def mode(service: dict[str, Any]) -> str | None:
    annotations = service["metadata"].get("annotations", {})
    value: str | None = annotations.get("serving.kserve.io/deploymentMode")
    return value


def transformer_hosts(objects: Objects, wanted_mode: str) -> dict[str, str]:
    """The host of each transformer that KServe makes in a mode -> the InferenceService's name."""
    hosts = {}
    for service in of_kind(objects, "InferenceService"):
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        if mode(service) == wanted_mode:
            hosts[f"{name}-transformer.{namespace}.svc.cluster.local"] = name
    return hosts


def routes_of(objects: Objects, gateway: str) -> list[dict[str, Any]]:
    """The routes of every VirtualService on a gateway."""
    return [
        route
        for item in of_kind(objects, "VirtualService")
        if item["spec"].get("gateways") == [gateway]
        for route in item["spec"]["http"]
    ]


def prefix(route: dict[str, Any]) -> str:
    matches = route.get("match", [])
    return str(matches[0].get("uri", {}).get("prefix", "")) if len(matches) == 1 else ""


def service_reached(
    objects: Objects, destination: dict[str, Any], authority: str | None
) -> str | None:
    """The InferenceService whose transformer gets the call; None when nobody does."""
    host, port = destination["host"], destination.get("port", {}).get("number")
    if port != 80:
        return None
    if host in (standard := transformer_hosts(objects, "Standard")):
        return standard[host]
    if host == KNATIVE_GATEWAY:
        return transformer_hosts(objects, "Knative").get(authority or "")
    return _through_own_gateway(objects, host, authority or "")


def _through_own_gateway(objects: Objects, host: str, authority: str) -> str | None:
    """By a Service of ours to a Gateway port, and on by the VirtualService that is bound to it."""
    ports = {
        port["targetPort"]
        for item in of_kind(objects, "Service")
        if f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.cluster.local" == host
        for port in item["spec"]["ports"]
        if port["port"] == 80
    }
    for gateway in of_kind(objects, "Gateway"):
        if {server["port"]["number"] for server in gateway["spec"]["servers"]} != ports:
            continue
        reached = set()
        # Istio up to 1.27 appends -shadow to the host of a copy, newer ones do not.
        for name in (authority, f"{authority}-shadow"):
            reached.add(_by_host(objects, gateway["metadata"], name))
        if len(reached) == 1:
            return reached.pop()
    return None


def _by_host(objects: Objects, gateway: dict[str, Any], host: str) -> str | None:
    for item in of_kind(objects, "VirtualService"):
        spec = item["spec"]
        same_namespace = item["metadata"]["namespace"] == gateway["namespace"]
        if same_namespace and spec["gateways"] == [gateway["name"]] and host in spec["hosts"]:
            route = spec["http"][0]
            authority = route.get("rewrite", {}).get("authority")
            return service_reached(objects, route["route"][0]["destination"], authority)
    return None
