"""What the routes promise; each function yields one line for each promise that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from routes import Objects, of_kind, prefix, routes_of, service_reached

PAIR_ID = {"x-shadow-pair-id": "%REQ(x-request-id)%"}
CREDENTIALS = {"authorization", "x-api-key", "cookie"}


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    root = f"/serving/{settings['profile']}"
    routes = routes_of(objects, settings["gateway"])
    entry = [route for route in routes if prefix(route) == f"{root}/{settings['entry']}/"]
    if len(entry) != 2:
        yield f"{len(entry)} routes for {root}/{settings['entry']}/, not a mirrored and a plain one"
        return
    yield from _entry(objects, settings, *entry)
    for side in ("primary", "shadow"):
        name = settings[side]
        direct = [route for route in routes if prefix(route) == f"{root}/{name}/"]
        if len(direct) != 1 or _answering(objects, direct[0]) != name:
            yield f"{root}/{name}/ does not lead to {name}"
        for route in direct:
            yield from _guards(route)
            if "x-shadow-pair-id" not in route["headers"]["request"].get("remove", ()):
                yield f"{root}/{name}/ lets a caller's own pair id through"
            if "mirrors" in route:
                yield f"{root}/{name}/ is mirrored"
    if len(routes) != 4:
        yield f"{len(routes)} routes on the callers' gateway; there are four ways in"
    yield from _virtual_services(objects, settings)
    yield from _limits(objects, entry[0])


def _entry(
    objects: Objects, settings: dict[str, str], mirrored: dict[str, Any], plain: dict[str, Any]
) -> Iterator[str]:
    length = mirrored["match"][0].get("headers", {}).get("content-length", {}).get("regex", "")
    small, others = {"0", "200", "999999"}, {"1000000", "8000000", "", "12x"}
    if {size for size in small | others if re.fullmatch(length, size)} != small:
        yield f"content-length {length!r} does not tell bodies below 1 MB from others"
    if "headers" in plain["match"][0]:
        yield "the second route does not take what the first leaves"
    if "mirrors" in plain:
        yield "bodies beyond the guard are mirrored"
    for route in (mirrored, plain):
        yield from _guards(route)
        if _answering(objects, route) != settings["primary"]:
            yield f"callers are answered by {_answering(objects, route)}, not by the primary"
        for direction in ("request", "response"):
            if route["headers"].get(direction, {}).get("set") != PAIR_ID:
                yield f"the {direction} does not get the pair id"
    mirrors = mirrored.get("mirrors", [])
    authority = mirrored["rewrite"].get("authority")
    got = [service_reached(objects, mirror["destination"], authority) for mirror in mirrors]
    if got != [settings["shadow"]]:
        yield f"copies go to {got}, not to the shadow"
    shares = [mirror.get("percentage", {}).get("value") for mirror in mirrors]
    if shares != [float(settings["mirror-percentage"])]:
        yield f"{shares} percent are mirrored, not {settings['mirror-percentage']}"


def _answering(objects: Objects, route: dict[str, Any]) -> str | None:
    if len(route["route"]) != 1 or "weight" in route["route"][0]:
        return None
    authority = route["rewrite"].get("authority")
    return service_reached(objects, route["route"][0]["destination"], authority)


def _guards(route: dict[str, Any]) -> Iterator[str]:
    name = route.get("name")
    if route.get("rewrite", {}).get("uri") != "/":
        yield f"{name}: the models would see the gateway's path"
    if route.get("timeout") != "60s":
        yield f"{name}: no timeout of 60s"
    if route.get("retries") != {"attempts": 0}:
        yield f"{name}: a retry would record a call twice"
    if not set(route["headers"]["request"].get("remove", ())) >= CREDENTIALS:
        yield f"{name}: credentials reach the models"


def _virtual_services(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    virtual_services = of_kind(objects, "VirtualService")
    if len(virtual_services) != 2:
        yield f"{len(virtual_services)} VirtualServices, not two"
    for item in virtual_services:
        if item["metadata"]["name"] in (settings["primary"], settings["shadow"]):
            yield f"KServe owns the VirtualService {item['metadata']['name']}"
        callers = item["spec"]["gateways"] == [settings["gateway"]]
        if callers and item["spec"]["hosts"] != [settings["domain"]]:
            yield f"{item['metadata']['name']} is for {item['spec']['hosts']}, not for the domain"


def _limits(objects: Objects, mirrored: dict[str, Any]) -> Iterator[str]:
    rules = of_kind(objects, "DestinationRule")
    copies_to = [mirror["destination"]["host"] for mirror in mirrored.get("mirrors", [])]
    if [rule["spec"]["host"] for rule in rules] != copies_to:
        yield "the limits are not those of the host that the copies go to"
    for rule in rules:
        pool = rule["spec"]["trafficPolicy"]["connectionPool"]
        tcp, http = pool["tcp"], pool["http"]
        if tcp.get("connectTimeout") != "3s":
            yield "the connect timeout is not the one that was measured"
        if not 1 < tcp.get("maxConnections", 0) <= 1024:
            yield "the shadow's connections have no sensible bound"
        # A burst of 200 calls loses no copy while the shadow is healthy.
        if not 200 <= http.get("http1MaxPendingRequests", 0) <= 1024:
            yield "the shadow's waiting calls have no sensible bound"
        if not 200 <= http.get("http2MaxRequests", 0) <= 2048:
            yield "the shadow's open calls have no sensible bound"
