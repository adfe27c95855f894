"""The whole deployment on this machine: database, models and gateway, started and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, product
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.status import Status

from shadow_local import Explained
from shadow_local.database import Database
from shadow_local.ports import check_lost, claim, free_port
from shadow_local.processes import (
    Node,
    component_command,
    deployment_command,
    gateway_command,
    model_files,
    open_copies_url,
    pod_name,
)
from shadow_local.state import Follower, Pods, Side, State, digest
from shadow_local.supervisor import (
    ChildDied,
    Command,
    Progress,
    StopRequested,
    Supervisor,
    silent,
)
from shadow_local.translate.arguments import rules_of
from shadow_local.translate.cluster import checked, topology_of
from shadow_local.translate.deployments import deployments, judging_options, with_rules
from shadow_local.translate.document import (
    Untranslated,
    expand,
    from_repository,
    image_name,
    of_kind,
    render,
    repository,
)
from shadow_local.translate.forms import in_place
from shadow_local.translate.mesh import KINDS, Mesh, build_mesh
from shadow_local.translate.references import namespace_of
from shadow_local.translate.routes import demanded_key, mirror_percentage
from shadow_local.translate.services import InferenceService, Kind, Ports, inference_services

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEBOUNCE_SECONDS = 1.0
# The components of Deployments: what brings calls to a shadow ends in the first, the other judges
# them all the time.
FOLLOWER, LIVE_VERDICT = "follower", "live-verdict"
LIVE_SETTLE = "3s"
# Of a predictor's container or model, what another model has otherwise; the rest is how it runs.
OF_A_MODEL = ("image", "command", "args", "env", "modelFormat", "runtime", "storageUri")


def version_of(service: InferenceService) -> str | None:
    """What its transformer records as the model's version."""
    env: dict[str, str] = {}
    for item in service.transformer.container.variables:
        env[item.name] = expand(item.value, env)
    return env.get("MODEL_VERSION")


@dataclass(frozen=True)
class Options:
    """How a stack is run; `folder` holds all that it writes."""

    folder: Path
    kustomization: Path
    gateway_port: int | None = None  # any free one when None
    api_key: str | None = None
    postgres_uri: str | None = None
    mirror_host_suffix: bool = False
    without: tuple[str, ...] = ()  # processes that are started by hand
    replicas: int = 1  # pods of each component
    edge: bool = False  # the gateway has the buffers of Istio's connection profile EDGE
    live_verdict: bool = False  # run it, whether or not the kustomization has that option on


