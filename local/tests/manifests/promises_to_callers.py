"""What the routes promise; each function yields one line for each promise that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from routes import (
    GRPC,
    SERVING_PATH,
    Objects,
    of_kind,
    rewritten,
    routed,
    routes_of,
    shadow_sides,
)
from routes import service_reached as reached

PAIR_ID = {"x-shadow-pair-id": "%REQ(x-request-id)%"}
CREDENTIALS = {"authorization", "x-api-key", "cookie"}
# What only the gateway, a follower, a replay or a transformer says of a call.
OURS = {"x-shadow-pair-id", "x-shadow-source", "x-shadow"}
PREDICT = "/v1/models/model:predict"
INFERENCE = (PREDICT, "/v1/models", "/v1/models/model", "/v2", "/v2/models/model/infer")
INFERENCE += ("/v2/models/model/ready", "/v2/health/live", "/v2/health/ready", "/openai/v1/models")
INFERENCE += ("/openai/v1/chat/completions", "/v1/chat/completions", "/v1/completions")
INFERENCE += ("/v1/embeddings", "/v1/rerank", "/v1/responses", "/v1/score", "/v1/moderations")
INFERENCE += ("/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions")
INFERENCE += ("/v1/audio/translations",)
# What KServe's servers also answer, and is not for callers; and paths that only begin alike.
OTHER = ("/", "/metrics", "/docs", "/openapi.json", "/v2/repository/index", "/v1/modelsx")
OTHER += ("/v2/repository/models/model/unload", "/v2x", "/v2/models", "")
OTHER += ("/v1/chat", "/v1/chat/completions/1", "/v1/completionsx", "/v1/load_lora_adapter")
OTHER += ("/openai/v2/models", "/v1/audiox", "/v1/images", "/v1/tokenize")
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    routes = routes_of(objects, settings["gateway"])
    if of_kind(objects, "HTTPRoute"):
        yield from _gateway_api(objects, settings, routes)
        return
    if len(routes) != 10:
        yield f"{len(routes)} routes on the callers' gateway; there are five ways for REST and gRPC"
    key = {"x-api-key": "sesame123"}  # without the option it changes nothing
    yield from _rest(objects, settings, routes, key)
    yield from _grpc(objects, settings, routes, key)
    yield from _refusals(settings, routes, key)
    for route in routes:
        if "directResponse" not in route:
            yield from _guards(route, settings)
    yield from _virtual_services(objects, settings)
    yield from _limits(objects, settings, routes)


def _rest(
    objects: Objects, settings: dict[str, str], routes: list[dict[str, Any]], key: dict[str, str]
) -> Iterator[str]:
    root = f"/serving/{settings['profile']}"
    path = f"{root}/{settings['entry']}{PREDICT}"
    lengths = {size: key | {"content-length": size} for size in ("0", "200", "9999", "999999")}
    mirrored = {size for size, sent in lengths.items() if _mirrors(routes, path, sent)}
    for other in _passed_paths(objects):
        own = f"{root}/{settings['entry']}{other}"
        sizes = [*lengths.values(), key, key | {"content-length": "1000000"}]
        if any(_mirrors(routes, own, sent) != _mirrors(routes, path, sent) for sent in sizes):
            yield f"{other} is not mirrored as predictions are"
    wanted = {size for size in lengths if re.fullmatch(settings["mirror-content-length"], size)}
    if mirrored != wanted or not wanted:
        yield f"bodies of {sorted(mirrored)} bytes are mirrored, not of {sorted(wanted)}"
    for sent in ({}, {"content-length": "1000000"}, {"content-length": "12x"}):
        route = routed(routes, path, key | sent)
        if route is None or "mirrors" in route:
            yield f"a body of {sent or 'unknown length'} is mirrored or not answered"
    yield from _answers(objects, routes, settings["entry"], settings["primary"], settings, key)
    for side in ("primary", "shadow"):
        name = settings[side]
        yield from _answers(objects, routes, name, name, settings, key)
    uris = [match["uri"] for route in routes if "rewrite" in route for match in route["match"][:1]]
    for way in ("entry", "primary", "shadow"):
        yield from _unknown_paths(settings[way], settings, uris)
    yield from _entry(objects, settings, [r for r in routes if "rewrite" in r])


def _answers(  # noqa: PLR0917
    objects: Objects,
    routes: list[dict[str, Any]],
    way: str,
    name: str,
    settings: dict[str, str],
    key: dict[str, str],
) -> Iterator[str]:
    """Inference paths lead to the model as it serves them, and no others."""
    root = f"/serving/{settings['profile']}/{way}"
    for path in (*INFERENCE, *_passed_paths(objects)):
        route = routed(routes, root + path, key | {"content-length": "2"})
        if route is None or _answering(objects, route) != name:
            yield f"{root}{path} does not lead to {name}"
        elif rewritten(route, root + path) != path:
            yield f"{root}{path} arrives as {rewritten(route, root + path)}"
    # A prefix of the Gateway API has itself: /v2/models, which lists the models' names.
    by_api = any("from" in route.get("rewrite", {}) for route in routes)
    for path in set(OTHER) - ({"/v2/models"} if by_api else set()):
        if any(routed(routes, root + path, key | sent) for sent in ({}, {"content-length": "2"})):
            yield f"{root}{path} is open to callers"


def _unknown_paths(way: str, settings: dict[str, str], uris: list[dict[str, str]]) -> Iterator[str]:
    """What is let in and no promise asks for, in this topology and in the others."""
    root = f"/serving/{settings['profile']}/{way}/"
    for uri in uris:
        [(kind, text)] = uri.items()
        if not text.startswith(root):
            continue
        paths = text.removeprefix(root)
        expressions = {
            "regex": paths.removeprefix("(").removesuffix(")").split("|"),
            "path": [f"{re.escape(paths)}(/.*)?"],
            "exact": [re.escape(paths)],
        }[kind]
        for expression in expressions:
            if not any(re.fullmatch(f"/{expression}", path) for path in INFERENCE):
                yield f"{root}{expression} is let in; INFERENCE of {__name__}.py has no such path"


def _mirrors(routes: list[dict[str, Any]], path: str, headers: dict[str, str]) -> bool:
    return "mirrors" in (routed(routes, path, headers) or {})


def _passed_paths(objects: Objects) -> list[str]:
    """Where the option pass-paths opens more, on every side alike."""
    settings = [
        {variable["name"]: variable.get("value", "") for variable in container["env"]}
        for service in of_kind(objects, "InferenceService")
        for container in service["spec"]["transformer"]["containers"]
    ]
    [paths] = {env.get("PASS_PATHS", "") for env in settings}
    return [path + below for path in paths.split(",") if path for below in ("", "/below")]


def _gateway_api(
    objects: Objects, settings: dict[str, str], routes: list[dict[str, Any]]
) -> Iterator[str]:
    """Without a mesh: the entry is answered by the primary, and nothing pairs or copies."""
    yield from _api_objects(objects, settings)
    ways = {settings["entry"]: settings["primary"]}
    ways |= {settings[side]: settings[side] for side in ("primary", "shadow")}
    for way, name in ways.items():
        yield from _answers(objects, routes, way, name, settings, {})
        yield from _unknown_paths(way, settings, [route["match"][0]["uri"] for route in routes])
        root = f"/serving/{settings['profile']}/{way}"
        for method in ("ModelInfer", *METHODS):
            route = routed(routes, GRPC + method, {SERVING_PATH: root})
            if route is None or _answering(objects, route) != name:
                yield f"gRPC {method} for {way} does not lead to {name}"
        if routed(routes, f"{GRPC}RepositoryModelUnload", {SERVING_PATH: root}):
            yield f"gRPC reaches the model repository of {name}"
    if routed(routes, f"{GRPC}ModelInfer"):
        yield "gRPC without our header is taken from whoever else serves it here"
    for route in routes:
        removed = set(route["headers"]["request"]["remove"])
        if removed != CREDENTIALS | OURS | {"x-request-id"}:
            yield f"{route['name']}: credentials, or a caller's own ids or marks get through"
        wanted = f"{settings['predict-timeout-seconds']}s"
        if "rewrite" in route and route["timeout"] != wanted:
            yield f"{route['name']}: the timeout is not the one in the settings"


def _api_objects(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    for item in objects:
        kind, name = item["kind"], item["metadata"]["name"]
        if "istio.io" in item["apiVersion"]:
            yield f"{kind} {name} needs Istio"
        if kind in ("HTTPRoute", "GRPCRoute"):
            if item["spec"]["hostnames"] != [settings["domain"]]:
                yield f"{kind} is for {item['spec']['hostnames']}, not for the domain"
            if "." not in name:
                yield f"KServe may own the {kind} {name}"


def _grpc(
    objects: Objects, settings: dict[str, str], routes: list[dict[str, Any]], key: dict[str, str]
) -> Iterator[str]:
    root = f"/serving/{settings['profile']}"
    ways = {settings["entry"]: settings["primary"]}
    ways |= {settings[side]: settings[side] for side in ("primary", "shadow")}
    for way, name in ways.items():
        headers = key | {SERVING_PATH: f"{root}/{way}"}
        for method in ("ModelInfer", *METHODS):
            route = routed(routes, GRPC + method, headers)
            if route is None or _answering(objects, route) != name:
                yield f"gRPC {method} for {way} does not lead to {name}"
            elif ("mirrors" in route) != (way == settings["entry"] and method == "ModelInfer"):
                yield f"gRPC {method} for {way} is mirrored or not, the wrong way round"
    for elsewhere in ({}, {SERVING_PATH: root}, {SERVING_PATH: f"{root}/{settings['entry']}x"}):
        if routed(routes, f"{GRPC}ModelInfer", key | elsewhere) is not None:
            yield f"gRPC with {elsewhere} is taken from whoever else serves it here"
    yield from _entry(
        objects,
        settings,
        [r for r in routes if r["match"][0].get("headers", {}).keys() == {SERVING_PATH}],
    )


def _entry(
    objects: Objects, settings: dict[str, str], routes: list[dict[str, Any]]
) -> Iterator[str]:
    """The mirrored route, the one for what it leaves, and the direct ones."""
    served = {route["name"]: route for route in routes if "directResponse" not in route}
    if list(served) != ["mirrored", "not-copied", "primary", "shadow"]:
        yield f"the routes are {list(served)}"
        return
    for name in ("mirrored", "not-copied"):
        for direction in ("request", "response"):
            if served[name]["headers"].get(direction, {}).get("set") != PAIR_ID:
                yield f"{name}: the {direction} does not get the pair id"
    for name in ("primary", "shadow"):
        if "x-shadow-pair-id" not in served[name]["headers"]["request"].get("remove", ()):
            yield f"{name}: a caller's own pair id gets through"
    if any("mirrors" in route for name, route in served.items() if name != "mirrored"):
        yield "more than the entry is mirrored"
    mirrors = served["mirrored"].get("mirrors", [])
    authority = served["mirrored"].get("rewrite", {}).get("authority")
    got = [reached(objects, mirror["destination"], authority) for mirror in mirrors]
    shadows = [settings[side] for side in shadow_sides(objects)]
    if got != shadows:
        yield f"copies go to {got}, not to {shadows}"
    shares = [mirror.get("percentage", {}).get("value") for mirror in mirrors]
    if shares != [float(settings["mirror-percentage"])] * len(shadows):
        yield f"{shares} percent are mirrored, not {settings['mirror-percentage']}"


def _refusals(
    settings: dict[str, str], routes: list[dict[str, Any]], key: dict[str, str]
) -> Iterator[str]:
    """WebSockets and the model repository are answered by the gateway itself."""
    for name in (settings["entry"], settings["primary"], settings["shadow"]):
        root = f"/serving/{settings['profile']}/{name}"
        calls = [(root + PREDICT, key | {"upgrade": value}) for value in ("websocket", "WebSocket")]
        calls += [(f"{GRPC}RepositoryModelUnload", key | {SERVING_PATH: root})]
        for path, headers in calls:
            route = routed(routes, path, headers) or {}
            if route.get("directResponse") != {"status": 403}:
                yield f"{path} with {headers} reaches a model"


def _answering(objects: Objects, route: dict[str, Any]) -> str | None:
    if len(route.get("route", [])) != 1 or "weight" in route["route"][0]:
        return None
    authority = route.get("rewrite", {}).get("authority")
    return reached(objects, route["route"][0]["destination"], authority)


def _guards(route: dict[str, Any], settings: dict[str, str]) -> Iterator[str]:
    name = route.get("name")
    if route.get("timeout") != f"{settings['predict-timeout-seconds']}s":
        yield f"{name}: the timeout is not the one in the settings"
    if route.get("retries") != {"attempts": 0}:
        yield f"{name}: a retry would record a call twice"
    removed = set(route["headers"]["request"].get("remove", ()))
    if not removed >= CREDENTIALS:
        yield f"{name}: credentials reach the models"
    if not removed | PAIR_ID.keys() >= OURS:
        yield f"{name}: a caller's own x-shadow headers get through"


def _virtual_services(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    for item in of_kind(objects, "VirtualService"):
        name = item["metadata"]["name"]
        if "." not in name:
            yield f"KServe may own the VirtualService {name}: an InferenceService can have its name"
        callers = item["spec"]["gateways"] == [settings["gateway"]]
        if callers and item["spec"]["hosts"] != [settings["domain"]]:
            yield f"{name} is for {item['spec']['hosts']}, not for the domain"
        timeout = item["spec"]["http"][0].get("timeout")
        if not callers and timeout != f"{settings['predict-timeout-seconds']}s":
            yield f"{name}: the timeout is not the one in the settings"


def _limits(
    objects: Objects, settings: dict[str, str], routes: list[dict[str, Any]]
) -> Iterator[str]:
    rules = {rule["spec"]["host"]: rule["spec"] for rule in of_kind(objects, "DestinationRule")}
    mirrored = [route["mirrors"] for route in routes if "mirrors" in route]
    copies_to = {mirror["destination"]["host"] for mirrors in mirrored for mirror in mirrors}
    if rules.keys() != copies_to:
        yield "the limits are not those of the hosts that copies go to"
    for host, spec in rules.items():
        pool = spec["trafficPolicy"]["connectionPool"]
        tcp, http = pool["tcp"], pool["http"]
        if tcp.get("connectTimeout") != "3s":
            yield f"{host}: the connect timeout is not the one that was measured"
        if "maxRetries" in http:
            yield f"{host}: Istio ignores maxRetries; the routes have attempts: 0"
        waiting, running = http.get("http1MaxPendingRequests", 0), http.get("http2MaxRequests", 0)
        if "-grpc." in host:
            if {waiting, running} != {int(settings["mirror-grpc-copies"])}:
                yield f"{host}: open gRPC copies are not bounded as the settings say"
            continue
        if not 1 < tcp.get("maxConnections", 0) <= 1024:
            yield f"{host}: the shadow's connections have no sensible bound"
        # A burst of 200 calls loses no copy while the shadow is healthy.
        if not 200 <= waiting <= 1024:
            yield f"{host}: the shadow's waiting calls have no sensible bound"
        if not max(200, tcp.get("maxConnections", 0)) <= running <= 2048:
            yield f"{host}: the shadow's open calls have no sensible bound"
