"""Envoy with the routes of rendered manifests, in front of any two servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from shadow_local.ports import free_port
from shadow_local.processes import gateway_command, open_copies_url
from shadow_local.stack import Stack
from shadow_local.state import Pods, Side
from shadow_local.supervisor import Supervisor
from shadow_local.translate.document import render, topology
from shadow_local.translate.mesh import KINDS, build_mesh
from shadow_local.translate.services import Ports, inference_services

Manifests = list[dict[str, Any]]


@cache
def rendered(topology_name: str) -> Manifests:
    """A topology's objects; not to be changed, they are shared."""
    return render(topology(topology_name))


def ports_of(pods: Pods | None) -> Ports:
    """Where a transformer of a running stack listens."""
    assert pods is not None
    urls = (pods.transformer_url, pods.transformer_grpc_url)
    return Ports(*(int(url.rsplit(":", 1)[1]) for url in urls))


def transformers_of(stack: Stack) -> dict[str, list[Ports]]:
    """Where all transformers of a running stack listen, by InferenceService."""
    state = stack.state
    assert state is not None
    shadows = iter([state.shadow, *state.more_shadows])
    found = {}
    for service in stack.services:
        side: Side | None = state.primary if service.role == "primary" else next(shadows)
        assert side is not None
        found[service.name] = [ports_of(pods) for pods in (side, *side.more)]
    return found


@dataclass(frozen=True)
class Running:
    """A gateway that takes traffic."""

    url: str
    entry_url: str
    predict_url: str
    serving_path: str | None
    admin_url: str
    copies_url: str | None


class Gateways:
    """Starts gateways in a folder, one after the other; `supervisor` ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = Supervisor(folder / "logs")
        self.started = 0

    def start(
        self,
        primary: int | Ports,
        shadow: int | Ports,
        topology_name: str = "standard",
        suffix: bool = False,
        **more: Any,
    ) -> Running:
        """A gateway of a topology, with the models' ports."""
        return self.start_from(rendered(topology_name), primary, shadow, suffix, **more)

    def start_from(
        self,
        manifests: Manifests,
        first: int | Ports,
        second: int | Ports,
        suffix: bool = False,
        *,
        api_key: str | None = None,
        edge: bool = False,
    ) -> Running:
        """A gateway of rendered objects; `first` is the port of double-…, `second` of triple-…"""
        given = [item if isinstance(item, Ports) else Ports(item, item) for item in (first, second)]
        names = [service.name for service in inference_services(manifests)]
        behind = {name: [given[name.startswith("triple")]] for name in names}
        return self.start_before(behind, manifests, suffix, api_key=api_key, edge=edge)

    def start_before(
        self,
        transformers: Mapping[str, Sequence[Ports]],
        manifests: Manifests,
        suffix: bool = False,
        *,
        api_key: str | None = None,
        edge: bool = False,
    ) -> Running:
        """A gateway of rendered objects, with these transformers behind their InferenceServices."""
        pods = {
            (service.name, kind): transformers[service.name]
            for service in inference_services(manifests)
            for kind in KINDS
        }
        port = free_port()
        mesh = build_mesh(manifests, pods, port, free_port, suffix)
        self.started += 1
        name = f"gateway-{self.started}"
        command, admin_url = gateway_command(mesh, self.folder / name, api_key, name, edge)
        self.supervisor.start(command)
        self.supervisor.wait_until_ready(command)
        url = f"http://127.0.0.1:{port}"
        entry = url + mesh.entry_path
        call = f"{entry}v1/models/model:predict"
        copies_url = open_copies_url(mesh, admin_url)
        return Running(url, entry, call, mesh.serving_path, admin_url, copies_url)


StartGateway = Callable[..., Running]