class Stack:
    """A deployment in a folder of its own.

    `start` returns once the gateway takes traffic; `stop` leaves nothing running, also after a
    start that failed halfway.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.manifests = checked(options.kustomization, options.edge)
        self.services = inference_services(self.manifests)
        # Where the routes ask for one, callers need it without X_API_KEY as well.
        self.api_key = self._one_key()
        self._check_replicas()
        self.deployments = deployments(self.manifests)
        if options.live_verdict and not self._has(LIVE_VERDICT):
            (judge,) = deployments(render(repository() / "local" / "live-verdict"))
            # The manifests may have rules for their report alone.
            rules = [text for _, text in rules_of(self.manifests)]
            self.deployments.append(with_rules(judge, rules))
        # A follower copies all that is recorded.
        followed = 100.0 if self._followers else None
        self.mirror_percentage = mirror_percentage(self.manifests) or followed
        self.database = Database(options.folder / "postgres", options.postgres_uri)
        self.supervisor = Supervisor(options.folder / "logs")
        self.differences: list[str] = []  # from a cluster, one sentence each
        self.state: State | None = None
        self._commands: dict[str, Command] = {}
        self._pids: dict[str, int] = {}
        self._ports: dict[str, Ports] = {}

    def start(self, progress: Progress = silent) -> State:
        """Start everything; `progress` is called with what is being waited for."""
        gateway_port = self._choose_ports()
        pods = {
            (service.name, kind): [self._ports[pod] for pod in self._pods_of(service, kind)]
            for service in self.services
            for kind in KINDS
        }
        suffix = self.options.mirror_host_suffix
        mesh = build_mesh(self.manifests, pods, gateway_port, free_port, suffix)
        progress("starting Postgres" if self.database.server else "connecting to POSTGRES_URI")
        self.database.open()
        self.check()
        self._make_commands(mesh)
        commands = list(self._commands.values())
        by_hand = self._left_out()
        gateway, admin_url = gateway_command(
            mesh, self.options.folder / "gateway", self.api_key, edge=self.options.edge
        )
        for item in (*commands, gateway):
            if item not in by_hand:
                self._pids[item.name] = self.supervisor.start(item)
        for item in by_hand:
            self.supervisor.forget(item)
            progress(f"waiting for {item.name}; start it by hand:\n\n{item}\n")
        try:
            for number, item in enumerate((*commands, gateway)):
                if not by_hand:
                    progress(f"waiting for the models ({number} of {len(commands)} ready)")
                self.supervisor.wait_until_ready(item, item in by_hand, progress)
        except ChildDied as death:
            # Free when it was chosen; between then and now nothing holds it.
            own = self._ports.get(death.name)
            lost = (own.http, own.grpc) if own else (gateway_port,)
            check_lost(lost, death.name, "GATEWAY_PORT")
            raise
        copies_url = open_copies_url(mesh, admin_url)
        self.state = self._describe(f"http://127.0.0.1:{gateway_port}", mesh, copies_url)
        return self.state

    def check(self) -> None:
        """Raise when a part of the stack is no longer running."""
        self.supervisor.check()
        self.database.check()

    def environment(self, name: str) -> Mapping[str, str]:
        """A process' environment."""
        return self._commands[name].env

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names of those that are judged, as their rows say."""
        judged = [service for service in self.services if service.judged]
        transformers = [pod_name(service, "transformer") for service in judged]
        return tuple(self.environment(name)["INFERENCE_SERVICE"] for name in transformers)

    @property
    def models(self) -> str:
        """One line: what each side runs, in which version, and whose manifests say so."""
        sides = []
        for service in self.services:
            image = image_name(service.predictor.container.image)
            version = version_of(service)
            sides.append(f"{service.side} {service.name} ({image}, version {version})")
        file = from_repository(self.options.kustomization / "kustomization.yaml")
        return f"{', '.join(sides)}; {file}, topology {topology_of(self.manifests)}"

    @property
    def versions(self) -> dict[str, dict[str, str]]:
        """By service and version, what makes its predictor's model: a digest of each part."""
        found = {}
        for item in of_kind(self.manifests, "InferenceService"):
            spec = item["spec"]["predictor"]
            parts = [*spec.get("containers", ()), spec.get("model", {})]
            fields = [{name: part.get(name) for name in OF_A_MODEL} for part in parts]
            found[item["metadata"]["name"], namespace_of(item)] = fields
        versions = {}
        for service in self.services:
            if version := version_of(service):
                fields = found[service.name, service.namespace]
                versions[f"{service.name}, version {version}"] = {
                    "image, arguments or variables": digest(fields),
                    **model_files(service.predictor, repository(), self.options.kustomization),
                }
        return versions

    def restart(
        self, name: str, env: Mapping[str, str], words: Mapping[str, str] | None = None
    ) -> None:
        """End one process and start it with more environment, and with other words in the place of
        some of its command's; returns once it is ready.
        """
        self.supervisor.stop(name)
        self.check()
        old = self._commands[name]
        new_words = tuple((words or {}).get(word, word) for word in old.words)
        item = replace(old, env={**old.env, **env}, words=new_words)
        self._commands[name] = item
        self._pids[name] = self.supervisor.start(item)
        self.supervisor.wait_until_ready(item)

    def stop(self, progress: Progress = silent) -> None:
        """End everything: the gateway, who calls the models, the transformers (they deliver what
        they hold), the rest; `progress` is called with what takes long.
        """
        deployments = [deployment.component for deployment in self.deployments]
        transformers = [name for name in self._ports if "-transformer" in name]
        self.supervisor.stop_all(("gateway", *deployments, *transformers), progress)
        self.database.close()

    def _has(self, component: str) -> bool:
        return any(deployment.component == component for deployment in self.deployments)

    def _one_key(self) -> str | None:
        """What the gateway demands in x-api-key: the routes' own key, or the one asked for here."""
        own, given = demanded_key(self.manifests), self.options.api_key
        if own and given and own != given:
            problem = (
                "The option api-key is on with a key of its own, and X_API_KEY is another one, so "
                "that no call would pass; leave X_API_KEY out, or put a # before the option in "
                "manifests/options/kustomization.yaml."
            )
            raise Explained(in_place(self.options.kustomization, problem))
        return own or given

    def _check_replicas(self) -> None:
        for service in self.services:
            for component in (service.predictor, service.transformer):
                if self.options.replicas > component.most_replicas:
                    problem = (
                        f"REPLICAS is {self.options.replicas}, and maxReplicas of {service.name}'s "
                        f"{component.kind} is {component.most_replicas}; raise it by "
                        f"{service.role}-max-replicas in manifests/settings/settings.yaml."
                    )
                    raise Untranslated(in_place(self.options.kustomization, problem))

    def _choose_ports(self) -> int:
        """The gateway's port; those of the models follow it, so that a debugger can name them."""
        wanted = self.options.gateway_port
        port = free_port() if wanted is None else claim(wanted, "gateway", "GATEWAY_PORT")
        preferred = count(port + 1)
        for number in self._numbers:
            for service in self.services:
                for kind in ("transformer", "predictor"):
                    ports = Ports(free_port(next(preferred)), free_port(next(preferred)))
                    self._ports[pod_name(service, kind, number)] = ports
        for deployment in self.deployments:
            ports = Ports(free_port(next(preferred)), free_port(next(preferred)))
            self._ports[deployment.component] = ports
        return port

    @property
    def _numbers(self) -> range:
        """Of the pods of each component."""
        return range(1, self.options.replicas + 1)

    def _pods_of(self, service: InferenceService, kind: Kind) -> list[str]:
        return [pod_name(service, kind, number) for number in self._numbers]

    def _make_commands(self, mesh: Mesh) -> None:
        node = Node(
            repository=repository(),
            folder=self.options.folder,
            secret=self.database.secret,
            local_uri=lambda uri: self.database.local_uri(uri, "transformer"),
            storage=self.options.kustomization,
            threads=max(1, (os.cpu_count() or 1) // (len(self.services) * self.options.replicas)),
        )
        for service, number in product(self.services, self._numbers):
            # Each transformer has a predictor of its own; a cluster's Service would choose one.
            predictor_port = self._ports[pod_name(service, "predictor", number)].http
            for component in (service.predictor, service.transformer):
                ports = self._ports[pod_name(service, component.kind, number)]
                item, differences = component_command(
                    service, component, ports, predictor_port, node, number=number
                )
                self._add(item, differences)
        for deployment in self.deployments:
            ports = self._ports[deployment.component]
            reading = replace(node, local_uri=lambda uri: self.database.local_uri(uri, "report"))
            item, differences = deployment_command(deployment, ports, mesh.upstreams, reading)
            if deployment.component == LIVE_VERDICT:
                item = replace(item, env={**item.env, **self._judging()})
            self._add(item, differences)

    def _add(self, item: Command, differences: Sequence[str]) -> None:
        """A process; of one that is started by hand nobody knows here where it writes to."""
        self._commands[item.name] = item
        if item.name not in self.options.without:
            self.differences += differences

    def _judging(self) -> dict[str, str]:
        """What the live verdict is told here. Its manifest may be another kustomization's than the
        mirror's; and records are in Postgres within a second, so that no one has to wait longer.
        """
        share = f"{self.mirror_percentage or 100:g}"
        several = {"SHADOW_CANDIDATES": ",".join(names)} if (names := self.candidates)[1:] else {}
        since = {"SERVE_SINCE": given} if (given := os.environ.get("SERVE_SINCE")) else {}
        return {"MIRROR_PERCENTAGE": share, "SERVE_SETTLE": LIVE_SETTLE, **several, **since}

    def _judged_by(self) -> tuple[str, ...]:
        """The options by which the live verdict judges, with its files as they are here."""
        found = self._commands.get(LIVE_VERDICT)
        return judging_options(found.words) if found else ()

    def _left_out(self) -> list[Command]:
        """The processes that are started by hand."""
        wrong = [name for name in self.options.without if name not in self._commands]
        if wrong:
            names = ", ".join(self._commands)
            raise Explained(f"WITHOUT names {' and '.join(wrong)}; it can name {names}.")
        return [self._commands[name] for name in self.options.without]

    def _describe(self, gateway_url: str, mesh: Mesh, copies_url: str | None) -> State:
        primary = [self._side(item) for item in self.services if item.role == "primary"]
        shadows = [self._side(item) for item in self.services if item.role == "shadow"]
        followers = [self._follower(name) for name in self._followers]
        call = self.services[0].call_path
        direct = mesh.direct_paths
        return State(
            gateway_url=gateway_url,
            predict_url=f"{gateway_url}{mesh.entry_path}{call}",
            direct_urls={role: f"{gateway_url}{path}{call}" for role, path in direct.items()},
            serving_path=mesh.serving_path,
            postgres_uri=self.database.uri,
            postgres_log=str(server.log) if (server := self.database.server) else None,
            mirror_percentage=self.mirror_percentage,
            primary=next(iter(primary), None),
            shadow=next(iter(shadows), None),
            follower=next(iter(followers), None),
            verdict_url=self._url(LIVE_VERDICT),
            judging=self._judged_by(),
            candidates=self.candidates,
            more_shadows=tuple(shadows[1:]),
            more_followers=tuple(followers[1:]),
            copies_url=copies_url,
            kustomization=str(self.options.kustomization.resolve()),
            rendered=digest(self.manifests),
        )

    def _url(self, component: str) -> str | None:
        """Where a Deployment listens; None when it is not run."""
        listens = component in self._commands
        return f"http://127.0.0.1:{self._ports[component].http}/" if listens else None

    @property
    def _followers(self) -> list[str]:
        """The processes that bring calls to the shadows."""
        names = [deployment.component for deployment in self.deployments]
        return [name for name in names if name == FOLLOWER or name.endswith(f"-{FOLLOWER}")]

    def _follower(self, name: str) -> Follower:
        return Follower(metrics_url=f"{self._url(name)}metrics", pid=self._pids.get(name))

    def _side(self, service: InferenceService) -> Side:
        first, *more = (self._pods(service, number) for number in self._numbers)
        transformer = pod_name(service, "transformer")
        return Side(
            **vars(first),
            service=self.environment(transformer)["INFERENCE_SERVICE"],
            version=version_of(service),
            transformer_log=str(self.supervisor.log_of(transformer)),
            more=tuple(more),
        )

    def _pods(self, service: InferenceService, number: int) -> Pods:
        transformer = pod_name(service, "transformer", number)
        predictor = pod_name(service, "predictor", number)
        return Pods(
            transformer_url=f"http://127.0.0.1:{self._ports[transformer].http}",
            transformer_grpc_url=f"127.0.0.1:{self._ports[transformer].grpc}",
            transformer_pid=self._pids.get(transformer),
            predictor_url=f"http://127.0.0.1:{self._ports[predictor].http}",
            predictor_pid=self._pids.get(predictor),
            spool_dir=self._commands[transformer].env.get("SPOOL_DIR", ""),
        )


@contextmanager
def in_foreground(stack: Stack, screen: Console) -> Iterator[State]:
    """Start a stack, each step on the screen; stop it when the block ends, however it ends.

    A signal makes the stack's next `check` raise StopRequested, which is shown as `stopping`; one
    more, sent after the children were given some time to finish, kills them at once.
    """
    first = float("inf")

    def on_signal(_: int, __: FrameType | None) -> None:
        # Nothing is raised here: Python would swallow it if a destructor happened to be running.
        nonlocal first
        stack.supervisor.stop_requested = True
        # Debounced: `make` passes on what the whole process group got, so one Ctrl-C comes twice.
        stack.supervisor.hurried = time.monotonic() > first + DEBOUNCE_SECONDS
        first = min(first, time.monotonic())

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        with steps(screen) as step:
            state = stack.start(step)
        yield state
    except Exception:
        # Whatever fails after a signal fails because of it: Ctrl-C reaches initdb as well.
        if not stack.supervisor.stop_requested:
            raise
        screen.print("stopping")
        raise StopRequested from None
    finally:
        stack.supervisor.stop_requested = True
        stack.stop(partial(screen.print, soft_wrap=True))
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def steps(screen: Console) -> Iterator[Progress]:
    """Call it with each step: one line that changes on a terminal, a line for each elsewhere.

    A text of several lines wants someone to act on it, and stays on the screen.
    """

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True)

    if not screen.is_terminal:
        yield say
        return
    with Status("starting", console=screen) as status:
        yield lambda text: say(text) if "\n" in text else status.update(text)
