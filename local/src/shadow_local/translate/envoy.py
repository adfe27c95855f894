"""Envoy's static configuration for a mesh, with the settings of Istio's gateways."""

from __future__ import annotations

from typing import Any

from shadow_local.translate.document import Untranslated
from shadow_local.translate.gateways import EDGE_BUFFER
from shadow_local.translate.mesh import Gateway, Mesh, Upstream
from shadow_local.translate.policies import HTTP_OPTIONS, default_cluster
from shadow_local.translate.routes import Route, cluster_name

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
NETWORK = "type.googleapis.com/envoy.extensions.filters.network"
# What Istio's agent sets; an expression may compile to 100 instructions in Envoy otherwise.
RUNTIME = {"re2.max_program_size.error_level": 32768}
OWN_NAMES = ("127.0.0.1", "localhost")
# The windows of Istio's connectionSettings.profile: EDGE.
EDGE_HTTP2 = {"initial_stream_window_size": 65_536, "initial_connection_window_size": 1_048_576}
MANAGER = "http_connection_manager.v3.HttpConnectionManager"


def bootstrap(
    mesh: Mesh, admin_port: int, api_key: str | None = None, edge: bool = False
) -> dict[str, Any]:
    """A configuration file's content; with `api_key` the ingress demands it in `x-api-key`.

    `edge` gives the listeners the small buffers of Istio's connection profile EDGE.
    """
    refusals = [_without_key(api_key)] if api_key else []
    listeners = [_listener(mesh.ingress, _domains(mesh.ingress), refusals, edge)]
    for gateway in mesh.others:
        domains = {host: [host] for host in gateway.virtual_hosts}
        listeners.append(_listener(gateway, domains, [], edge))
    clusters = [
        _cluster(cluster_name(host, number), upstream, mesh.rules.get(host))
        for (host, number), upstream in mesh.upstreams.items()
    ]
    return {
        "node": {"id": "shadow-local", "cluster": "shadow-local"},
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "layered_runtime": {"layers": [{"name": "istio", "static_layer": RUNTIME}]},
    }


def _domains(ingress: Gateway) -> dict[str, list[str]]:
    """The Hosts of each virtual host. Callers on this machine name no domain, so its own names
    stand for the one domain that the gateway serves; any other Host is unknown, as on a cluster."""
    if len(ingress.virtual_hosts) != 1:
        raise Untranslated(
            f"Gateway {ingress.name} serves {sorted(ingress.virtual_hosts)}; "
            "on one machine it can be only one domain."
        )
    (domain,) = ingress.virtual_hosts
    return {domain: [domain] if domain == "*" else [domain, *OWN_NAMES]}


def _listener(
    gateway: Gateway,
    domains: dict[str, list[str]],
    refusals: list[Route],
    edge: bool,
) -> dict[str, Any]:
    router = _typed("envoy.filters.http.router", f"{HTTP}.router.v3.Router")
    manager = {
        "stat_prefix": gateway.name,
        # What Istio sets for a gateway. use_remote_address makes Envoy mint x-request-id anew at
        # each hop, which is why the pair id is a header of its own.
        "use_remote_address": True,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "stream_idle_timeout": "0s",
        "server_name": "istio-envoy",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "tracing": {"client_sampling": {"value": 100}, "random_sampling": {"value": 1}},
        "route_config": {
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [
                {
                    "name": host,
                    "domains": domains[host],
                    "routes": [*refusals, *routes],
                    "include_request_attempt_count": True,
                }
                for host, routes in gateway.virtual_hosts.items()
            ],
        },
        "http_filters": [router],
    }
    if edge:
        manager["http2_protocol_options"] = EDGE_HTTP2
    filter_chain = {"filters": [_typed(f"{MANAGER}", f"{NETWORK}.{MANAGER}", **manager)]}
    return {
        "name": gateway.name,
        "address": _address(gateway.port),
        "filter_chains": [filter_chain],
    } | ({"per_connection_buffer_limit_bytes": EDGE_BUFFER} if edge else {})


def _without_key(api_key: str) -> Route:
    """403 for what does not carry the key, as the option api-key does it on a cluster."""
    key = {"name": "x-api-key", "string_match": {"exact": api_key}}
    unlike = key | {"invert_match": True, "treat_missing_header_as_empty": True}
    return {"match": {"prefix": "/", "headers": [unlike]}, "direct_response": {"status": 403}}


def _cluster(name: str, upstream: Upstream, rule: dict[str, Any] | None) -> dict[str, Any]:
    cluster = (rule or default_cluster()) | {"name": name, "type": "STATIC"}
    if upstream.http2:
        options = dict(cluster.get("typed_extension_protocol_options", {}).get(HTTP_OPTIONS, {}))
        options["@type"] = f"type.googleapis.com/{HTTP_OPTIONS}"
        options["explicit_http_config"] = {"http2_protocol_options": {}}
        cluster["typed_extension_protocol_options"] = {HTTP_OPTIONS: options}
    endpoints = [{"endpoint": {"address": _address(port)}} for port in upstream.ports]
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return cluster | {"load_assignment": load}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": kind, **fields}}
