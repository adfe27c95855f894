"""Who listens where: gateways and Services of the cluster, as ports of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from shadow_local.destinations import destination_rules
from shadow_local.document import Untranslated, document
from shadow_local.routes import VirtualService, cluster_name, virtual_services
from shadow_local.services import InferenceService, inference_services

# Knative's own gateway for calls inside the cluster, and the Service in front of it.
KNATIVE_GATEWAY = "knative-serving/knative-local-gateway"
KNATIVE_SERVICE = ("knative-local-gateway.istio-system.svc.cluster.local", 80)


@dataclass(frozen=True)
class Gateway:
    """A gateway's listener on this machine; `hosts` is what it admits."""

    name: str
    port: int
    hosts: tuple[str, ...] = ("*",)
    virtual_hosts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Mesh:
    """All that Envoy has to do: listeners with their routes, and the addresses behind them."""

    ingress: Gateway
    others: tuple[Gateway, ...]
    ports: Mapping[tuple[str, int], int]  # a Service's host and port -> local port
    rules: Mapping[str, dict[str, Any]]


def build_mesh(
    manifests: list[dict[str, Any]],
    endpoints: Mapping[str, int],
    ingress_port: int,
    choose_port: Callable[[], int],
    mirror_host_suffix: bool = False,
) -> Mesh:
    """The mesh of rendered objects.

    `endpoints` gives the local port of each KServe Service host; `choose_port` is asked for the
    ports of gateways besides the ingress one. Untranslated names a host or gateway that exists
    nowhere.
    """
    services = inference_services(manifests)
    routes = virtual_services(manifests, mirror_host_suffix)
    ports = {(host, 80): port for host, port in _standard(services, endpoints).items()}
    gateways = {
        name: Gateway(name, choose_port(), hosts) for name, hosts in _gateways(manifests).items()
    }
    knative = [service for service in services if service.mode == "knative"]
    if knative:
        local = gateways[KNATIVE_GATEWAY] = Gateway(KNATIVE_GATEWAY, choose_port())
        ports[KNATIVE_SERVICE] = local.port
        for service in knative:
            _knative_routes(service, endpoints, local, ports)
    ports |= _gateway_services(manifests, gateways)
    ingress = _ingress(routes, gateways, ingress_port)
    for item in routes:
        _attach(item, gateways | {ingress.name: ingress})
        for host, number in item.destinations:
            if (host, number) not in ports:
                known = ", ".join(f"{h}:{p}" for h, p in sorted(ports))
                raise Untranslated(
                    f"VirtualService {item.name}: destination {host} port {number} is no Service "
                    f"of this deployment; there are {known}."
                )
    rules = destination_rules(manifests)
    for host in rules.keys() - {host for host, _ in ports}:
        raise Untranslated(f"DestinationRule: host {host} is no Service of this deployment.")
    return Mesh(ingress, tuple(gateways.values()), ports, rules)


def _standard(services: Iterable[InferenceService], endpoints: Mapping[str, int]) -> dict[str, int]:
    """The Services that KServe makes in Standard mode, with their ports here."""
    hosts = [s.host("transformer") for s in services if s.mode == "standard"]
    hosts += [s.host("predictor") for s in services if s.mode == "standard"]
    return {host: endpoints[host] for host in hosts}


def _knative_routes(
    service: InferenceService,
    endpoints: Mapping[str, int],
    gateway: Gateway,
    ports: dict[tuple[str, int], int],
) -> None:
    """What Knative itself configures: its gateway finds a component by the Host alone."""
    host = service.host("transformer")
    ports[(f"{host}.revision", 80)] = endpoints[host]
    target = {"cluster": cluster_name(f"{host}.revision", 80), "timeout": "0s"}
    gateway.virtual_hosts[host] = [{"match": {"prefix": "/"}, "route": target}]


def _gateways(manifests: Iterable[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Gateways among the rendered objects, with the hosts that they admit."""
    found = {}
    for manifest in manifests:
        if manifest.get("kind") != "Gateway":
            continue
        with document(manifest) as top, top.section("metadata") as metadata:
            top.has_no_effect_here("apiVersion", "kind")
            metadata.has_no_effect_here("labels", "annotations")
            hosts: list[str] = []
            with top.section("spec") as spec:
                spec.table("selector")
                for section in spec.sections("servers"):
                    with section as server, server.section("port") as port:
                        server.has_no_effect_here("name")
                        port.has_no_effect_here("name", "number")
                        if port.text("protocol") not in ("HTTP", "HTTP2"):
                            raise port.refusal("protocol", "the listeners here speak plain HTTP")
                        hosts += [host.rsplit("/", 1)[-1] for host in server.texts("hosts")]
            found[f"{metadata.text('namespace')}/{metadata.text('name')}"] = tuple(hosts)
    return found


def _gateway_services(
    manifests: list[dict[str, Any]], gateways: Mapping[str, Gateway]
) -> dict[tuple[str, int], int]:
    """Services whose target is a port that a rendered Gateway opens on the same pods."""
    opened = {}
    for item in manifests:
        if item.get("kind") == "Gateway":
            name = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
            for server in item["spec"]["servers"]:
                pods = tuple(sorted(item["spec"]["selector"].items()))
                opened[(pods, server["port"]["number"])] = gateways[name].port
    found = {}
    for item in manifests:
        if item.get("kind") == "Service":
            host = f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.cluster.local"
            pods = tuple(sorted(item["spec"].get("selector", {}).items()))
            for port in item["spec"]["ports"]:
                target = (pods, port.get("targetPort", port["port"]))
                if target in opened:
                    found[(host, port["port"])] = opened[target]
    return found


def _ingress(
    routes: Iterable[VirtualService], gateways: Mapping[str, Gateway], port: int
) -> Gateway:
    """The gateway that exists on every cluster and is therefore not among the manifests."""
    names = {name for item in routes for name in item.gateways} - gateways.keys()
    if len(names) != 1:
        raise Untranslated(
            f"VirtualServices name {sorted(names) or 'no'} gateways that are not rendered; "
            "one is needed, the one that callers come through."
        )
    return Gateway(names.pop(), port)


def _attach(item: VirtualService, gateways: Mapping[str, Gateway]) -> None:
    """Add a VirtualService's routes to its gateways, as Istio does: catch-all routes last."""
    for name in item.gateways:
        gateway = gateways[name]
        for host in item.hosts:
            if not any(fnmatch(host, admitted) for admitted in gateway.hosts):
                raise Untranslated(
                    f"VirtualService {item.name}: host {host} is not admitted by Gateway {name}, "
                    f"which serves {', '.join(gateway.hosts)}; Istio would drop it silently."
                )
            routes = gateway.virtual_hosts.setdefault(host, [])
            routes += item.routes
            routes.sort(key=lambda route: route["match"] == {"prefix": "/"})
