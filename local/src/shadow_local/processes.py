"""The containers of InferenceServices as commands for this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shadow_local.containers import Container, Variable
from shadow_local.document import Untranslated
from shadow_local.projects import Project, image_name, project_of
from shadow_local.services import Component, InferenceService
from shadow_local.uris import masked


@dataclass(frozen=True)
class Command:
    """A process to start: what, with which environment, where, and when it is ready."""

    name: str
    words: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    probes: tuple[str, ...] = ()  # URLs that answer 200 once it is ready
    stop_seconds: int = 30

    def __str__(self) -> str:
        """The command as a shell takes it, environment included."""
        env = " ".join(f"{k}={shlex.quote(v)}" for k, v in self.env.items() if k != "PATH")
        return f"{env} {shlex.join(self.words)}"


@dataclass(frozen=True)
class Surroundings:
    """What a pod would find around its container, here."""

    repository: Path
    folder: Path
    path: str  # PATH of the shell
    secret: Callable[[str, str], str]
    localised_uri: Callable[[str], str]


@dataclass(frozen=True)
class Ports:
    """The local ports of one component."""

    http: int
    grpc: int


def command(
    service: InferenceService,
    component: Component,
    ports: Ports,
    predictor_port: int,
    around: Surroundings,
) -> tuple[Command, list[str]]:
    """The process of a component, and what differs from its container, one sentence each."""
    container = component.container
    name = f"{service.role}-{component.kind}"
    folder = around.folder / name
    mounts = {
        path: folder / volume
        for path, volume in container.mounts.items()
        if component.volumes[volume] == "folder"
    }
    env, differences = _environment(service, container, mounts, around, name)
    project = _project(container, around.repository)
    args = _arguments(service, component, ports, predictor_port, env)
    _check_entrypoint(container, project.module)
    for path in (folder, *mounts.values()):
        path.mkdir(parents=True, exist_ok=True)
    env |= {"PATH": f"{project.python.parent}:{around.path}", "PYTHONUNBUFFERED": "1"}
    probes = [f"http://127.0.0.1:{ports.http}{probe.path}" for probe in container.probes]
    return Command(
        name=name,
        words=(str(project.python), "-m", project.module, *args),
        env=env,
        folder=folder,
        probes=tuple(dict.fromkeys(probes)),
        stop_seconds=component.stop_seconds,
    ), differences


def _project(container: Container, repository: Path) -> Project:
    """The installed project behind a container's image."""
    project = project_of(container.image, repository)
    if project is None:
        raise Untranslated(
            f"{container.owner}: image {container.image} is of no project here; name it like a "
            "console script in a pyproject.toml of this repository or of a folder in examples/."
        )
    folder = project.folder.relative_to(repository)
    if not project.python.exists():
        raise Untranslated(
            f"{container.owner}: {folder}, of image {container.image}, is not installed; "
            f"run `make install PROJECT={folder}`."
        )
    if project.environment_of.resolve() != project.folder.resolve():
        raise Untranslated(
            f"{container.owner}: {folder}/.venv is a copy of the one in {project.environment_of}, "
            f"whose code it would run; `rm -rf {folder}/.venv`, and run the same again."
        )
    return project


def _environment(
    service: InferenceService,
    container: Container,
    mounts: Mapping[str, Path],
    around: Surroundings,
    name: str,
) -> tuple[dict[str, str], list[str]]:
    env: dict[str, str] = {}
    differences = []
    for variable in container.variables:
        value = expand(_value(service, variable, around), env)
        if variable.name == "POSTGRES_URI":
            local = around.localised_uri(value)
            if local != value:
                shown = masked(local)
                differences.append(f"{name} writes to {shown}; on a cluster, over verified TLS")
            value = local
        env[variable.name] = _below_mount(value, mounts)
    for path, folder in mounts.items():
        if path == "/tmp":  # noqa: S108
            env["TMPDIR"] = str(folder)
    return env, differences


def _value(service: InferenceService, variable: Variable, around: Surroundings) -> str:
    if variable.secret is not None:
        return around.secret(*variable.secret)
    if variable.label is not None:
        if variable.label not in service.labels:
            raise Untranslated(
                f"InferenceService {service.name}: env {variable.name} reads the label "
                f"{variable.label}, which KServe does not put on its pods."
            )
        return service.labels[variable.label]
    if variable.pod_field is not None:
        return service.namespace if variable.pod_field.endswith("namespace") else service.name
    return variable.value


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does: unknown names stay, `$$` is one dollar sign."""
    return re.sub(
        r"\$\$|\$\((\w+)\)",
        lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]),
        text,
    )


def _below_mount(value: str, mounts: Mapping[str, Path]) -> str:
    """A path below a mounted volume as a path below its folder here; other values as they are."""
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return str(folder) + value[len(path) :]
    return value


def _arguments(
    service: InferenceService,
    component: Component,
    ports: Ports,
    predictor_port: int,
    env: Mapping[str, str],
) -> list[str]:
    """The manifest's arguments, KServe's own, and this machine's ports in place of the pod's."""
    container = component.container
    args = [expand(word, env) for word in container.args]
    given = {word.split("=", 1)[0] for word in args}
    for taken in ("--http_port", "--grpc_port", "--predictor_host"):
        if taken in given:
            raise Untranslated(f"{container.owner}: args name {taken}, which KServe sets itself.")
    if container.http_port != 8080:
        raise Untranslated(
            f"{container.owner}: containerPort is {container.http_port}; KServe starts it on 8080."
        )
    if component.kind == "transformer":
        if "--model_name" not in given:
            args += ["--model_name", service.name]
        if component.workers is not None and "--workers" not in given:
            args += ["--workers", str(component.workers)]
        args += ["--predictor_host", f"127.0.0.1:{predictor_port}"]
    return [*args, "--http_port", str(ports.http), "--grpc_port", str(ports.grpc)]


def _check_entrypoint(container: Container, module: str) -> None:
    """Accept the image's own entry point only: it is what is run here."""
    entrypoints = ((), ("python", "-m", module), (image_name(container.image),))
    if container.command not in entrypoints:
        raise Untranslated(
            f"{container.owner}: command {list(container.command)} is not the image's own; "
            f"leave it out or make it {image_name(container.image)}."
        )
    for probe in container.probes:
        if probe.container_port != container.http_port:
            raise Untranslated(
                f"{container.owner}: {probe.kind} asks port {probe.container_port}, "
                f"the container listens on {container.http_port}."
            )
