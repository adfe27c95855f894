"""VirtualServices as the Envoy routes that Istio makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from shadow_local.destinations import full_host
from shadow_local.document import Section, document
from shadow_local.headers import header_changes
from shadow_local.matches import route_matches
from shadow_local.retries import retry_policy


@dataclass(frozen=True)
class VirtualService:
    """Where calls for `hosts` that enter through `gateways` go."""

    name: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    routes: tuple[dict[str, Any], ...]
    destinations: frozenset[tuple[str, int]]

    @property
    def mirrors(self) -> bool:
        """Does any of its routes send a copy elsewhere?"""
        return any("request_mirror_policies" in route.get("route", {}) for route in self.routes)


def virtual_services(
    manifests: Iterable[dict[str, Any]], mirror_host_suffix: bool = False
) -> list[VirtualService]:
    """The VirtualServices among rendered objects, in their order.

    `mirror_host_suffix` appends `-shadow` to the Host of mirrored copies, as Istio did by default
    before 1.28.
    """
    wanted = (item for item in manifests if item.get("kind") == "VirtualService")
    return [_Reader(item, mirror_host_suffix).read() for item in wanted]


def cluster_name(host: str, port: int) -> str:
    """A destination's name in Envoy, as Istio writes it."""
    return f"outbound|{port}||{host}"


class _Reader:
    """Reads one VirtualService, gathering the destinations on the way."""

    def __init__(self, manifest: dict[str, Any], mirror_host_suffix: bool) -> None:
        self.manifest = manifest
        self.mirror_host_suffix = mirror_host_suffix
        self.namespace = ""
        self.destinations: set[tuple[str, int]] = set()

    def read(self) -> VirtualService:
        with document(self.manifest) as top, top.section("metadata") as metadata:
            top.has_no_effect_here("apiVersion", "kind")
            metadata.has_no_effect_here("labels", "annotations")
            name = metadata.text("name")
            self.namespace = metadata.text("namespace")
            with top.section("spec") as spec:
                if not set(spec.texts("exportTo")) <= {".", "*"}:
                    raise spec.refusal("exportTo", "only '.' and '*' are known")
                gateways = [self._gateway(item) for item in spec.texts("gateways")]
                if not gateways:
                    raise spec.refusal("gateways", "there are no sidecars here, only gateways")
                routes = [r for section in spec.sections("http") for r in self._route(section)]
                return VirtualService(
                    name=name,
                    hosts=tuple(spec.texts("hosts")),
                    gateways=tuple(gateways),
                    routes=tuple(routes),
                    destinations=frozenset(self.destinations),
                )

    def _gateway(self, name: str) -> str:
        return name if "/" in name else f"{self.namespace}/{name}"

    def _route(self, section: Section) -> Iterator[dict[str, Any]]:
        """One Envoy route for each match of an HTTP route."""
        with section as http:
            http.has_no_effect_here("name")
            matches = [m for item in http.sections("match") for m in route_matches(item)]
            route = header_changes(http.section("headers"))
            if http.has("directResponse"):
                route["direct_response"] = _direct_response(http.section("directResponse"))
            else:
                route["route"] = self._action(http, route)
        for match in matches or [{"prefix": "/"}]:
            yield {"match": match, **route}

    def _action(self, http: Section, route: dict[str, Any]) -> dict[str, Any]:
        action: dict[str, Any] = {"timeout": http.duration("timeout", "0s")}
        action |= _rewrite(http.section("rewrite"))
        if host := route.pop("host_rewrite_literal", None):
            action["host_rewrite_literal"] = host
        if (retries := retry_policy(http)) is not None:
            action["retry_policy"] = retries
        action |= self._targets(http, route)
        if copies := list(self._mirrors(http)):
            action["request_mirror_policies"] = copies
        return action

    def _targets(self, http: Section, route: dict[str, Any]) -> dict[str, Any]:
        targets: list[dict[str, Any]] = []
        for section in http.sections("route"):
            with section as target:
                cluster = self._destination(target.section("destination"))
                headers = header_changes(target.section("headers"))
                weight = target.whole("weight", 0)
                targets.append({"name": cluster, "weight": weight, **headers})
        if not targets:
            raise http.refusal("route", "a destination is needed")
        if len(targets) > 1:
            # Istio leaves destinations of no weight out.
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
            host = full_host(destination.text("host"), self.namespace)
            number = port.whole("number", 80)
        self.destinations.add((host, number))
        return cluster_name(host, number)


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
                found["regex_rewrite"] = {
                    "pattern": pattern,
                    "substitution": regex.text("rewrite"),
                }
    return found


def _direct_response(section: Section) -> dict[str, Any]:
    with section as response:
        found: dict[str, Any] = {"status": response.whole("status")}
        with response.section("body") as body:
            if body.has("string"):
                found["body"] = {"inline_string": body.text("string")}
    return found
