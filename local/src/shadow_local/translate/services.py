"""InferenceServices: the container of each of their components, and what KServe adds to them.

A component's container stands in the InferenceService itself, or, for a predictor that names a
model and a runtime, in a ServingRuntime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from shadow_local.translate.document import (
    Manifest,
    Object,
    Section,
    Untranslated,
    objects,
    of_kind,
)

Kind = Literal["predictor", "transformer"]
Role = Literal["primary", "shadow"]
Mode = Literal["standard", "knative"]
Runtimes = Mapping[str, Mapping[str, Any]]  # a ServingRuntime's name -> its container

# Placement, scale and identity of pods; REPLICAS says how many run here.
ONLY_IN_CLUSTERS = (
    "affinity",
    "annotations",
    "automountServiceAccountToken",
    "deploymentStrategy",
    "enableServiceLinks",
    "imagePullSecrets",
    "labels",
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
# What a predictor's model may set of its runtime's container.
OF_CONTAINER = (
    *ONLY_IN_PODS,
    "args",
    "command",
    "env",
    "image",
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "startupProbe",
    "volumeMounts",
)
COMPONENT = "app.kubernetes.io/component"
FURTHER = "shadow-deployment/candidate"  # the label of shadows after the first
KSERVE_CONTAINER = "kserve-container"  # the one of a component that is called
HTTP_PORT, GRPC_PORT = 8080, 8081  # where KServe starts every container
MODEL_FOLDER = "/mnt/models"  # where a runtime finds the model of a storageUri
MODE = "serving.kserve.io/deploymentMode"
MODES: dict[str | None, Mode] = {"Standard": "standard", "RawDeployment": "standard"}
MODES |= {"Knative": "knative", "Serverless": "knative"}


@dataclass(frozen=True)
class Ports:
    """Where one pod of a component listens on this machine."""

    http: int
    grpc: int

    def behind(self, target: int) -> int | None:
        """The local port in place of a pod's; None for one where nothing listens."""
        return {HTTP_PORT: self.http, GRPC_PORT: self.grpc}.get(target)


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
    most_replicas: int
    # Of a ServingRuntime's container: the model's folder, below that of the kustomization.
    model: str | None = None


@dataclass(frozen=True)
class InferenceService:
    """A KServe InferenceService with a transformer in front of its predictor."""

    name: str
    namespace: str
    mode: Mode
    role: Role
    predictor: Component
    transformer: Component
    number: int = 1  # among the shadows
    judged: bool = False  # as a candidate; a promotion changes roles, and not who that is

    @property
    def side(self) -> str:
        """What it is called here: `primary`, `shadow`, the second shadow `shadow-2`."""
        return self.role if self.number == 1 else f"{self.role}-{self.number}"

    def labels(self, kind: Kind) -> dict[str, str]:
        """What KServe puts on a component's pods."""
        own = {"serving.kserve.io/inferenceservice": self.name, "component": kind}
        return own | ({"app": f"isvc.{self.name}-{kind}"} if self.mode == "standard" else {})

    @property
    def model_name(self) -> str:
        """The name in the path of a call; KServe uses the service's own when none is given."""
        return named_model(self.transformer.container.args) or self.name

    @property
    def call_path(self) -> str:
        """The path of a call in the protocol that the predictor speaks."""
        if any(v.name == "OPENAI_PREDICTOR_PREFIX" for v in self.transformer.container.variables):
            return "openai/v1/chat/completions"
        words = " ".join(self.transformer.container.args)
        if re.search(r"--predictor_protocol[ =](v2|grpc-v2)\b", words):
            return f"v2/models/{self.model_name}/infer"
        return f"v1/models/{self.model_name}:predict"

    def host(self, kind: Kind) -> str:
        """The name of the Service that KServe makes for a component."""
        return f"{self.name}-{kind}.{self.namespace}.svc.cluster.local"


