"""DestinationRules and AuthorizationPolicies as the cluster settings and filters of Envoy."""

from __future__ import annotations

import re
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


def denials(manifests: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Envoy's RBAC rules of the AuthorizationPolicies; each is for the gateways' pods."""
    found = []
    for item in objects(manifests, "AuthorizationPolicy"):
        if item.spec.text("action", "ALLOW") != "DENY":
            raise item.spec.refusal("action", "only DENY is translated")
        with item.spec.section("selector") as selector:
            # All gateways here stand for those pods; the models have no sidecars.
            selector.ignored_locally("matchLabels")
        rules = [_rule(section) for section in item.spec.sections("rules")]
        policies = {f"{item.name}-{number}": rule for number, rule in enumerate(rules)}
        found.append({"action": "DENY", "policies": policies})
    return found


def _rule(section: Section) -> dict[str, Any]:
    with section as rule:
        operations = [p for item in rule.sections("to") for p in _operation(item)]
        conditions = [_condition(item) for item in rule.sections("when")]
    permissions = operations or [{"any": True}]
    principals = [{"and_ids": {"ids": conditions or [{"any": True}]}}]
    return {"permissions": permissions, "principals": principals}


def _operation(section: Section) -> list[dict[str, Any]]:
    with section as to, to.section("operation") as operation:
        # The pods' ports; each gateway here has one of its own. See cluster.py.
        operation.ignored_locally("ports")
        paths = operation.texts("paths")
        return [{"url_path": {"path": _matcher(path)}} for path in paths]


def _condition(section: Section) -> dict[str, Any]:
    with section as when:
        header = re.fullmatch(r"request\.headers\[(.+)\]", when.text("key"))
        if header is None:
            raise when.refusal("key", "only request.headers[…] is translated")
        wanted, unwanted = (
            [
                {"header": {"name": header[1], "string_match": _matcher(value)}}
                for value in when.texts(name)
            ]
            for name in ("values", "notValues")
        )
    if bool(wanted) == bool(unwanted):
        raise when.refusal("values", "either values or notValues is needed")
    if wanted:
        return {"or_ids": {"ids": wanted}}
    return {"not_id": {"or_ids": {"ids": unwanted}}}


def _matcher(value: str) -> dict[str, Any]:
    """Istio's notation: a star at either end."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    return {"exact": value}
