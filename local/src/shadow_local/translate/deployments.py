"""Deployments: what runs beside the models, such as the follower, as one process each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from shadow_local.translate.document import Manifest, Object, Section, objects
from shadow_local.translate.services import (
    COMPONENT,
    ONLY_IN_CLUSTERS,
    Container,
    container_of,
    volume_of,
)

ConfigMaps = Mapping[str, Mapping[str, str]]
# Of `shadow-report serve`: how it is served, and which calls it judges.
SERVING = ("--address", "--port", "--every", "--max-age")
WINDOW = ("--since", "--last", "--since-rollout")
RULES = "/etc/shadow-report"  # where the option `rules` mounts them


@dataclass(frozen=True)
class Deployment:
    """A Deployment of one container; `component` is what its pods' label says."""

    name: str
    namespace: str
    component: str
    labels: dict[str, str]
    container: Container
    volumes: dict[str, str]  # volume name -> "folder" or "secret"
    files: dict[str, dict[str, str]]  # volume name -> what a ConfigMap puts there, by file name
    stop_seconds: int


def deployments(manifests: Iterable[Manifest]) -> list[Deployment]:
    """Those of the rendered Deployments that have pods."""
    manifests = list(manifests)
    config_maps = {
        item["metadata"]["name"]: item.get("data", {})
        for item in manifests
        if item.get("kind") == "ConfigMap"
    }
    found = [_deployment(item, config_maps) for item in objects(manifests, "Deployment")]
    return [item for item in found if item is not None]


def with_rules(deployment: Deployment, texts: Iterable[str]) -> Deployment:
    """The Deployment of a `shadow-report serve` that goes by these files of rules as well."""
    files = {f"rules-{number}.yaml": text for number, text in enumerate(texts, start=1)}
    if not files:
        return deployment
    container = deployment.container
    return replace(
        deployment,
        container=replace(
            container,
            args=(*container.args, *(f"--rules={RULES}/{name}" for name in files)),
            mounts={**container.mounts, RULES: "rules"},
        ),
        volumes={**deployment.volumes, "rules": "folder"},
        files={**deployment.files, "rules": files},
    )


def judging_options(words: Iterable[str]) -> tuple[str, ...]:
    """Of a `shadow-report serve` the options that `compare` has too and that say how calls are
    judged, and not which; a word each, also where name and value stand apart.
    """
    options: list[str] = []
    for word in words:
        if word.startswith("--"):
            options.append(word)
        elif options:
            options[-1] += f"={word}"
    return tuple(word for word in options if word.partition("=")[0] not in (*SERVING, *WINDOW))


def _deployment(item: Object, config_maps: ConfigMaps) -> Deployment | None:
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
            volumes, files = {}, {}
            for volume in pod.sections("volumes"):
                name, volumes[name], files[name] = _volume(volume, config_maps)
            for mounted in container.mounts.values():
                if mounted not in volumes:
                    raise pod.refusal("volumes", f"the container mounts {mounted!r}")
            stop_seconds = pod.integer("terminationGracePeriodSeconds", 30)
    if COMPONENT not in labels:
        raise spec.refusal("template", f"its pods need the label {COMPONENT}")
    if replicas == 0:
        return None
    return Deployment(
        name=item.name,
        namespace=item.namespace,
        component=labels[COMPONENT],
        labels=labels,
        container=container,
        volumes=volumes,
        files=files,
        stop_seconds=stop_seconds,
    )


def _volume(section: Section, config_maps: ConfigMaps) -> tuple[str, str, dict[str, str]]:
    """A volume's name, what it is, and the files of a ConfigMap in it."""
    if not section.has("configMap"):
        return *volume_of(section), {}
    with section as volume, volume.section("configMap") as source:
        source.ignored_locally("defaultMode", "optional")
        if (name := source.text("name")) not in config_maps:
            raise source.refusal("name", f"the kustomization has the ConfigMaps {[*config_maps]}")
        return volume.text("name"), "folder", dict(config_maps[name])
