"""InferenceServices: their two components and what KServe adds to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from shadow_local.containers import Container, Variable, read_container
from shadow_local.document import Section, Untranslated, document

Kind = Literal["predictor", "transformer"]
Role = Literal["primary", "shadow"]

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
MODES = {"Standard": "standard", "RawDeployment": "standard"}
MODES |= {"Knative": "knative", "Serverless": "knative"}


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
    mode: Literal["standard", "knative"]
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


def inference_services(manifests: Iterable[dict[str, Any]]) -> list[InferenceService]:
    """The InferenceServices among rendered objects, primary first."""
    found = [_read(item) for item in manifests if item.get("kind") == "InferenceService"]
    by_role = {service.role: service for service in found}
    for service in found:
        if (other := by_role[service.role]) is not service:
            raise Untranslated(
                f"InferenceServices {service.name} and {other.name} both have SHADOW_ROLE "
                f"{service.role}; only one can."
            )
    return sorted(found, key=lambda service: service.role)


def _read(manifest: dict[str, Any]) -> InferenceService:
    with document(manifest) as top, top.section("metadata") as metadata:
        top.has_no_effect_here("apiVersion", "kind")
        metadata.has_no_effect_here("labels")
        annotations = metadata.table("annotations")
        mode = annotations.get("serving.kserve.io/deploymentMode")
        if mode not in MODES:
            raise metadata.refusal(
                "annotations", f"serving.kserve.io/deploymentMode must be one of {list(MODES)}"
            )
        with top.section("spec") as spec:
            predictor = _component(spec, "predictor")
            transformer = _component(spec, "transformer")
        return InferenceService(
            name=metadata.text("name"),
            namespace=metadata.text("namespace"),
            mode="standard" if MODES[mode] == "standard" else "knative",
            role=_role(top, transformer.container.variables),
            predictor=predictor,
            transformer=transformer,
        )


def _role(top: Section, variables: Iterable[Variable]) -> Role:
    value = next((item.value for item in variables if item.name == "SHADOW_ROLE"), "missing")
    if value == "primary":
        return "primary"
    if value == "shadow":
        return "shadow"
    raise top.refusal("spec", f"SHADOW_ROLE of its transformer is {value}, not primary or shadow")


def _component(spec: Section, kind: Kind) -> Component:
    if not spec.has(kind):
        raise spec.refusal(kind, "an InferenceService is a transformer in front of a predictor")
    with spec.section(kind) as fields:
        fields.has_no_effect_here(*ONLY_IN_CLUSTERS)
        containers = [read_container(item) for item in fields.sections("containers")]
        if len(containers) != 1:
            raise fields.refusal("containers", "one container is run for each component")
        volumes = dict(_volume(item) for item in fields.sections("volumes"))
        for volume in containers[0].mounts.values():
            if volume not in volumes:
                raise fields.refusal("volumes", f"the container mounts {volume!r}")
        workers = fields.take("containerConcurrency")
        # The gateway's own timeout is the shorter one; KServe's is a limit of its ingress.
        fields.has_no_effect_here("timeout")
        return Component(
            kind=kind,
            container=containers[0],
            volumes=volumes,
            stop_seconds=fields.whole("terminationGracePeriodSeconds", 30),
            workers=workers,
        )


def _volume(section: Section) -> tuple[str, str]:
    with section as volume:
        name = volume.text("name")
        if volume.has("secret"):
            with volume.section("secret") as secret:
                secret.has_no_effect_here("secretName", "items", "optional", "defaultMode")
            return name, "secret"
        if volume.has("ephemeral"):
            # A disk of the pod's own: the claim is its size and class, here it is a folder.
            volume.has_no_effect_here("ephemeral")
            return name, "folder"
        with volume.section("emptyDir") as folder:
            folder.has_no_effect_here("sizeLimit", "medium")
        return name, "folder"
