"""Who listens where: gateways and Services of the cluster, as ports of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from shadow_local.translate.document import Manifest, Section, Untranslated, objects
from shadow_local.translate.policies import denials, destination_rules
from shadow_local.translate.routes import Route, VirtualService, cluster_name, virtual_services
from shadow_local.translate.services import InferenceService, inference_services

TRANSLATED = {"AuthorizationPolicy", "DestinationRule", "Gateway", "InferenceService", "Service"}
TRANSLATED |= {"ServingRuntime", "VirtualService"}
# Objects off the calls' path: what runs by the clock, watches, fences pods off, or keeps files.
NOT_RUN = {"ConfigMap", "CronJob", "NetworkPolicy", "PersistentVolumeClaim", "PodMonitor"}
NOT_RUN |= {"ServiceAccount"}
# Knative's own gateway for calls inside the cluster, and the Service in front of it.
KNATIVE_GATEWAY = "knative-serving/knative-local-gateway"
KNATIVE_SERVICE = ("knative-local-gateway.istio-system.svc.cluster.local", 80)

Address = tuple[str, int]  # a Service's host and port
Pods = tuple[tuple[str, str], ...]  # the labels that select them


@dataclass(frozen=True)
class Gateway:
    """A gateway's listener on this machine; `hosts` is what it admits."""

    name: str  # namespace/name
    port: int
    hosts: tuple[str, ...] = ("*",)
    virtual_hosts: dict[str, list[Route]] = field(default_factory=dict)


@dataclass(frozen=True)
class Mesh:
    """All that Envoy has to do: listeners with their routes, and the addresses behind them."""

    ingress: Gateway
    others: tuple[Gateway, ...]
    ports: Mapping[Address, int]  # the local port behind each Service
    rules: Mapping[str, dict[str, Any]]
    denials: tuple[dict[str, Any], ...]
    services: tuple[InferenceService, ...]

    @property
    def direct_paths(self) -> dict[str, str]:
        """For each role the path that leads to its InferenceService alone, where there is one."""
        roles = {service.name: service.role for service in self.services}
        names = {path: path.strip("/").rsplit("/", 1)[-1] for path in self._paths()}
        return {roles[name]: path for path, name in names.items() if name in roles}

    @property
    def entry_path(self) -> str:
        """The path that callers use: the ingress' first that is not an InferenceService's own."""
        direct = self.direct_paths.values()
        for path in self._paths():
            if path not in direct:
                return path
        raise Untranslated(f"Gateway {self.ingress.name} has no path but the services' own.")

    def _paths(self) -> Iterator[str]:
        for routes in self.ingress.virtual_hosts.values():
            for route in routes:
                yield str(route["match"].get("prefix", "/"))


def build_mesh(
    manifests: list[Manifest],
    endpoints: Mapping[str, int],
    ingress_port: int,
    choose_port: Callable[[], int],
    mirror_host_suffix: bool = False,
) -> Mesh:
    """The mesh of rendered objects.

    `endpoints` gives the local port of each KServe Service host; `choose_port` is asked for the
    ports of all gateways but the ingress. Untranslated names a host or gateway that exists nowhere.
    """
    _check_kinds(manifests)
    services = inference_services(manifests)
    routes = virtual_services(manifests, mirror_host_suffix)
    servers = _servers(manifests)
    gateways = {item.gateway: Gateway(item.gateway, choose_port(), item.hosts) for item in servers}
    ports: dict[Address, int] = {}
    if any(service.mode == "knative" for service in services):
        gateways[KNATIVE_GATEWAY] = Gateway(KNATIVE_GATEWAY, choose_port())
        ports[KNATIVE_SERVICE] = gateways[KNATIVE_GATEWAY].port
    for service in services:
        if service.mode == "knative":
            _knative_routes(service, endpoints, gateways[KNATIVE_GATEWAY], ports)
        else:
            for host in (service.host("transformer"), service.host("predictor")):
                ports[host, 80] = endpoints[host]
    listening = {(item.pods, item.number): gateways[item.gateway].port for item in servers}
    for address, target in _service_ports(manifests):
        if target in listening:
            ports[address] = listening[target]
    ingress = _ingress(routes, gateways, ingress_port)
    for item in routes:
        _check_destinations(item, ports)
        _attach(item, gateways | {ingress.name: ingress})
    rules = destination_rules(manifests)
    for host in rules.keys() - {host for host, _ in ports}:
        raise Untranslated(f"DestinationRule: host {host} is not a Service of this deployment.")
    others = tuple(gateways.values())
    return Mesh(ingress, others, ports, rules, tuple(denials(manifests)), tuple(services))


def _check_kinds(manifests: Iterable[Manifest]) -> None:
    for item in manifests:
        if item.get("kind") not in TRANSLATED | NOT_RUN:
            raise Untranslated(
                f"{item.get('kind')} {item['metadata']['name']}: the local runner does not "
                "translate objects of this kind."
            )


@dataclass(frozen=True)
class _Server:
    """A port that a Gateway opens on some pods, for the hosts that it admits."""

    gateway: str
    pods: Pods
    number: int
    hosts: tuple[str, ...]


def _servers(manifests: Iterable[Manifest]) -> list[_Server]:
    """The port of each rendered Gateway."""
    found = []
    for item in objects(manifests, "Gateway"):
        pods = _selected_pods(item.spec)
        servers = list(item.spec.sections("servers"))
        if len(servers) != 1:
            raise item.spec.refusal("servers", "one server is run for a Gateway")
        with servers[0] as server, server.section("port") as port:
            server.ignored_locally("name")
            port.ignored_locally("name")
            if port.text("protocol") not in ("HTTP", "HTTP2"):
                raise port.refusal("protocol", "the listeners here speak plain HTTP")
            hosts = tuple(host.rsplit("/", 1)[-1] for host in server.texts("hosts"))
            name = f"{item.namespace}/{item.name}"
            found.append(_Server(name, pods, port.integer("number"), hosts))
    return found


def _service_ports(manifests: Iterable[Manifest]) -> Iterator[tuple[Address, tuple[Pods, int]]]:
    """The ports of the rendered Services, and the pods' port behind each."""
    for item in objects(manifests, "Service"):
        if item.spec.text("type", "ClusterIP") != "ClusterIP":
            raise item.spec.refusal("type", "only ClusterIP has a meaning here")
        pods = _selected_pods(item.spec)
        for section in item.spec.sections("ports"):
            with section as port:
                port.ignored_locally("name")
                number = port.integer("port")
                yield (item.host(item.name), number), (pods, port.integer("targetPort", number))


def _selected_pods(spec: Section) -> Pods:
    return tuple(sorted(spec.table("selector").items()))


def _knative_routes(
    service: InferenceService,
    endpoints: Mapping[str, int],
    gateway: Gateway,
    ports: dict[Address, int],
) -> None:
    """What Knative itself configures: its gateway finds a component by the Host alone."""
    host = service.host("transformer")
    ports[f"{host}.revision", 80] = endpoints[host]
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


def _check_destinations(item: VirtualService, ports: Mapping[Address, int]) -> None:
    for host, number in item.destinations:
        if (host, number) not in ports:
            known = ", ".join(f"{h}:{p}" for h, p in sorted(ports))
            raise Untranslated(
                f"VirtualService {item.name}: destination {host} port {number} is not a Service "
                f"of this deployment; there are {known}."
            )


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
