"""What the gateway's pods make of a deployment: ports, policies, copies, and Gateways of Istio that
are rendered next to it.

A cluster takes all of it as it is: calls are refused, answered with 404, or held up by the shadow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from shadow_local.translate.document import Manifest, fields, of_kind
from shadow_local.translate.forms import label
from shadow_local.translate.references import is_ours, namespace_of
from shadow_local.translate.written import SETTINGS_FILE

# Conditions on a request that TCP does not have; Istio's analyzer calls the outcome IST0133.
HTTP_ONLY = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
# Envoy holds so much of a copy that its shadow does not read; past it, the caller waits as well.
BUFFER, EDGE_BUFFER = 1_048_576, 32_768
# Of a gateway's pods: Istio's own, and Knative's local gateway, which calls by host come through.
ISTIOS_PORTS, KNATIVES_PORT = range(15_000, 15_091), 8081
# Istio's charts have 80 and 443 lead to 8080 and 8443 of the pods, or to themselves.
CALLERS_PORTS = (80, 443, 8080, 8443)
HTTP = ("HTTP", "HTTPS", "HTTP2", "GRPC")
ISTIOS_NAMESPACE = "istio-system"  # the setting gateway-namespace as it comes
LETS_IN = "shadow-deployment/gateway"  # a label of policies: which of a namespace's pods
POD_LABEL = "istio"  # what the setting gateway-label is the value of


def refusals(manifests: Iterable[Manifest], edge: bool = False) -> Iterator[str]:
    """One line for each thing that a gateway would take otherwise than it is meant. `edge`: as in
    Istio's profile EDGE.
    """
    items = list(manifests)
    gateways = of_kind(items, "Gateway")
    for policy in of_kind(items, "AuthorizationPolicy"):
        yield from _tcp_chains(policy)
    for item in of_kind(items, "Service"):
        yield from _gateway_ports(item, gateways)
    yield from _taken_ports(gateways)
    for item in of_kind(items, "VirtualService"):
        yield from _copies(item, EDGE_BUFFER if edge else BUFFER)
    for kind in ("HTTPRoute", "GRPCRoute"):
        for item in of_kind(items, kind):
            yield from _hostnames(item)


def warnings(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A line for each Gateway of our routes that does not serve their hosts, or has other pods, or
    may have them elsewhere, than our selectors ask for; and for a route that takes calls from the
    mirror.
    """
    items = list(manifests)
    ours = [item for item in items if is_ours(item)]
    for gateway in of_kind(items, "Gateway"):
        if gateway["apiVersion"].startswith("networking.istio.io"):
            routes = [item for item in ours if _names(item, gateway)]
            yield from dict.fromkeys(
                f"{label(gateway)}: {line}" for item in routes for line in _unserved(item, gateway)
            )
            if routes and gateway not in ours:
                yield from (f"{label(gateway)}: {line}" for line in _other_pods(ours, gateway))
    yield from _shut_out(ours)
    for item in of_kind(ours, "VirtualService"):
        yield from _taken_first(item)
        yield from _copied_never(item)
    for item in of_kind(items, "DestinationRule"):
        yield from _bounds(item)


def _taken_first(item: Manifest) -> Iterator[str]:
    """A route that copies nothing takes its calls from the one below it that does."""
    routes = [route for route in item["spec"].get("http", ()) if "route" in route]
    if mirrored := [i for i, route in enumerate(routes) if route.get("mirrors")]:
        for route in routes[: mirrored[0]]:
            yield (
                f"{label(item)}: its route {route.get('name', 'without a name')} stands before "
                f"{routes[mirrored[0]].get('name', 'the one that mirrors')} and has no mirrors, so "
                "the calls that it takes get no pair; put it behind, or give it the same mirrors."
            )


def _copied_never(item: Manifest) -> Iterator[str]:
    """At 0 % a mirror is off, and nothing in the cluster's objects or logs looks wrong."""
    for route in item["spec"].get("http", ()):
        for mirror in route.get("mirrors") or ():
            if (mirror.get("percentage") or {}).get("value") == 0:
                yield (
                    f"{label(item)}: its route {route.get('name', 'without a name')} copies 0 % of "
                    f"its calls to {mirror['destination']['host']}, so none of them gets a pair; "
                    f"set `mirror-percentage` in {SETTINGS_FILE} above 0, or take the stage "
                    "mirroring off."
                )


