"""Envoy with the routes of rendered manifests, in front of any two servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from shadow_local.ports import free_port
from shadow_local.processes import gateway_command
from shadow_local.supervisor import Supervisor
from shadow_local.translate.document import render, topology
from shadow_local.translate.mesh import build_mesh
from shadow_local.translate.services import inference_services

Manifests = list[dict[str, Any]]


@cache
def rendered(topology_name: str) -> Manifests:
    """A topology's objects; not to be changed, they are shared."""
    return render(topology(topology_name))


@dataclass(frozen=True)
class Running:
    """A gateway that takes traffic."""

    url: str
    entry_url: str
    predict_url: str
    admin_url: str


class Gateways:
    """Starts gateways in a folder, one after the other; `supervisor` ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = Supervisor(folder / "logs")
        self.started = 0

    def start(
        self,
        primary: int,
        shadow: int,
        topology_name: str = "standard",
        suffix: bool = False,
        **more: Any,
    ) -> Running:
        """A gateway of a topology, with the models' ports."""
        return self.start_from(rendered(topology_name), primary, shadow, suffix, **more)

    def start_from(
        self,
        manifests: Manifests,
        first: int,
        second: int,
        suffix: bool = False,
        api_key: str | None = None,
    ) -> Running:
        """A gateway of rendered objects; `first` is the port of double-…, `second` of triple-…"""
        services = inference_services(manifests)
        endpoints = {
            service.host(kind): second if service.name.startswith("triple") else first
            for service in services
            for kind in ("transformer", "predictor")
        }
        port = free_port()
        mesh = build_mesh(manifests, endpoints, port, free_port, suffix)
        self.started += 1
        name = f"gateway-{self.started}"
        command, admin_url = gateway_command(mesh, self.folder / name, api_key, name)
        self.supervisor.start(command)
        self.supervisor.wait_until_ready(command)
        url = f"http://127.0.0.1:{port}"
        entry = url + mesh.entry_path
        return Running(url, entry, f"{entry}v1/models/model:predict", admin_url)


StartGateway = Callable[..., Running]
