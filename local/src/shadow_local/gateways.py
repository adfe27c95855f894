"""Istio Gateways among the rendered objects, and the Services in front of their ports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shadow_local.document import Section, document

Pods = tuple[tuple[str, str], ...]  # the labels that select them


@dataclass(frozen=True)
class Opening:
    """A port that a Gateway opens on some pods, for the hosts that it admits."""

    gateway: str  # namespace/name
    pods: Pods
    number: int
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Entrance:
    """A port of a Service, and the port of the pods behind it."""

    host: str
    number: int
    pods: Pods
    target: int


def openings(manifests: Iterable[dict[str, Any]]) -> list[Opening]:
    """The ports of the rendered Gateways; one server each."""
    found = []
    for manifest in manifests:
        if manifest.get("kind") != "Gateway":
            continue
        with document(manifest) as top, top.section("metadata") as metadata:
            _read_about(top, metadata)
            name = f"{metadata.text('namespace')}/{metadata.text('name')}"
            with top.section("spec") as spec:
                pods = _pods(spec)
                servers = [_server(item, name, pods) for item in spec.sections("servers")]
                if len(servers) != 1:
                    raise spec.refusal("servers", "one server is run for a Gateway")
                found += servers
    return found


def entrances(manifests: Iterable[dict[str, Any]]) -> list[Entrance]:
    """The ports of the rendered Services."""
    found = []
    for manifest in manifests:
        if manifest.get("kind") != "Service":
            continue
        with document(manifest) as top, top.section("metadata") as metadata:
            _read_about(top, metadata)
            host = f"{metadata.text('name')}.{metadata.text('namespace')}.svc.cluster.local"
            with top.section("spec") as spec:
                if spec.text("type", "ClusterIP") != "ClusterIP":
                    raise spec.refusal("type", "only ClusterIP has a meaning here")
                pods = _pods(spec)
                for section in spec.sections("ports"):
                    with section as port:
                        port.has_no_effect_here("name")
                        number = port.whole("port")
                        target = port.whole("targetPort", number)
                        found.append(Entrance(host, number, pods, target))
    return found


def _server(section: Section, gateway: str, pods: Pods) -> Opening:
    with section as server, server.section("port") as port:
        server.has_no_effect_here("name")
        port.has_no_effect_here("name")
        if port.text("protocol") not in ("HTTP", "HTTP2"):
            raise port.refusal("protocol", "the listeners here speak plain HTTP")
        hosts = tuple(host.rsplit("/", 1)[-1] for host in server.texts("hosts"))
        return Opening(gateway, pods, port.whole("number"), hosts)


def _read_about(top: Section, metadata: Section) -> None:
    top.has_no_effect_here("apiVersion", "kind")
    metadata.has_no_effect_here("labels", "annotations")


def _pods(spec: Section) -> Pods:
    return tuple(sorted(spec.table("selector").items()))