def _shut_out(ours: Iterable[Manifest]) -> Iterator[str]:
    """Of the Gateway API's gateways the policies let in a namespace, that of Istio as it comes. One
    that is written there may be another than the Gateway's, as Envoy Gateway's pods are elsewhere.
    """
    items = list(ours)
    homes = {
        parent.get("namespace", namespace_of(item))
        for kind in ("HTTPRoute", "GRPCRoute")
        for item in of_kind(items, kind)
        for parent in item["spec"].get("parentRefs") or ()
    }
    let_in = {
        named
        for item in of_kind(items, "NetworkPolicy")
        if item["metadata"]["labels"].get(LETS_IN) == "any-pod"
        for key, named in fields(item["spec"].get("ingress"))
        if key == "kubernetes.io/metadata.name"
    }
    for home in sorted(homes - let_in) if let_in == {ISTIOS_NAMESPACE} else ():
        yield (
            f"the network policies let in gateways of the namespace {ISTIOS_NAMESPACE}, and the "
            f"routes' Gateway is in {home}: unless its pods are in {ISTIOS_NAMESPACE}, nobody gets "
            f"in; set `gateway-namespace` in {SETTINGS_FILE} to where they are."
        )


def _tcp_chains(policy: Manifest) -> Iterator[str]:
    """On a port that is not HTTP, Istio drops the conditions that only HTTP has and denies all."""
    spec = policy["spec"]
    for rule in spec.get("rules", []) if spec.get("action") == "DENY" else []:
        operations = [item.get("operation", {}) for item in rule.get("to", [{}])]
        about_http = any(item.keys() & set(HTTP_ONLY) for item in operations) or any(
            condition.get("key", "").startswith("request.") for condition in rule.get("when", [])
        )
        if about_http and not all(item.get("ports") for item in operations):
            yield (
                f"AuthorizationPolicy {policy['metadata']['name']}: a rule that denies by HTTP's "
                "fields and names no ports denies every call to the TCP and TLS ports of those "
                "pods; name the ports, or refuse in a VirtualService by directResponse."
            )


def _gateway_ports(service: Manifest, gateways: Iterable[Manifest]) -> Iterator[str]:
    """Istio takes the first Service with a Gateway's port for its way in, and uses its target."""
    selector = service["spec"].get("selector", {})
    if not any(selector == gateway["spec"].get("selector", {}) for gateway in gateways):
        return
    for port in service["spec"].get("ports", []):
        if port.get("targetPort", port["port"]) != port["port"]:
            yield (
                f"Service {service['metadata']['name']}: Istio may move the gateway's own port "
                f"{port['port']} to {port['targetPort']}; give port and targetPort one number."
            )


def _taken_ports(gateways: list[Manifest]) -> Iterator[str]:
    """On a port that the pods listen on already, copies would go where its other calls go."""
    used = [(item, number) for item in gateways for number in _ports(item)]
    for item, port in used:
        if item["metadata"].get("labels", {}).get("app.kubernetes.io/component") != "mirror":
            continue
        others = [
            f"Gateway {other['metadata']['name']}"
            for other, number in used
            if other is not item and number == port and _pods(other) & _pods(item)
        ]
        if port in ISTIOS_PORTS:
            others = ["Istio itself"]
        elif port == KNATIVES_PORT:
            others = ["Knative's local gateway"]
        elif port in CALLERS_PORTS:
            others = ["its callers, whichever Gateway is theirs"]
        for other in others[:1]:
            yield (
                f"Gateway {item['metadata']['name']}: port {port} of the gateway's pods is that of "
                f"{other}; set mirror-port or second-mirror-port in "
                "manifests/settings/settings.yaml to a free one, such as 8089."
            )


def _ports(gateway: Manifest) -> list[int]:
    return [server["port"]["number"] for server in gateway["spec"].get("servers", ())]


def _pods(gateway: Manifest) -> set[tuple[str, str]]:
    """The labels of Istio's pods that a Gateway is of."""
    return {*gateway["spec"].get("selector", {}).items()}


def _bounds(rule: Manifest) -> Iterator[str]:
    """Envoy bounds calls under way by http2MaxRequests over HTTP/1 too, one to a connection."""
    pool = (rule["spec"].get("trafficPolicy") or {}).get("connectionPool") or {}
    connections = (pool.get("tcp") or {}).get("maxConnections")
    calls = (pool.get("http") or {}).get("http2MaxRequests")
    if isinstance(connections, int) and isinstance(calls, int) and 0 < calls < connections:
        yield (
            f"{label(rule)}: of {connections:,} connections no more than {calls:,} have a call, "
            "since http2MaxRequests counts those of HTTP/1 too, and what goes beyond is dropped; "
            "raise it to maxConnections or more."
        )


