"""The whole deployment on this machine: database, models and gateway, started and stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shadow_local.database import Database
from shadow_local.document import Untranslated
from shadow_local.gateway import direct_paths, entry_path, gateway_process
from shadow_local.mesh import Mesh, build_mesh
from shadow_local.mirroring import mirror_percentage
from shadow_local.ports import demand, free_port
from shadow_local.probes import wait_until_ready
from shadow_local.processes import Command, Ports, Surroundings, command
from shadow_local.rendering import render, repository
from shadow_local.services import InferenceService, Kind, inference_services
from shadow_local.state import Side, State
from shadow_local.supervisor import Supervisor

KINDS: tuple[Kind, ...] = ("transformer", "predictor")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How a stack is run; `folder` holds all that it writes."""

    folder: Path
    kustomization: Path
    gateway_port: int | None = None  # any free one when None
    api_key: str | None = None
    postgres_uri: str | None = None
    mirror_host_suffix: bool = False
    without: str | None = None  # a process that is started by hand


class Stack:
    """A deployment in a folder of its own.

    `start` returns once the gateway takes traffic; `stop` leaves nothing running, also after a
    start that failed halfway.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.manifests = render(options.kustomization)
        self.services = inference_services(self.manifests)
        self.mirror_percentage = mirror_percentage(self.manifests)
        self.database = Database(options.folder / "postgres", options.postgres_uri)
        self.supervisor = Supervisor(options.folder / "logs")
        self.differences: list[str] = []
        self.admin_url = ""
        self.state: State | None = None
        self._commands: dict[str, Command] = {}
        self._pids: dict[str, int] = {}
        self._ports: dict[str, Ports] = {}
        self._spools: dict[str, str] = {}

    def start(self, progress: Progress = lambda _: None) -> State:
        """Start everything; progress is told what is being waited for."""
        gateway_port = self._choose_ports()
        suffix = self.options.mirror_host_suffix
        mesh = build_mesh(self.manifests, self.endpoints, gateway_port, free_port, suffix)
        progress("starting Postgres" if self.database.server else "connecting to POSTGRES_URI")
        self.database.open()
        self.check()
        self._commands = {item.name: item for item in self._prepare()}
        commands = list(self._commands.values())
        by_hand = self._left_out(commands)
        for item in commands:
            if item is not by_hand:
                self._pids[item.name] = self.supervisor.start(item)
        gateway = gateway_process(mesh, self.options.folder / "gateway", self.options.api_key)
        self.admin_url = gateway.admin_url
        self._pids["gateway"] = self.supervisor.start(gateway.command)
        if by_hand is not None:
            progress(f"waiting for {by_hand.name}; start it by hand:\n\n{by_hand}\n")
        for number, item in enumerate([*commands, gateway.command]):
            if by_hand is None:
                progress(f"waiting for the models ({number} of {len(commands)} ready)")
            wait_until_ready(item, self.check, endless=item is by_hand)
        self.state = self._describe(f"http://127.0.0.1:{gateway_port}", mesh)
        return self.state

    def check(self) -> None:
        """Raise when a part of the stack is no longer running."""
        self.supervisor.check()
        self.database.check()

    def environment(self, name: str) -> Mapping[str, str]:
        """A process' environment."""
        return self._commands[name].env

    def restart(self, name: str, env: Mapping[str, str]) -> None:
        """End one process and start it with more environment; returns once it is ready."""
        self.supervisor.stop(name)
        self.check()
        old = self._commands[name]
        item = self._commands[name] = replace(old, env={**old.env, **env})
        self._pids[name] = self.supervisor.start(item)
        wait_until_ready(item, self.check)

    def stop(self) -> None:
        """End everything: the gateway, the transformers (they deliver what they hold), the rest."""
        self.supervisor.stop_all(("gateway", "primary-transformer", "shadow-transformer"))
        self.database.close()

    @property
    def endpoints(self) -> dict[str, int]:
        """The local port behind each Service that KServe would make."""
        return {
            service.host(kind): self._ports[f"{service.role}-{kind}"].http
            for service in self.services
            for kind in KINDS
        }

    def _choose_ports(self) -> int:
        wanted = self.options.gateway_port
        port = free_port() if wanted is None else demand(wanted, "gateway", "GATEWAY_PORT")
        preferred = iter(range(port + 1, port + 1 + 4 * len(self.services)))
        for service in self.services:
            for kind in KINDS:
                # Next to the gateway's, so that a debugger's settings can name them.
                ports = Ports(free_port(next(preferred)), free_port(next(preferred)))
                self._ports[f"{service.role}-{kind}"] = ports
        return port

    def _prepare(self) -> list[Command]:
        around = Surroundings(
            repository=repository(),
            folder=self.options.folder,
            path=os.environ.get("PATH", os.defpath),
            secret=self.database.secret,
            localised_uri=lambda uri: self.database.localised(uri, "transformer"),
        )
        commands = []
        for service in self.services:
            predictor_port = self._ports[f"{service.role}-predictor"].http
            for component in (service.predictor, service.transformer):
                ports = self._ports[f"{service.role}-{component.kind}"]
                item, differences = command(service, component, ports, predictor_port, around)
                commands.append(item)
                self.differences += differences
                self._spools[service.role] = item.env.get("SPOOL_DIR", "")
        return commands

    def _left_out(self, commands: list[Command]) -> Command | None:
        """The process that is started by hand, if one is."""
        name = self.options.without
        if name is None:
            return None
        for item in commands:
            if item.name == name:
                return item
        names = ", ".join(item.name for item in commands)
        raise Untranslated(f"There is no {name} to leave out; there are {names}.")

    def _describe(self, gateway_url: str, mesh: Mesh) -> State:
        sides = {service.role: self._side(service) for service in self.services}
        call = f"v1/models/{self.services[0].model_name}:predict"
        direct = direct_paths(mesh, self.services)
        return State(
            gateway_url=gateway_url,
            predict_url=f"{gateway_url}{entry_path(mesh, self.services)}{call}",
            direct_urls={role: f"{gateway_url}{path}{call}" for role, path in direct.items()},
            postgres_uri=self.database.uri,
            mirror_percentage=self.mirror_percentage,
            primary=sides.get("primary"),
            shadow=sides.get("shadow"),
        )

    def _side(self, service: InferenceService) -> Side:
        transformer = self._ports[f"{service.role}-transformer"]
        predictor = self._ports[f"{service.role}-predictor"]
        return Side(
            transformer_url=f"http://127.0.0.1:{transformer.http}",
            transformer_grpc_url=f"127.0.0.1:{transformer.grpc}",
            transformer_pid=self._pids.get(f"{service.role}-transformer"),
            predictor_url=f"http://127.0.0.1:{predictor.http}",
            predictor_pid=self._pids.get(f"{service.role}-predictor"),
            spool_dir=self._spools[service.role],
        )
