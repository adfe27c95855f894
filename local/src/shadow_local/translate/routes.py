"""VirtualServices as the Envoy routes that Istio makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from shadow_local.translate.document import Manifest, Object, Section, fields, objects, of_kind

Route = dict[str, Any]
PAIR_ID = "x-shadow-pair-id"
API_KEY = "x-api-key"
SERVING_PATH = "x-serving-path"  # names the deployment to the gateway where the path cannot: gRPC

# What Istio does unless a route says otherwise.
DEFAULT_RETRIES = {
    "num_retries": 2,
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "retriable_status_codes": [503],
    "host_selection_retry_max_attempts": 5,
}


@dataclass(frozen=True)
class VirtualService:
    """Where calls for `hosts` that enter through `gateways` go."""

    name: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    routes: tuple[Route, ...]
    destinations: frozenset[tuple[str, int]]


def virtual_services(
    manifests: Iterable[Manifest], mirror_host_suffix: bool = False
) -> list[VirtualService]:
    """The VirtualServices among rendered objects, in their order.

    `mirror_host_suffix` appends `-shadow` to the Host of mirrored copies, as Istio did by default
    before 1.28.
    """
    return [
        _Reader(item, mirror_host_suffix).read() for item in objects(manifests, "VirtualService")
    ]


def mirror_percentage(manifests: Iterable[Manifest]) -> float | None:
    """The share of the calls that is copied, above 0 to 100; None when nothing is."""
    for service in virtual_services(manifests):
        for route in service.routes:
            for copy in route.get("route", {}).get("request_mirror_policies", ()):
                share = copy["runtime_fraction"]["default_value"]["numerator"]
                return float(share / 10_000)
    return None


def demanded_key(manifests: Iterable[Manifest]) -> str | None:
    """The x-api-key without which the routes refuse calls; None where they ask for none."""
    for item in of_kind(manifests, "VirtualService"):
        for name, without in fields(item["spec"]):
            if name == "withoutHeaders" and API_KEY in without:
                return str(without[API_KEY]["exact"])
    return None


def is_entry(route: Route) -> bool:
    """Does a route pair what it takes: does the gateway give both copies its pair id?"""
    added = route.get("request_headers_to_add", ())
    return any(change["header"]["key"] == PAIR_ID for change in added)


def fixed_path(route: Route) -> str:
    """The path that all calls of a route begin with, up to its last slash.

    Where a prefix is rewritten, the one before what the model sees.
    """
    match, rewritten = route["match"], route["route"].get("prefix_rewrite", "")
    if path := match.get("path_separated_prefix") or (rewritten and match.get("path")):
        return str(path.removesuffix(rewritten)) + "/"
    path = match.get("path") or match.get("prefix") or match["safe_regex"]["regex"]
    return str(re.split(r"[^\w/.-]|\.[*+?]", path)[0].rpartition("/")[0]) + "/"


def cluster_name(host: str, port: int) -> str:
    """A destination's name in Envoy, as Istio writes it."""
    return f"outbound|{port}||{host}"


class _Reader:
    """Reads one VirtualService, gathering the destinations on the way."""

    def __init__(self, item: Object, mirror_host_suffix: bool) -> None:
        self.item = item
        self.mirror_host_suffix = mirror_host_suffix
        self.destinations: set[tuple[str, int]] = set()

    def read(self) -> VirtualService:
        self.item.check_export()
        spec, namespace = self.item.spec, self.item.namespace
        gateways = [
            name if "/" in name else f"{namespace}/{name}" for name in spec.texts("gateways")
        ]
        if not gateways:
            raise spec.refusal("gateways", "there are no sidecars here, only gateways")
        routes = [route for section in spec.sections("http") for route in self._routes(section)]
        return VirtualService(
            name=self.item.name,
            hosts=tuple(spec.texts("hosts")),
            gateways=tuple(gateways),
            routes=tuple(routes),
            destinations=frozenset(self.destinations),
        )

    def _routes(self, section: Section) -> Iterator[Route]:
        """One Envoy route for each match of an HTTP route."""
        with section as http:
            http.ignored_locally("name")
            matches = [_match(item) for item in http.sections("match")]
            route = _header_changes(http.section("headers"))
            if http.has("directResponse"):
                route["direct_response"] = _direct_response(http.section("directResponse"))
            else:
                route["route"] = self._action(http, route)
        for match in matches or [{"prefix": "/"}]:
            yield {"match": match, **route}

    def _action(self, http: Section, route: Route) -> dict[str, Any]:
        action: dict[str, Any] = {"timeout": http.duration("timeout", "0s")}
        action |= _rewrite(http.section("rewrite"))
        if host := route.pop("host_rewrite_literal", None):
            action["host_rewrite_literal"] = host
        if (retries := _retry_policy(http)) is not None:
            action["retry_policy"] = retries
        action |= self._targets(http, route)
        if copies := list(self._mirrors(http)):
            action["request_mirror_policies"] = copies
        return action

    def _targets(self, http: Section, route: Route) -> dict[str, Any]:
        targets: list[dict[str, Any]] = []
        for section in http.sections("route"):
            with section as target:
                cluster = self._destination(target.section("destination"))
                headers = _header_changes(target.section("headers"))
                weight = target.integer("weight", 0)
                targets.append({"name": cluster, "weight": weight, **headers})
        if not targets:
            raise http.refusal("route", "a destination is needed")
        if len(targets) > 1:
            # Istio leaves destinations without a weight out.
            return {"weighted_clusters": {"clusters": [t for t in targets if t["weight"]]}}
        single = targets[0]
        action = {"cluster": single["name"]}
        # Of a single destination Istio merges the header changes into the route.
        for name, value in single.items():
            if name == "host_rewrite_literal":
                action[name] = value
            elif name not in ("name", "weight"):
                route[name] = route.get(name, []) + value
        return action

    def _mirrors(self, http: Section) -> Iterator[dict[str, Any]]:
        if http.has("mirror"):
            cluster = self._destination(http.section("mirror"))
            yield from self._copy(cluster, http.section("mirrorPercentage"))
        for section in http.sections("mirrors"):
            with section as mirror:
                cluster = self._destination(mirror.section("destination"))
                yield from self._copy(cluster, mirror.section("percentage"))

    def _copy(self, cluster: str, section: Section) -> Iterator[dict[str, Any]]:
        with section as percentage:
            percent = percentage.take("value", 100 if not percentage.fields else 0)
            if not isinstance(percent, int | float) or not 0 <= percent <= 100:
                raise percentage.refusal("value", "a number from 0 to 100 is needed")
        if percent > 0:
            share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
            yield {
                "cluster": cluster,
                "runtime_fraction": {"default_value": share},
                "trace_sampled": False,
                "disable_shadow_host_suffix_append": not self.mirror_host_suffix,
            }

    def _destination(self, section: Section) -> str:
        with section as destination, destination.section("port") as port:
            host = self.item.host(destination.text("host"))
            number = port.integer("number", 80)
        self.destinations.add((host, number))
        return cluster_name(host, number)


