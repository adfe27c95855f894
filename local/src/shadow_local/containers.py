"""One container of an InferenceService: what its manifest says about the process in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from shadow_local.document import Section

# What a pod needs and a process on this machine does not have: isolation, quotas and pulling.
ONLY_IN_PODS = ("imagePullPolicy", "resources", "securityContext", "terminationMessagePolicy")


@dataclass(frozen=True)
class Variable:
    """An environment variable: a value with `$(OTHER)` references, or where the value stands."""

    name: str
    value: str = ""
    label: str | None = None
    pod_field: str | None = None
    secret: tuple[str, str] | None = None


@dataclass(frozen=True)
class Probe:
    """A GET that has to be answered with 200 before the container takes traffic."""

    kind: str
    path: str
    container_port: int


@dataclass(frozen=True)
class Container:
    """A container's process, as written in the manifest."""

    owner: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    variables: tuple[Variable, ...]
    http_port: int
    mounts: dict[str, str]  # mount path -> volume name
    probes: tuple[Probe, ...]


def read_container(section: Section) -> Container:
    """The container of a section, with every field read."""
    with section as fields:
        if fields.text("name") != "kserve-container":
            raise fields.refusal("name", "only kserve-container is run; there are no sidecars")
        fields.has_no_effect_here(*ONLY_IN_PODS)
        _check_lifecycle(fields)
        ports = _ports(fields)
        http_port = ports.get("http1", ports.get("http", 8080))
        return Container(
            owner=fields.owner,
            image=fields.text("image"),
            command=tuple(fields.texts("command")),
            args=tuple(fields.texts("args")),
            variables=tuple(_variable(item) for item in fields.sections("env")),
            http_port=http_port,
            mounts=dict(_mount(item) for item in fields.sections("volumeMounts")),
            probes=tuple(_probes(fields, ports, http_port)),
        )


def _ports(fields: Section) -> dict[str, int]:
    ports: dict[str, int] = {}
    for item in fields.sections("ports"):
        with item as port:
            if port.text("protocol", "TCP") != "TCP":
                raise port.refusal("protocol", "only TCP is served")
            ports[port.text("name", "http")] = port.whole("containerPort")
    return ports


def _variable(section: Section) -> Variable:
    with section as item:
        name = item.text("name")
        if not item.has("valueFrom"):
            return Variable(name, value=item.text("value", ""))
        with item.section("valueFrom") as source:
            if source.has("secretKeyRef"):
                with source.section("secretKeyRef") as secret:
                    # An optional key is there on this machine, so that the pod's path is taken.
                    secret.has_no_effect_here("optional")
                    return Variable(name, secret=(secret.text("name"), secret.text("key")))
            with source.section("fieldRef") as reference:
                reference.has_no_effect_here("apiVersion")
                path = reference.text("fieldPath")
                if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", path):
                    return Variable(name, label=label[1])
                if path not in ("metadata.name", "metadata.namespace"):
                    raise reference.refusal("fieldPath", "labels, name and namespace are known")
                return Variable(name, pod_field=path)


def _mount(section: Section) -> tuple[str, str]:
    with section as mount:
        mount.has_no_effect_here("readOnly")
        return mount.text("mountPath"), mount.text("name")


def _check_lifecycle(fields: Section) -> None:
    """Accept a preStop that only waits: no endpoint list has to be drained on one machine."""
    with fields.section("lifecycle") as lifecycle, lifecycle.section("preStop") as hook:
        with hook.section("sleep") as sleep:
            sleep.has_no_effect_here("seconds")
        with hook.section("exec") as action:
            command = action.texts("command")
            if command and "sleep" not in " ".join(command):
                raise action.refusal("command", "a preStop hook may only sleep")


def _probes(fields: Section, ports: dict[str, int], http_port: int) -> Iterator[Probe]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if not fields.has(kind):
            continue
        with fields.section(kind) as probe:
            # How often a kubelet asks; here each is asked until it answers, then no more.
            probe.has_no_effect_here("periodSeconds", "timeoutSeconds", "failureThreshold")
            probe.has_no_effect_here("successThreshold", "initialDelaySeconds")
            with probe.section("httpGet") as get:
                if get.text("scheme", "HTTP") != "HTTP":
                    raise get.refusal("scheme", "only HTTP is asked")
                port = get.take("port", http_port)
                if isinstance(port, str):
                    if port not in ports:
                        raise get.refusal("port", f"no port of that name; there are {list(ports)}")
                    port = ports[port]
                yield Probe(kind, get.text("path"), port)
