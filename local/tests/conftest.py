"""Gateways from the rendered manifests, and one whole deployment that several tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shadow_local.gateway import entry_path, gateway_process
from shadow_local.mesh import build_mesh
from shadow_local.ports import free_port
from shadow_local.rendering import render, topology
from shadow_local.services import inference_services
from shadow_local.stack import Options, Stack, wait_until_ready
from shadow_local.supervisor import Supervisor


@cache
def rendered(topology_name: str) -> list[dict[str, Any]]:
    return render(topology(topology_name))


@dataclass(frozen=True)
class Running:
    """A gateway that takes traffic."""

    url: str
    entry_url: str
    predict_url: str
    admin_url: str


StartGateway = Callable[..., Running]


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start Envoy with the manifests' routes: start(primary port, shadow port, …)."""
    supervisor = Supervisor(tmp_path / "logs")
    started = 0

    def start(
        primary: int,
        shadow: int,
        topology_name: str = "standard",
        suffix: bool = False,
        api_key: str | None = None,
    ) -> Running:
        nonlocal started
        started += 1
        manifests = rendered(topology_name)
        services = inference_services(manifests)
        ports = {"primary": primary, "shadow": shadow}
        endpoints = {
            service.host(kind): ports[service.role]
            for service in services
            for kind in ("transformer", "predictor")
        }
        port = free_port()
        mesh = build_mesh(manifests, endpoints, port, free_port, suffix)
        name = f"gateway-{started}"
        gateway = gateway_process(mesh, tmp_path / name, api_key, name)
        supervisor.start(gateway.command)
        wait_until_ready(gateway.command, supervisor.check)
        url = f"http://127.0.0.1:{port}"
        entry = url + entry_path(mesh, services)
        return Running(url, entry, f"{entry}v1/models/model:predict", gateway.admin_url)

    yield start
    supervisor.stop_all()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole standard deployment, shared: tests tell their own calls by pair id."""
    options = Options(tmp_path_factory.mktemp("stack"), topology("standard"))
    running = Stack(options)
    try:
        running.start()
        yield running
    finally:
        running.stop()