def _match(section: Section) -> dict[str, Any]:
    """The Envoy match of one block; its conditions must all hold."""
    with section as match:
        match.ignored_locally("name")
        found = _path_match(match.section("uri"))
        if match.take("ignoreUriCase", False):
            found["case_sensitive"] = False
        headers = []
        for pseudo, name in ((":method", "method"), (":authority", "authority")):
            if match.has(name):
                headers.append(_header_match(pseudo, match.section(name)))
        headers += _header_matches(match.section("headers"))
        for header in _header_matches(match.section("withoutHeaders")):
            header["invert_match"] = True
            if "present_match" not in header:
                # Istio's rule: a header that is not there does not have the value.
                header["treat_missing_header_as_empty"] = True
            headers.append(header)
        if headers:
            found["headers"] = headers
        return found


def _path_match(section: Section) -> dict[str, Any]:
    with section as uri:
        if uri.has("exact"):
            return {"path": uri.text("exact")}
        if uri.has("regex"):
            return {"safe_regex": {"regex": uri.text("regex")}}
        return {"prefix": uri.text("prefix", "/")}


def _header_matches(section: Section) -> list[dict[str, Any]]:
    with section as headers:
        return [
            _header_match(name.lower(), headers.section(name)) for name in sorted(headers.fields)
        ]


def _header_match(name: str, section: Section) -> dict[str, Any]:
    with section as wanted:
        for kind in ("exact", "prefix"):
            if wanted.has(kind):
                return {"name": name, "string_match": {kind: wanted.text(kind)}}
        if wanted.has("regex"):
            regex = wanted.text("regex")
            return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}
        return {"name": name, "present_match": True}


def _header_changes(section: Section) -> dict[str, Any]:
    """Envoy's header fields of a route; with `host_rewrite_literal` when Host is set."""
    found: dict[str, Any] = {}
    with section as headers:
        for side in ("request", "response"):
            with headers.section(side) as changes:
                added = []
                for name, value in sorted(changes.table("set").items()):
                    if name.lower() in ("host", ":authority"):
                        found["host_rewrite_literal"] = value
                    else:
                        added.append(_header_value(name, value, "OVERWRITE_IF_EXISTS_OR_ADD"))
                for name, value in sorted(changes.table("add").items()):
                    added.append(_header_value(name, value, "APPEND_IF_EXISTS_OR_ADD"))
                if added:
                    found[f"{side}_headers_to_add"] = added
                if removed := changes.texts("remove"):
                    found[f"{side}_headers_to_remove"] = removed
    return found


def _header_value(name: str, value: str, action: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": action}


def _retry_policy(http: Section) -> dict[str, Any] | None:
    """Istio retries twice unless a route says otherwise; None when it says 0 attempts."""
    if not http.has("retries"):
        return DEFAULT_RETRIES
    with http.section("retries") as retries:
        attempts = retries.integer("attempts", 0)
        policy = DEFAULT_RETRIES | {"num_retries": attempts}
        if retries.has("perTryTimeout"):
            policy["per_try_timeout"] = retries.duration("perTryTimeout")
        if retries.has("retryOn"):
            words = [word.strip() for word in retries.text("retryOn").split(",")]
            policy["retriable_status_codes"] = [int(word) for word in words if word.isdigit()]
            policy["retry_on"] = ",".join(word for word in words if not word.isdigit())
    return policy if attempts else None


def _rewrite(section: Section) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with section as rewrite:
        if rewrite.has("uri"):
            found["prefix_rewrite"] = rewrite.text("uri")
        if rewrite.has("authority"):
            found["host_rewrite_literal"] = rewrite.text("authority")
        if rewrite.has("uriRegexRewrite"):
            with rewrite.section("uriRegexRewrite") as regex:
                pattern = {"regex": regex.text("match")}
                substitution = regex.text("rewrite")
                found["regex_rewrite"] = {"pattern": pattern, "substitution": substitution}
    return found


def _direct_response(section: Section) -> dict[str, Any]:
    with section as response:
        found: dict[str, Any] = {"status": response.integer("status")}
        with response.section("body") as body:
            if body.has("string"):
                found["body"] = {"inline_string": body.text("string")}
    return found
