"""InferenceServices: the container of each of their components, and what KServe adds to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from shadow_local.translate.document import Manifest, Object, Section, Untranslated, objects

Kind = Literal["predictor", "transformer"]
Role = Literal["primary", "shadow"]
Mode = Literal["standard", "knative"]

# Placement, scale and identity of pods: this machine runs one process of each.
ONLY_IN_CLUSTERS = (
    "affinity",
    "annotations",
    "automountServiceAccountToken",
    "deploymentStrategy",
    "enableServiceLinks",
    "imagePullSecrets",
    "labels",
    "maxReplicas",
    "minReplicas",
    "nodeSelector",
    "priorityClassName",
    "scaleMetric",
    "scaleTarget",
    "securityContext",
    "serviceAccountName",
    "tolerations",
    "topologySpreadConstraints",
)
# What a pod needs and a process on this machine does not have: isolation, quotas and pulling.
ONLY_IN_PODS = ("imagePullPolicy", "resources", "securityContext", "terminationMessagePolicy")
HTTP_PORT = 8080  # where KServe starts every container
MODES: dict[str | None, Mode] = {"Standard": "standard", "RawDeployment": "standard"}
MODES |= {"Knative": "knative", "Serverless": "knative"}


@dataclass(frozen=True)
class Variable:
    """An environment variable: a value with `$(OTHER)` references, or where the value stands."""

    name: str
    value: str = ""
    label: str | None = None
    pod_field: str | None = None
    secret: tuple[str, str] | None = None


@dataclass(frozen=True)
class Container:
    """A container's process, as written in the manifest."""

    owner: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    variables: tuple[Variable, ...]
    mounts: dict[str, str]  # mount path -> volume name
    probe_paths: tuple[str, ...]  # answer 200 once the container takes traffic


@dataclass(frozen=True)
class Component:
    """The predictor or the transformer of an InferenceService, as one process."""

    kind: Kind
    container: Container
    volumes: dict[str, str]  # volume name -> "folder" or "secret"
    stop_seconds: int
    workers: int | None


@dataclass(frozen=True)
class InferenceService:
    """A KServe InferenceService with a transformer in front of its predictor."""

    name: str
    namespace: str
    mode: Mode
    role: Role
    predictor: Component
    transformer: Component

    @property
    def labels(self) -> dict[str, str]:
        """What KServe puts on the pods."""
        return {"serving.kserve.io/inferenceservice": self.name, "app": f"isvc.{self.name}"}

    @property
    def model_name(self) -> str:
        """The name in the path of a call; KServe uses the service's own when none is given."""
        args = self.transformer.container.args
        if "--model_name" in args:
            return args[args.index("--model_name") + 1]
        return self.name

    def host(self, kind: Kind) -> str:
        """The name of the Service that KServe makes for a component."""
        return f"{self.name}-{kind}.{self.namespace}.svc.cluster.local"


def inference_services(manifests: Iterable[Manifest]) -> list[InferenceService]:
    """The InferenceServices among rendered objects, primary first."""
    services: dict[Role, InferenceService] = {}
    for item in objects(manifests, "InferenceService"):
        service = _service(item)
        if other := services.get(service.role):
            raise Untranslated(
                f"InferenceServices {service.name} and {other.name} both have SHADOW_ROLE "
                f"{service.role}; only one can."
            )
        services[service.role] = service
    return [services[role] for role in sorted(services)]


def _service(item: Object) -> InferenceService:
    mode = MODES.get(item.metadata.table("annotations").get("serving.kserve.io/deploymentMode"))
    if mode is None:
        raise item.metadata.refusal(
            "annotations", f"serving.kserve.io/deploymentMode must be one of {list(MODES)}"
        )
    predictor = _component(item.spec, "predictor")
    transformer = _component(item.spec, "transformer")
    roles = [v.value for v in transformer.container.variables if v.name == "SHADOW_ROLE"]
    role: Role
    match roles:
        case ["primary" | "shadow" as role]:
            return InferenceService(item.name, item.namespace, mode, role, predictor, transformer)
    raise Untranslated(
        f"InferenceService {item.name}: SHADOW_ROLE of its transformer is "
        f"{' and '.join(roles) or 'missing'}; set it to primary or shadow."
    )