def inference_services(manifests: Iterable[Manifest]) -> list[InferenceService]:
    """The InferenceServices among rendered objects: primary, shadow, and further shadows."""
    manifests = list(manifests)
    runtimes = dict(_runtime(item) for item in objects(manifests, "ServingRuntime"))
    services, further = [], set()
    for item in objects(manifests, "InferenceService"):
        services.append(_service(item, runtimes))
        if FURTHER in item.metadata.table("labels"):
            further.add(item.name)
    primaries = [service for service in services if service.role == "primary"]
    if len(primaries) > 1:
        raise Untranslated(
            f"InferenceServices {primaries[1].name} and {primaries[0].name} both have SHADOW_ROLE "
            "primary; only one can."
        )
    shadows = [service for service in services if service.role == "shadow"]
    # By label: Kustomize renders them by name.
    shadows.sort(key=lambda service: service.name in further)
    return primaries + [replace(item, number=n) for n, item in enumerate(shadows, start=1)]


def candidates(manifests: Iterable[Manifest]) -> tuple[str, ...]:
    """Those that are judged, in each stage the ones of the manifests' SHADOW_CANDIDATES; whatever
    runs their models, such as a runtime that only the cluster has.
    """
    further = {}
    for item in of_kind(manifests, "InferenceService"):
        labels = item["metadata"].get("labels") or {}
        if _is_judged(labels, _role_of(item)):
            further[item["metadata"]["name"]] = FURTHER in labels
    return tuple(sorted(further, key=further.__getitem__))


def _is_judged(labels: Mapping[str, Any], role: str | None) -> bool:
    """As a candidate; by the label where there is one, which a promotion leaves."""
    return bool(labels.get(COMPONENT, role) == "shadow")


def _role_of(item: Manifest) -> str | None:
    containers = (item["spec"].get("transformer") or {}).get("containers") or ()
    env = [variable for container in containers for variable in container.get("env") or ()]
    return next((one.get("value") for one in env if one["name"] == "SHADOW_ROLE"), None)


def called_port(container: Mapping[str, Any]) -> int:
    """Where KServe sends the calls: the first port that a container lists."""
    ports: list[dict[str, Any]] = container.get("ports") or [{}]
    return int(ports[0].get("containerPort", HTTP_PORT))


def named_model(words: Iterable[str]) -> str | None:
    """The model's name among a command's words; the last one counts, as with KServe's servers."""
    names = re.findall(r"(?<!\S)--model_name[= ](\S+)", " ".join(words))
    return names[-1] if names else None


def _service(item: Object, runtimes: Runtimes) -> InferenceService:
    mode = MODES.get(item.metadata.table("annotations").get(MODE))
    if mode is None:
        raise item.metadata.refusal("annotations", f"{MODE} must be one of {list(MODES)}")
    predictor = _component(item, "predictor", runtimes)
    transformer = _component(item, "transformer", runtimes)
    roles = [v.value for v in transformer.container.variables if v.name == "SHADOW_ROLE"]
    role: Role
    match roles:
        case ["primary" | "shadow" as role]:
            return InferenceService(
                item.name,
                item.namespace,
                mode,
                role,
                predictor,
                transformer,
                judged=_is_judged(item.metadata.table("labels"), role),
            )
    raise Untranslated(
        f"InferenceService {item.name}: SHADOW_ROLE of its transformer is "
        f"{' and '.join(roles) or 'missing'}; set it to primary or shadow."
    )


