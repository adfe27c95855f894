"""Istio's Gateways that are rendered next to the deployment, and what it takes them for.

A cluster takes both as they are: the gateway answers each call with 404, or its pods are shut out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shadow_local.translate.document import Manifest, fields
from shadow_local.translate.forms import label
from shadow_local.translate.references import is_ours, namespace_of

HTTP = ("HTTP", "HTTPS", "HTTP2", "GRPC")
POD_LABEL = "istio"  # what the setting gateway-label is the value of
SETTINGS = "manifests/settings/settings.yaml"


def mistaken(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A line for each Gateway of our routes that does not serve their hosts, or has other pods than
    our selectors ask for.
    """
    items = list(manifests)
    ours = [item for item in items if is_ours(item)]
    for gateway in items:
        if gateway["kind"] == "Gateway" and gateway["apiVersion"].startswith("networking.istio.io"):
            routes = [item for item in ours if _names(item, gateway)]
            yield from dict.fromkeys(
                f"{label(gateway)}: {line}" for item in routes for line in _unserved(item, gateway)
            )
            if routes and gateway not in ours:
                yield from (f"{label(gateway)}: {line}" for line in _other_pods(ours, gateway))


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
            f"there, or set `domain` in {SETTINGS}."
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
                f"with {POD_LABEL}: {value}; set `gateway-label` in {SETTINGS} to {has}."
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
