"""DestinationRules as the settings of Envoy's clusters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shadow_local.translate.document import Manifest, Section, objects

# Istio lifts Envoy's own limits (1,024 connections and so on) unless a rule sets them.
NO_LIMIT = 4_294_967_295
LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
CONNECT_TIMEOUT = "10s"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def destination_rules(manifests: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
    """For each host with a DestinationRule, the Envoy cluster fields that it sets."""
    rules: dict[str, dict[str, Any]] = {}
    for item in objects(manifests, "DestinationRule"):
        item.check_export()
        host = item.host(item.spec.text("host"))
        if host in rules:
            raise item.spec.refusal("host", "a second DestinationRule would be ignored by Istio")
        rules[host] = _traffic_policy(item.spec.section("trafficPolicy"))
    return rules


def default_cluster() -> dict[str, Any]:
    """The cluster fields of a host without a rule."""
    limits = dict.fromkeys(LIMITS, NO_LIMIT)
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits | {"track_remaining": True}]},
    }


def _traffic_policy(section: Section) -> dict[str, Any]:
    cluster = default_cluster()
    limits = cluster["circuit_breakers"]["thresholds"][0]
    with section as policy:
        with policy.section("connectionPool") as pool:
            with pool.section("tcp") as tcp:
                limits["max_connections"] = tcp.integer("maxConnections", NO_LIMIT)
                cluster["connect_timeout"] = tcp.duration("connectTimeout", CONNECT_TIMEOUT)
            with pool.section("http") as http:
                limits["max_pending_requests"] = http.integer("http1MaxPendingRequests", NO_LIMIT)
                limits["max_requests"] = http.integer("http2MaxRequests", NO_LIMIT)
                limits["max_retries"] = http.integer("maxRetries", NO_LIMIT)
                if limits["max_retries"] == 0:
                    raise http.refusal(
                        "maxRetries", "Istio ignores 0; set attempts: 0 on the routes"
                    )
                cluster |= _connection_options(http)
        with policy.section("loadBalancer") as balancer:
            # Which of a host's pods gets a call changes nothing here.
            balancer.ignored_locally("simple")
        with policy.section("outlierDetection") as outliers:
            cluster |= _outlier_detection(outliers)
        with policy.section("tls") as tls:
            if tls.text("mode", "DISABLE") not in ("DISABLE", "ISTIO_MUTUAL"):
                raise tls.refusal("mode", "the processes here speak plain HTTP")
    return cluster


def _connection_options(http: Section) -> dict[str, Any]:
    common: dict[str, Any] = {}
    if http.has("idleTimeout"):
        common["idle_timeout"] = http.duration("idleTimeout")
    if requests := http.integer("maxRequestsPerConnection", 0):
        common["max_requests_per_connection"] = requests
    if not common:
        return {}
    options = {
        "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
        "common_http_protocol_options": common,
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {"typed_extension_protocol_options": {HTTP_OPTIONS: options}}


def _outlier_detection(outliers: Section) -> dict[str, Any]:
    if not outliers.fields:
        return {}
    found: dict[str, Any] = {"enforcing_success_rate": 0}
    for name, envoy in (
        ("consecutive5xxErrors", "consecutive_5xx"),
        ("consecutiveGatewayErrors", "consecutive_gateway_failure"),
    ):
        if outliers.has(name):
            found[envoy] = outliers.integer(name)
            found[f"enforcing_{envoy}"] = 100 if found[envoy] else 0
    for name, envoy in (("interval", "interval"), ("baseEjectionTime", "base_ejection_time")):
        if outliers.has(name):
            found[envoy] = outliers.duration(name)
    if outliers.has("maxEjectionPercent"):
        found["max_ejection_percent"] = outliers.integer("maxEjectionPercent")
    return {"outlier_detection": found}
