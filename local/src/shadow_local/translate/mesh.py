"""Who listens where: gateways and Services of the cluster, as ports of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from shadow_local.translate.document import (
    NOT_TRANSLATED,
    Manifest,
    Section,
    Untranslated,
    objects,
)
from shadow_local.translate.gateway_api import gateway_api_routes
from shadow_local.translate.policies import destination_rules
from shadow_local.translate.routes import (
    SERVING_PATH,
    Route,
    VirtualService,
    cluster_name,
    fixed_path,
    is_entry,
    virtual_services,
)
from shadow_local.translate.services import InferenceService, Kind, Ports, inference_services

TRANSLATED = {"Deployment", "DestinationRule", "Gateway", "GRPCRoute", "HTTPRoute"}
TRANSLATED |= {"InferenceService", "Service", "ServingRuntime", "VirtualService"}
# Objects off the calls' path: what runs by the clock, watches, fences pods off, or keeps files,
# and what a folder on top brings besides: budgets, scalers, keys, rights, the namespace.
NOT_RUN = {"ConfigMap", "CronJob", "NetworkPolicy", "PersistentVolumeClaim", "PodMonitor"}
NOT_RUN |= {"PrometheusRule", "ServiceAccount"}
NOT_RUN |= {"ExternalSecret", "HorizontalPodAutoscaler", "LimitRange", "Namespace"}
NOT_RUN |= {"PodDisruptionBudget", "ResourceQuota", "Role", "RoleBinding", "ScaledObject"}
NOT_RUN |= {"SealedSecret", "Secret", "SecretStore", "ServiceMonitor"}
# Knative's own gateway for calls inside the cluster, and the Service in front of it.
KNATIVE_GATEWAY = "knative-serving/knative-local-gateway"
KNATIVE_SERVICE = ("knative-local-gateway.istio-system.svc.cluster.local", 80)
KINDS: tuple[Kind, ...] = ("predictor", "transformer")
HTTP2_PROTOCOLS = ("grpc", "http2", "kubernetes.io/h2c")

Address = tuple[str, int]  # a Service's host and port
Pods = tuple[tuple[str, str], ...]  # the labels that select them
PodPorts = Mapping[tuple[str, Kind], Sequence[Ports]]  # of each pod of a service's component


@dataclass(frozen=True)
class Gateway:
    """A gateway's listener on this machine; `hosts` is what it admits."""

    name: str  # namespace/name
    port: int
    hosts: tuple[str, ...] = ("*",)
    virtual_hosts: dict[str, list[Route]] = field(default_factory=dict)


@dataclass(frozen=True)
class Upstream:
    """What is behind a port of a Service: local ports, one for each pod, and how to speak there."""

    ports: tuple[int, ...]
    http2: bool = False


