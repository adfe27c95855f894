"""Where a call goes, followed through the rendered objects as the gateway would."""

from __future__ import annotations

import re
from typing import Any

Objects = list[dict[str, Any]]
KNATIVE_GATEWAY = "knative-local-gateway.istio-system.svc.cluster.local"
COMPONENT = "app.kubernetes.io/component"
ENTRY = "shadow-deployment/entry"
GRPC = "/inference.GRPCInferenceService/"
SERVING_PATH = "x-serving-path"


def of_kind(objects: Objects, kind: str) -> Objects:
    return [item for item in objects if item["kind"] == kind]


def mode(service: dict[str, Any]) -> str | None:
    annotations = service["metadata"].get("annotations", {})
    value: str | None = annotations.get("serving.kserve.io/deploymentMode")
    return value


def shadow_sides(objects: Objects) -> list[str]:
    """The shadows as the settings call them; the second one is an option."""
    labels = [item["metadata"].get("labels", {}) for item in of_kind(objects, "InferenceService")]
    is_there = any(label.get("shadow-deployment/candidate") == "second" for label in labels)
    return ["shadow", "second-shadow"] if is_there else ["shadow"]


def transformer_hosts(objects: Objects, wanted_mode: str) -> dict[str, str]:
    """The host of each transformer that KServe makes in a mode -> the InferenceService's name."""
    hosts = {}
    for service in of_kind(objects, "InferenceService"):
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        if mode(service) == wanted_mode:
            hosts[f"{name}-transformer.{namespace}.svc.cluster.local"] = name
    return hosts


def routes_of(objects: Objects, gateway: str) -> list[dict[str, Any]]:
    """The routes of every VirtualService on a gateway, and those of the Gateway API."""
    namespace, _, name = gateway.partition("/")
    parent = {"namespace": namespace, "name": name}
    by_api = [
        _of_gateway_api(rule, item["metadata"]["namespace"])
        for kind in ("HTTPRoute", "GRPCRoute")
        for item in of_kind(objects, kind)
        if item["spec"]["parentRefs"] == [parent]
        for rule in item["spec"]["rules"]
    ]
    return by_api + [
        route
        for item in of_kind(objects, "VirtualService")
        if item["spec"].get("gateways") == [gateway]
        for route in item["spec"]["http"]
    ]


def _of_gateway_api(rule: dict[str, Any], namespace: str) -> dict[str, Any]:
    """A rule of the Gateway API as what a VirtualService would say."""
    matches = []
    for match in rule["matches"]:
        if "method" in match:
            uri = {"exact": f"/{match['method']['service']}/{match['method']['method']}"}
        else:
            kind = {"Exact": "exact", "PathPrefix": "path"}[match["path"]["type"]]
            uri = {kind: match["path"]["value"]}
        headers = {
            header["name"]: {"exact": header["value"]} for header in match.get("headers", ())
        }
        matches.append({"uri": uri, "headers": headers})
    filters = {item["type"]: item for item in rule["filters"]}
    (backend,) = rule["backendRefs"]
    host = f"{backend['name']}.{namespace}.svc.cluster.local"
    found = {
        "name": _name(rule["matches"][0]),
        "match": matches,
        "route": [{"destination": {"host": host, "port": {"number": backend["port"]}}}],
        "headers": {"request": filters["RequestHeaderModifier"]["requestHeaderModifier"]},
    }
    if "URLRewrite" in filters:
        path = filters["URLRewrite"]["urlRewrite"]["path"]
        new = path.get("replacePrefixMatch", path.get("replaceFullPath"))
        found |= {"rewrite": {"from": rule["matches"][0]["path"]["value"], "to": new}}
        found |= {"timeout": rule["timeouts"]["request"]}
    return found


def _name(match: dict[str, Any]) -> str:
    """What a rule of the Gateway API is called here, as it has no name: the path, or gRPC's."""
    return str(match["path"]["value"] if "path" in match else match["headers"][0]["value"])


def routed(
    routes: list[dict[str, Any]], path: str, headers: dict[str, str] | None = None
) -> dict[str, Any] | None:
    """The route that takes a call, as the gateway finds it; None is its 404."""
    for route in routes:
        if any(_matches(match, path, headers or {}) for match in route["match"]):
            return route
    return None


def _matches(match: dict[str, Any], path: str, headers: dict[str, str]) -> bool:
    wanted = all(
        name in headers and _accepts(condition, headers[name])
        for name, condition in match.get("headers", {}).items()
    )
    # Istio's rule: a header that is not there does not have the value.
    unwanted = any(
        _accepts(condition, headers.get(name, ""))
        for name, condition in match.get("withoutHeaders", {}).items()
    )
    return wanted and not unwanted and _accepts(match["uri"], path)


def _accepts(condition: dict[str, str], value: str) -> bool:
    ((kind, text),) = condition.items()
    if kind == "exact":
        return value == text
    if kind == "prefix":
        return value.startswith(text)
    if kind == "path":
        return value == text or value.startswith(f"{text}/")
    return re.fullmatch(text, value) is not None


def rewritten(route: dict[str, Any], path: str) -> str:
    """The path that a model sees."""
    rewrite = route.get("rewrite", {})
    if "from" in rewrite:
        return str(rewrite["to"] + path.removeprefix(rewrite["from"]))
    rule = rewrite.get("uriRegexRewrite")
    return re.sub(rule["match"], rule["rewrite"], path) if rule else path


def service_reached(
    objects: Objects, destination: dict[str, Any], authority: str | None
) -> str | None:
    """The InferenceService whose transformer gets the call; None when nobody does."""
    host, port = destination["host"], destination.get("port", {}).get("number")
    if port == 80 and host in (standard := transformer_hosts(objects, "Standard")):
        return standard[host]
    if port == 80 and host == KNATIVE_GATEWAY:
        return transformer_hosts(objects, "Knative").get(authority or "")
    for item in of_kind(objects, "Service"):
        metadata = item["metadata"]
        if host == f"{metadata['name']}.{metadata['namespace']}.svc.cluster.local":
            for opened in item["spec"]["ports"]:
                if opened["port"] == port:
                    return _through_service(objects, item, opened["targetPort"], authority or "")
    return None


def _through_service(
    objects: Objects, service: dict[str, Any], target: int, authority: str
) -> str | None:
    """By a Service of ours: to a transformer's gRPC port, or to the gateway's port for copies."""
    selector = service["spec"]["selector"]
    name: str | None = selector.get("serving.kserve.io/inferenceservice")
    if name is not None:
        known = {item["metadata"]["name"] for item in of_kind(objects, "InferenceService")}
        found = selector.get("component") == "transformer" and target == 8081 and name in known
        return name if found else None
    for gateway in of_kind(objects, "Gateway"):
        numbers = {server["port"]["number"] for server in gateway["spec"]["servers"]}
        if numbers == {target} and gateway["spec"]["selector"] == selector:
            # Istio up to 1.27 appends -shadow to the host of a copy, newer ones do not.
            names = (authority, f"{authority}-shadow")
            reached = {_by_host(objects, gateway["metadata"], one) for one in names}
            return reached.pop() if len(reached) == 1 else None
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
