"""Envoy's static configuration for a mesh, with the settings of Istio's gateways."""

from __future__ import annotations

from typing import Any

from shadow_local.translate.document import Untranslated
from shadow_local.translate.mesh import Gateway, Mesh
from shadow_local.translate.policies import default_cluster
from shadow_local.translate.routes import cluster_name

HTTP = "type.googleapis.com/envoy.extensions.filters.http"
NETWORK = "type.googleapis.com/envoy.extensions.filters.network"
MANAGER = "http_connection_manager.v3.HttpConnectionManager"


def bootstrap(mesh: Mesh, admin_port: int, api_key: str | None = None) -> dict[str, Any]:
    """A configuration file's content; with `api_key` the ingress demands it in `x-api-key`."""
    filters = [_rbac(rules) for rules in mesh.denials]
    demands = [_rbac(_demand_key(api_key))] if api_key else []
    listeners = [_listener(mesh.ingress, _with_any_host(mesh.ingress), demands + filters)]
    listeners += [_listener(gateway, gateway.virtual_hosts, filters) for gateway in mesh.others]
    clusters = [
        _cluster(host, number, port, mesh.rules.get(host))
        for (host, number), port in mesh.ports.items()
    ]
    return {
        "node": {"id": "shadow-local", "cluster": "shadow-local"},
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def _with_any_host(ingress: Gateway) -> dict[str, list[dict[str, Any]]]:
    """Callers on this machine name no domain, so the gateway's one domain stands for any."""
    if len(ingress.virtual_hosts) != 1:
        raise Untranslated(
            f"Gateway {ingress.name} serves {sorted(ingress.virtual_hosts)}; "
            "on one machine it can be only one domain."
        )
    return {"*": next(iter(ingress.virtual_hosts.values()))}


def _listener(
    gateway: Gateway,
    virtual_hosts: dict[str, list[dict[str, Any]]],
    filters: list[dict[str, Any]],
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
                    "domains": [host],
                    "routes": routes,
                    "include_request_attempt_count": True,
                }
                for host, routes in virtual_hosts.items()
            ],
        },
        "http_filters": [*filters, router],
    }
    filter_chain = {"filters": [_typed(f"{MANAGER}", f"{NETWORK}.{MANAGER}", **manager)]}
    return {
        "name": gateway.name,
        "address": _address(gateway.port),
        "filter_chains": [filter_chain],
    }


def _demand_key(api_key: str) -> dict[str, Any]:
    """Refuse with 403 what does not carry the key, as the option api-key does on a cluster."""
    header = {"name": "x-api-key", "string_match": {"exact": api_key}}
    caller = {"permissions": [{"any": True}], "principals": [{"header": header}]}
    return {"action": "ALLOW", "policies": {"api-key": caller}}


def _rbac(rules: dict[str, Any]) -> dict[str, Any]:
    return _typed("envoy.filters.http.rbac", f"{HTTP}.rbac.v3.RBAC", rules=rules)


def _cluster(host: str, number: int, port: int, rule: dict[str, Any] | None) -> dict[str, Any]:
    name = cluster_name(host, number)
    endpoint = {"endpoint": {"address": _address(port)}}
    return (rule or default_cluster()) | {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": kind, **fields}}