def _component(item: Object, kind: Kind, runtimes: Runtimes) -> Component:
    if not item.spec.has(kind):
        raise item.spec.refusal(
            kind, "an InferenceService is a transformer in front of a predictor"
        )
    with item.spec.section(kind) as fields:
        # The gateway's own timeout is the shorter one; KServe's is a limit of its ingress.
        fields.ignored_locally(*ONLY_IN_CLUSTERS, "timeout")
        containers = list(fields.sections("containers"))
        model = None
        if kind == "predictor" and fields.has("model"):
            with fields.section("model") as served:
                containers.append(_runtime_container(served, item, runtimes))
                model = _model_folder(served)
        if len(containers) != 1:
            raise fields.refusal("containers", "one container is run for each component")
        container = container_of(containers[0], KSERVE_CONTAINER)
        volumes = dict(volume_of(volume) for volume in fields.sections("volumes"))
        for volume in container.mounts.values():
            if volume not in volumes:
                raise fields.refusal("volumes", f"the container mounts {volume!r}")
        return Component(
            kind=kind,
            container=container,
            volumes=volumes,
            stop_seconds=fields.integer("terminationGracePeriodSeconds", 30),
            workers=fields.take("containerConcurrency"),
            most_replicas=fields.integer("maxReplicas", 1),
            model=model,
        )


def _runtime(item: Object) -> tuple[str, Mapping[str, Any]]:
    # Which models it supports is compared with them before anything is run (translate/cluster).
    item.spec.ignored_locally("annotations", "disabled", "multiModel", "protocolVersions")
    item.spec.ignored_locally("supportedModelFormats")
    match item.spec.take("containers"):
        case [dict() as container]:
            return item.name, container
    raise item.spec.refusal("containers", "one container is run for each component")


def _runtime_container(model: Section, item: Object, runtimes: Runtimes) -> Section:
    """The container that KServe makes of a runtime's and of what the model sets of it."""
    model.ignored_locally("modelFormat", "protocolVersion")
    runtime = runtimes.get(model.text("runtime", ""))
    if runtime is None:
        # KServe chooses by format among those that the cluster's admin has installed.
        known = f"these are there: {[*runtimes]}" if runtimes else "it has none"
        reason = (
            "name a ServingRuntime of the kustomization, as docs/models/runtime.md shows, not one "
            f"of the cluster's; {known}"
        )
        raise model.refusal("runtime", reason)
    own = {name: model.take(name) for name in OF_CONTAINER if model.has(name)}
    variables = [*runtime.get("env", ()), *own.get("env", ())]
    merged = {
        **runtime,
        **own,
        "args": [*runtime.get("args", ()), *own.get("args", ())],
        "env": list({variable["name"]: variable for variable in variables}.values()),
    }
    text = json.dumps(merged).replace("{{.Name}}", item.name)
    text = text.replace("{{.Namespace}}", item.namespace)
    if found := re.search(r"\{\{.*?(?:\}\}|$)", text):
        reason = "its container may refer to {{.Name}} and {{.Namespace}} alone; write out "
        raise model.refusal("runtime", f"{reason}{found[0]}")
    return Section(model.owner, f"{model.path} with its runtime", json.loads(text))


def _model_folder(model: Section) -> str:
    """Which folder below the kustomization's own stands for the model's storage."""
    found = re.fullmatch(r"pvc://([^/]+(?:/[^/]+)*)/?", model.text("storageUri"))
    if found is None or ".." in found[1].split("/"):
        raise model.refusal(
            "storageUri",
            "only pvc://<claim>/<folder> is a folder here, next to the kustomization; write that "
            "here, and what the cluster is to download in a kustomization on top",
        )
    return found[1]


def volume_of(section: Section) -> tuple[str, str]:
    """A volume's name, and whether it is a "folder" or a "secret"."""
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


def container_of(section: Section, only: str | None = None) -> Container:
    """A container that listens where KServe's do; it is called `only`, where that is given."""
    with section as fields:
        if fields.text("name") != only and only is not None:
            raise fields.refusal("name", f"only {only} is run; there are no sidecars")
        fields.ignored_locally(*ONLY_IN_PODS)
        _check_lifecycle(fields)
        ports = dict(_port(item) for item in fields.sections("ports"))
        if ports.get("http1", ports.get("http", HTTP_PORT)) != HTTP_PORT:
            raise fields.refusal(
                "ports",
                f"here every container listens on {HTTP_PORT}; another port goes into a "
                "kustomization on top, for the cluster alone",
            )
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
