"""Who listens where: gateways and Services of the cluster, as ports of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from shadow_local.authorization import denials
from shadow_local.destinations import destination_rules
from shadow_local.document import Untranslated
from shadow_local.gateways import entrances, openings
from shadow_local.routes import VirtualService, cluster_name, virtual_services
from shadow_local.services import InferenceService, inference_services

TRANSLATED = {"AuthorizationPolicy", "DestinationRule", "Gateway", "InferenceService", "Service"}
TRANSLATED |= {"VirtualService"}
# Objects beside the calls' way: what runs by the clock, watches, or fences pods off.
NOT_RUN = {"ConfigMap", "CronJob", "NetworkPolicy", "PodMonitor", "ServiceAccount"}
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
    denials: tuple[dict[str, Any], ...]


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
    _check_kinds(manifests)
    services = inference_services(manifests)
    routes = virtual_services(manifests, mirror_host_suffix)
    ports = {(host, 80): port for host, port in _standard(services, endpoints).items()}
    opened = openings(manifests)
    gateways = {item.gateway: Gateway(item.gateway, choose_port(), item.hosts) for item in opened}
    knative = [service for service in services if service.mode == "knative"]
    if knative:
        local = gateways[KNATIVE_GATEWAY] = Gateway(KNATIVE_GATEWAY, choose_port())
        ports[KNATIVE_SERVICE] = local.port
        for service in knative:
            _knative_routes(service, endpoints, local, ports)
    pods = {(item.pods, item.number): gateways[item.gateway].port for item in opened}
    for entrance in entrances(manifests):
        if target := pods.get((entrance.pods, entrance.target)):
            ports[(entrance.host, entrance.number)] = target
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
    return Mesh(ingress, tuple(gateways.values()), ports, rules, tuple(denials(manifests)))


def _check_kinds(manifests: Iterable[dict[str, Any]]) -> None:
    for item in manifests:
        if item.get("kind") not in TRANSLATED | NOT_RUN:
            raise Untranslated(
                f"{item.get('kind')} {item['metadata']['name']}: the local runner does not "
                "translate objects of this kind."
            )


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