def _copies(item: Manifest, buffer: int) -> Iterator[str]:
    """Bodies of HTTP/1.1 are copied only as far as Envoy can hold them for a stuck shadow."""
    for route in item["spec"].get("http", []):
        for match in route.get("match", [{}]) if route.get("mirrors") else []:
            if match.get("uri", {}).get("exact", "").startswith("/inference.GRPCInferenceService"):
                continue  # HTTP/2 holds 16 MiB of each copy
            pattern = match.get("headers", {}).get("content-length", {}).get("regex")
            copies = f"VirtualService {item['metadata']['name']}: route {route.get('name')} copies"
            mend = (
                "Set mirror-content-length in manifests/settings/settings.yaml to "
                f"[0-9]{{1,{len(str(buffer)) - 1}}}."
            )
            if not any(_admits(pattern, 10**digits) for digits in range(1, 5)):
                no_body = "no body of 10 to 10,000 bytes, whose length is not"
                yield f"{copies} {no_body} {pattern}. {mend}"
            sizes = {buffer + 1, *(10**digits for digits in range(5, 12))}
            admitted = [s for s in sorted(sizes) if s > buffer and _admits(pattern, s)]
            if admitted:
                yield (
                    f"{copies} bodies of {admitted[0]:,} bytes, of which the gateway holds "
                    f"{buffer:,}; past that a stuck shadow stalls the caller. {mend}"
                )


def _admits(pattern: str | None, size: int) -> bool:
    return pattern is None or re.fullmatch(pattern, str(size)) is not None


def _hostnames(item: Manifest) -> Iterator[str]:
    """The Gateway API has no name for every host; a route without hostnames is for all of them."""
    if "*" in item["spec"].get("hostnames", ()):
        yield (
            f"{item['kind']} {item['metadata']['name']}: '*' is not a host name of the Gateway "
            "API; set `domain` in manifests/settings/settings.yaml to the host that callers use."
        )


def _names(item: Manifest, gateway: Manifest) -> bool:
    """Whether it is a route of the Gateway."""
    metadata = gateway["metadata"]
    namespace, name = metadata.get("namespace", "default"), metadata["name"]
    named = item["spec"].get("gateways") or () if item["kind"] == "VirtualService" else ()
    return f"{namespace}/{name}" in named or (name in named and namespace_of(item) == namespace)


def _unserved(route: Manifest, gateway: Manifest) -> Iterator[str]:
    """Istio takes of a route's hosts those that overlap with one of the Gateway's."""
    namespace, wanted = namespace_of(route), route["spec"]["hosts"]
    served = [
        host
        for server in gateway["spec"].get("servers") or ()
        if server["port"]["protocol"].upper() in HTTP
        for host in server["hosts"]
    ]
    seen = [
        host
        for place, host in (_parted(said) for said in served)
        if place in ("*", namespace) or (place == "." and namespace_of(gateway) == namespace)
    ]
    if not any(_overlap(one, other) for one in wanted for other in seen):
        yield (
            f"it serves {', '.join(served) or 'no host'}, and the routes of namespace {namespace} "
            f"are for {' and '.join(wanted)}, so that it answers each call with 404; add that "
            f"there, or set `domain` in {SETTINGS_FILE}."
        )


def _other_pods(ours: Iterable[Manifest], gateway: Manifest) -> Iterator[str]:
    """By one label; pods that are selected by others may have any value of it."""
    has = (gateway["spec"].get("selector") or {}).get(POD_LABEL)
    asked = {
        node[POD_LABEL]: label(item)
        for item in ours
        for key, node in fields(item.get("spec"))
        if key in ("matchLabels", "selector") and isinstance(node, dict) and POD_LABEL in node
    }
    for value, owner in asked.items():
        if has not in (None, value):
            yield (
                f"its pods have the label {POD_LABEL}: {has}, and {owner} takes them for those "
                f"with {POD_LABEL}: {value}; set `gateway-label` in {SETTINGS_FILE} to {has}."
            )


def _parted(host: str) -> tuple[str, str]:
    """The namespaces that a Gateway's host is for, and the host."""
    place, slash, name = host.rpartition("/")
    return place if slash else "*", name


def _overlap(one: str, other: str) -> bool:
    """As Istio has it: equal, or within what begins with an asterisk."""
    one, other = one.lower(), other.lower()
    return one == other or any(
        wide.startswith("*") and narrow.endswith(wide[1:])
        for wide, narrow in ((one, other), (other, one))
    )
