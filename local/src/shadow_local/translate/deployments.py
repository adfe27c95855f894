"""Deployments: what runs beside the models, such as the follower, as one process each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shadow_local.translate.document import Manifest, Object, objects
from shadow_local.translate.services import ONLY_IN_CLUSTERS, Container, container_of, volume_of

COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Deployment:
    """A Deployment of one container; `component` is what its pods' label says."""

    name: str
    namespace: str
    component: str
    labels: dict[str, str]
    container: Container
    volumes: dict[str, str]  # volume name -> "folder" or "secret"
    stop_seconds: int


def deployments(manifests: Iterable[Manifest]) -> list[Deployment]:
    """Those of the rendered Deployments that have pods."""
    found = [_deployment(item) for item in objects(manifests, "Deployment")]
    return [item for item in found if item is not None]


def _deployment(item: Object) -> Deployment | None:
    spec = item.spec
    replicas = spec.integer("replicas", 1)
    if replicas > 1:
        raise spec.refusal("replicas", "one process is run for a Deployment")
    with spec.section("strategy") as strategy:
        strategy.ignored_locally("type")
    with spec.section("selector") as selector, spec.section("template") as template:
        wanted = selector.table("matchLabels")
        with template.section("metadata") as metadata:
            metadata.ignored_locally("annotations")
            labels = metadata.table("labels")
        if not wanted.items() <= labels.items():
            raise selector.refusal("matchLabels", f"the pods have {labels}")
        with template.section("spec") as pod:
            pod.ignored_locally(*ONLY_IN_CLUSTERS)
            containers = list(pod.sections("containers"))
            if len(containers) != 1:
                raise pod.refusal("containers", "one container is run for each Deployment")
            container = container_of(containers[0])
            volumes = dict(volume_of(volume) for volume in pod.sections("volumes"))
            for volume in container.mounts.values():
                if volume not in volumes:
                    raise pod.refusal("volumes", f"the container mounts {volume!r}")
            stop_seconds = pod.integer("terminationGracePeriodSeconds", 30)
    if COMPONENT not in labels:
        raise spec.refusal("template", f"its pods need the label {COMPONENT}")
    if replicas == 0:
        return None
    component = labels[COMPONENT]
    return Deployment(
        item.name, item.namespace, component, labels, container, volumes, stop_seconds
    )
