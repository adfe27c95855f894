"""The Gateway API's routes as the Envoy routes that a gateway makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shadow_local.translate.document import Manifest, Object, Section, objects
from shadow_local.translate.routes import Route, VirtualService, cluster_name


def gateway_api_routes(manifests: Iterable[Manifest]) -> list[VirtualService]:
    """The HTTPRoutes and GRPCRoutes among rendered objects, as what routes calls here."""
    manifests = list(manifests)
    return [
        _Reader(item, grpc=kind == "GRPCRoute").read()
        for kind in ("HTTPRoute", "GRPCRoute")
        for item in objects(manifests, kind)
    ]


class _Reader:
    """Reads one route, gathering the destinations on the way."""

    def __init__(self, item: Object, grpc: bool) -> None:
        self.item = item
        self.grpc = grpc
        self.destinations: set[tuple[str, int]] = set()

    def read(self) -> VirtualService:
        spec, namespace = self.item.spec, self.item.namespace
        gateways = []
        for section in spec.sections("parentRefs"):
            with section as parent:
                gateways.append(f"{parent.text('namespace', namespace)}/{parent.text('name')}")
        if not gateways:
            raise spec.refusal("parentRefs", "a gateway is needed")
        routes = [route for rule in spec.sections("rules") for route in self._routes(rule)]
        return VirtualService(
            name=self.item.name,
            hosts=tuple(spec.texts("hostnames") or ["*"]),
            gateways=tuple(gateways),
            # The API's rule: an exact path first, then the longest prefix.
            routes=tuple(sorted(routes, key=_precedence)),
            destinations=frozenset(self.destinations),
        )

    def _routes(self, section: Section) -> Iterator[Route]:
        """One Envoy route for each match of a rule."""
        with section as rule:
            matches = [self._match(match) for match in rule.sections("matches")]
            with rule.section("timeouts") as timeouts:
                action: Route = {"timeout": timeouts.duration("request", "0s")}
            route: Route = {}
            for item in rule.sections("filters"):
                _filter(item, route, action)
            backends = [self._backend(backend) for backend in rule.sections("backendRefs")]
            if len(backends) != 1:
                raise rule.refusal("backendRefs", "one backend is needed")
            action["cluster"] = backends[0]
        for match in matches:
            yield {"match": match, **route, "route": action}

    def _match(self, section: Section) -> Route:
        with section as match:
            found = _method(match.section("method")) if self.grpc else _path(match.section("path"))
            headers = [_header(header) for header in match.sections("headers")]
        return found | ({"headers": headers} if headers else {})

    def _backend(self, section: Section) -> str:
        with section as backend:
            host, number = self.item.host(backend.text("name")), backend.integer("port")
        self.destinations.add((host, number))
        return cluster_name(host, number)


def _path(section: Section) -> Route:
    with section as path:
        kind, value = path.text("type", "PathPrefix"), path.text("value", "/")
        if kind == "Exact":
            return {"path": value}
        if kind != "PathPrefix":
            raise path.refusal("type", "only Exact and PathPrefix mean the same to every gateway")
        # Whole elements: /a is a prefix of /a and /a/b, and not of /ab.
        return {"prefix": "/"} if value == "/" else {"path_separated_prefix": value.rstrip("/")}


def _method(section: Section) -> Route:
    with section as method:
        if method.text("type", "Exact") != "Exact":
            raise method.refusal("type", "only Exact means the same to every gateway")
        return {"path": f"/{method.text('service')}/{method.text('method')}"}


def _header(section: Section) -> Route:
    with section as header:
        if header.text("type", "Exact") != "Exact":
            raise header.refusal("type", "only Exact means the same to every gateway")
        exact = {"exact": header.text("value")}
        return {"name": header.text("name").lower(), "string_match": exact}


def _filter(section: Section, route: Route, action: Route) -> None:
    with section as item:
        match item.text("type"):
            case "RequestHeaderModifier":
                with item.section("requestHeaderModifier") as changes:
                    route["request_headers_to_remove"] = changes.texts("remove")
            case "URLRewrite":
                with item.section("urlRewrite") as rewrite, rewrite.section("path") as path:
                    if path.text("type") == "ReplaceFullPath":
                        # The match is exact, so its whole path is the prefix.
                        action["prefix_rewrite"] = path.text("replaceFullPath")
                    else:
                        action["prefix_rewrite"] = path.text("replacePrefixMatch")
            case _:
                raise item.refusal("type", "headers and paths are changed here, nothing else")


def _precedence(route: Route) -> tuple[bool, int]:
    match = route["match"]
    path = match.get("path") or match.get("path_separated_prefix") or match["prefix"]
    return "path" not in match, -len(path)