@dataclass(frozen=True)
class Mesh:
    """All that Envoy has to do: listeners with their routes, and the addresses behind them."""

    ingress: Gateway
    others: tuple[Gateway, ...]
    upstreams: Mapping[Address, Upstream]
    rules: Mapping[str, dict[str, Any]]
    services: tuple[InferenceService, ...]

    @property
    def entry_path(self) -> str:
        """The path that callers use; it ends with a slash."""
        if paths := [fixed_path(route) for route in self._entries(grpc=False)]:
            # One for a part of the calls begins with more than all of them do.
            return min(paths, key=len)
        raise Untranslated(
            f"Gateway {self.ingress.name} has no route that sets a pair id, and none with a path "
            "of its own for all callers."
        )

    @property
    def direct_paths(self) -> dict[str, str]:
        """For each role the path that leads to its InferenceService alone, where there is one."""
        roles = {service.name: service.role for service in self.services}
        paths = [fixed_path(r) for r in self._routes(grpc=False) if not is_entry(r)]
        names = {path: _last(path) for path in paths}
        return {roles[name]: path for path, name in names.items() if name in roles}

    @property
    def serving_path(self) -> str | None:
        """What a gRPC caller sends as `x-serving-path`; None where there is no way for gRPC."""
        for route in self._entries(grpc=True):
            return _serving_path(route)
        return None

    @property
    def copied_to(self) -> list[str]:
        """Envoy's names of what the ingress sends copies to."""
        routes = [route for grpc in (False, True) for route in self._routes(grpc)]
        copies = [c for route in routes for c in route["route"].get("request_mirror_policies", ())]
        return sorted({str(copy["cluster"]) for copy in copies})

    def _entries(self, grpc: bool) -> list[Route]:
        """The routes that pair; where nothing is mirrored, those that no model has for itself."""
        routes = list(self._routes(grpc))
        names = {service.name for service in self.services}
        path_of = _serving_path if grpc else fixed_path
        return [r for r in routes if is_entry(r)] or [
            r for r in routes if _last(path_of(r)) not in names
        ]

    def _routes(self, grpc: bool) -> Iterator[Route]:
        """The ingress' routes to models, either for gRPC or for REST."""
        for routes in self.ingress.virtual_hosts.values():
            for route in routes:
                names = {header["name"] for header in route["match"].get("headers", ())}
                if "route" in route and (SERVING_PATH in names) == grpc:
                    yield route


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _serving_path(route: Route) -> str:
    headers = {header["name"]: header for header in route["match"]["headers"]}
    return str(headers[SERVING_PATH]["string_match"]["exact"])


def build_mesh(
    manifests: list[Manifest],
    pods: PodPorts,
    ingress_port: int,
    choose_port: Callable[[], int],
    mirror_host_suffix: bool = False,
) -> Mesh:
    """The mesh of rendered objects.

    `pods` gives the local ports of each component's pods; `choose_port` is asked for the ports of
    all gateways but the ingress. Untranslated names a host or gateway that exists nowhere.
    """
    _check_kinds(manifests)
    services = inference_services(manifests)
    routes = virtual_services(manifests, mirror_host_suffix) + gateway_api_routes(manifests)
    servers = _servers(manifests)
    gateways = {item.gateway: Gateway(item.gateway, choose_port(), item.hosts) for item in servers}
    upstreams: dict[Address, Upstream] = {}
    if any(service.mode == "knative" for service in services):
        gateways[KNATIVE_GATEWAY] = Gateway(KNATIVE_GATEWAY, choose_port())
        upstreams[KNATIVE_SERVICE] = Upstream((gateways[KNATIVE_GATEWAY].port,))
    for service in services:
        if service.mode == "knative":
            _knative_routes(service, pods, gateways[KNATIVE_GATEWAY], upstreams)
        else:
            for kind in KINDS:
                http = tuple(ports.http for ports in pods[service.name, kind])
                upstreams[service.host(kind), 80] = Upstream(http)
    listening = {(item.pods, item.number): gateways[item.gateway].port for item in servers}
    for port in _service_ports(manifests):
        gateway = listening.get((port.pods, port.target))
        behind = (gateway,) if gateway else tuple(_pod_ports(port, services, pods))
        if behind:
            upstreams[port.address] = Upstream(behind, port.http2)
    ingress = _ingress(routes, gateways, ingress_port)
    for item in routes:
        _check_destinations(item, upstreams)
        _attach(item, gateways | {ingress.name: ingress})
    rules = destination_rules(manifests)
    for host in rules.keys() - {host for host, _ in upstreams}:
        raise Untranslated(f"DestinationRule: host {host} is not a Service of this deployment.")
    others = tuple(gateways.values())
    return Mesh(ingress, others, upstreams, rules, tuple(services))


def _check_kinds(manifests: Iterable[Manifest]) -> None:
    for item in manifests:
        if item.get("kind") not in TRANSLATED | NOT_RUN:
            raise Untranslated(f"{item.get('kind')} {item['metadata']['name']}: {NOT_TRANSLATED}.")


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