def _component(spec: Section, kind: Kind) -> Component:
    if not spec.has(kind):
        raise spec.refusal(kind, "an InferenceService is a transformer in front of a predictor")
    with spec.section(kind) as fields:
        # The gateway's own timeout is the shorter one; KServe's is a limit of its ingress.
        fields.ignored_locally(*ONLY_IN_CLUSTERS, "timeout")
        containers = [_container(item) for item in fields.sections("containers")]
        if len(containers) != 1:
            raise fields.refusal("containers", "one container is run for each component")
        volumes = dict(_volume(item) for item in fields.sections("volumes"))
        for volume in containers[0].mounts.values():
            if volume not in volumes:
                raise fields.refusal("volumes", f"the container mounts {volume!r}")
        return Component(
            kind=kind,
            container=containers[0],
            volumes=volumes,
            stop_seconds=fields.integer("terminationGracePeriodSeconds", 30),
            workers=fields.take("containerConcurrency"),
        )


def _volume(section: Section) -> tuple[str, str]:
    with section as volume:
        name = volume.text("name")
        if volume.has("secret"):
            with volume.section("secret") as secret:
                secret.ignored_locally("secretName", "items", "optional", "defaultMode")
            return name, "secret"
        if volume.has("ephemeral"):
            # A disk of the pod's own: the claim is its size and class, here it is a folder.
            volume.ignored_locally("ephemeral")
            return name, "folder"
        with volume.section("emptyDir") as folder:
            folder.ignored_locally("sizeLimit", "medium")
        return name, "folder"


def _container(section: Section) -> Container:
    with section as fields:
        if fields.text("name") != "kserve-container":
            raise fields.refusal("name", "only kserve-container is run; there are no sidecars")
        fields.ignored_locally(*ONLY_IN_PODS)
        _check_lifecycle(fields)
        ports = dict(_port(item) for item in fields.sections("ports"))
        if ports.get("http1", ports.get("http", HTTP_PORT)) != HTTP_PORT:
            raise fields.refusal("ports", f"KServe starts the container on {HTTP_PORT}")
        return Container(
            owner=fields.owner,
            image=fields.text("image"),
            command=tuple(fields.texts("command")),
            args=tuple(fields.texts("args")),
            variables=tuple(_variable(item) for item in fields.sections("env")),
            mounts=dict(_mount(item) for item in fields.sections("volumeMounts")),
            probe_paths=tuple(_probe_paths(fields, ports)),
        )


def _port(section: Section) -> tuple[str, int]:
    with section as port:
        if port.text("protocol", "TCP") != "TCP":
            raise port.refusal("protocol", "only TCP is served")
        return port.text("name", "http"), port.integer("containerPort")


def _variable(section: Section) -> Variable:
    with section as item:
        name = item.text("name")
        if not item.has("valueFrom"):
            return Variable(name, value=item.text("value", ""))
        with item.section("valueFrom") as source:
            if source.has("secretKeyRef"):
                with source.section("secretKeyRef") as secret:
                    # An optional key is there on this machine, so that the pod's path is taken.
                    secret.ignored_locally("optional")
                    return Variable(name, secret=(secret.text("name"), secret.text("key")))
            with source.section("fieldRef") as reference:
                reference.ignored_locally("apiVersion")
                path = reference.text("fieldPath")
                if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", path):
                    return Variable(name, label=label[1])
                if path not in ("metadata.name", "metadata.namespace"):
                    raise reference.refusal("fieldPath", "labels, name and namespace are known")
                return Variable(name, pod_field=path)


def _mount(section: Section) -> tuple[str, str]:
    with section as mount:
        mount.ignored_locally("readOnly")
        return mount.text("mountPath"), mount.text("name")


def _check_lifecycle(fields: Section) -> None:
    """Accept a preStop that only waits: no endpoint list has to be drained on one machine."""
    with fields.section("lifecycle") as lifecycle, lifecycle.section("preStop") as hook:
        with hook.section("sleep") as sleep:
            sleep.ignored_locally("seconds")
        with hook.section("exec") as action:
            command = action.texts("command")
            if command and "sleep" not in " ".join(command):
                raise action.refusal("command", "a preStop hook may only sleep")


def _probe_paths(fields: Section, ports: dict[str, int]) -> Iterator[str]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if not fields.has(kind):
            continue
        with fields.section(kind) as probe:
            # How often a kubelet asks; here each is asked until it answers, then no more.
            probe.ignored_locally("periodSeconds", "timeoutSeconds", "failureThreshold")
            probe.ignored_locally("successThreshold", "initialDelaySeconds")
            with probe.section("httpGet") as get:
                if get.text("scheme", "HTTP") != "HTTP":
                    raise get.refusal("scheme", "only HTTP is asked")
                port = get.take("port", HTTP_PORT)
                if ports.get(port, port) != HTTP_PORT:
                    raise get.refusal("port", f"the container listens on port {HTTP_PORT}")
                yield get.text("path")