@dataclass(frozen=True)
class _ServicePort:
    """A port of a Service, and the pods' port behind it."""

    address: Address
    pods: Pods
    target: int
    http2: bool


def _service_ports(manifests: Iterable[Manifest]) -> Iterator[_ServicePort]:
    for item in objects(manifests, "Service"):
        if item.spec.text("type", "ClusterIP") != "ClusterIP":
            raise item.spec.refusal("type", "only ClusterIP has a meaning here")
        pods = _selected_pods(item.spec)
        for section in item.spec.sections("ports"):
            with section as port:
                if port.text("protocol", "TCP") != "TCP":
                    raise port.refusal("protocol", "only TCP is served")
                # Istio's rule: appProtocol, else what stands before a hyphen in the name.
                protocol = port.text("appProtocol", port.text("name", "").split("-")[0])
                number = port.integer("port")
                target = port.integer("targetPort", number)
                address = (item.host(item.name), number)
                yield _ServicePort(address, pods, target, protocol in HTTP2_PROTOCOLS)


def _pod_ports(
    port: _ServicePort, services: Iterable[InferenceService], pods: PodPorts
) -> Iterator[int]:
    """The local ports of the models' pods that a Service's port leads to."""
    for service in services:
        for kind in KINDS:
            if set(port.pods) <= service.labels(kind).items():
                for ports in pods[service.name, kind]:
                    behind = ports.behind(port.target)
                    if behind is None:
                        raise Untranslated(
                            f"Service {port.address[0]}: nothing listens on targetPort "
                            f"{port.target} of {service.name}'s {kind}."
                        )
                    yield behind


def _selected_pods(spec: Section) -> Pods:
    return tuple(sorted(spec.table("selector").items()))


def _knative_routes(
    service: InferenceService,
    pods: PodPorts,
    gateway: Gateway,
    upstreams: dict[Address, Upstream],
) -> None:
    """What Knative itself configures: its gateway finds a component by the Host alone."""
    host = service.host("transformer")
    http = tuple(ports.http for ports in pods[service.name, "transformer"])
    upstreams[f"{host}.revision", 80] = Upstream(http)
    target = {"cluster": cluster_name(f"{host}.revision", 80), "timeout": "0s"}
    gateway.virtual_hosts[host] = [{"match": {"prefix": "/"}, "route": target}]


def _ingress(
    routes: Iterable[VirtualService], gateways: Mapping[str, Gateway], port: int
) -> Gateway:
    """The gateway that exists on every cluster and is therefore not among the manifests."""
    names = {name for item in routes for name in item.gateways} - gateways.keys()
    if len(names) != 1:
        raise Untranslated(
            f"The routes name {sorted(names) or 'no'} gateways that are not rendered; "
            "one is needed, the one that callers come through."
        )
    return Gateway(names.pop(), port)


def _check_destinations(item: VirtualService, upstreams: Mapping[Address, Upstream]) -> None:
    for host, number in item.destinations:
        if (host, number) not in upstreams:
            known = ", ".join(f"{h}:{p}" for h, p in sorted(upstreams))
            raise Untranslated(
                f"{item.name}: destination {host} port {number} is not a Service "
                f"of this deployment; there are {known}."
            )


def _attach(item: VirtualService, gateways: Mapping[str, Gateway]) -> None:
    """Add a VirtualService's routes to its gateways, as Istio does: catch-all routes last."""
    for name in item.gateways:
        gateway = gateways[name]
        for host in item.hosts:
            if not any(fnmatch(host, admitted) for admitted in gateway.hosts):
                raise Untranslated(
                    f"{item.name}: host {host} is not admitted by Gateway {name}, "
                    f"which serves {', '.join(gateway.hosts)}; Istio would drop it silently."
                )
            routes = gateway.virtual_hosts.setdefault(host, [])
            routes += item.routes
            routes.sort(key=lambda route: route["match"] == {"prefix": "/"})
