"""What the InferenceServices promise; one line for each promise that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from environment import known_variables
from pod_security import violations
from routes import Objects, mode, of_kind, shadow_sides

READY = "/v1/models/model"
KSERVE_HTTP_PORT = 8080
FACTORS = {"primary": "2", "shadow": "3", "second-shadow": "4"}
BYTES = {"Mi": 2**20, "Gi": 2**30}
CLUSTER_LOCAL = ("networking.kserve.io/visibility", "networking.knative.dev/visibility")


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    services = {s["metadata"]["name"]: s for s in of_kind(objects, "InferenceService")}
    sides = ["primary", *shadow_sides(objects)]
    if services.keys() != {settings[side] for side in sides}:
        yield f"the InferenceServices are {sorted(services)}"
        return
    for side in sides:
        yield from _service(services[settings[side]], side, settings)
    alike = [_without_own_values(services[settings[side]]) for side in sides]
    if any(other != alike[0] for other in alike):
        yield "primary and shadow differ in more than name, role, version and factor"


def _service(service: dict[str, Any], side: str, settings: dict[str, str]) -> Iterator[str]:
    for label in CLUSTER_LOCAL:
        if service["metadata"].get("labels", {}).get(label) != "cluster-local":
            yield f"{side}: KServe exposes it by itself, without {label}"
    if mode(service) not in ("Standard", "Knative"):
        yield f"{side}: the deployment mode is {mode(service)!r}"
    for kind in ("predictor", "transformer"):
        component, name = service["spec"][kind], f"{side} {kind}"
        image = f"{settings['image-registry']}/minimal-{kind}:{settings['image-tag']}"
        yield from _container(component["containers"][0], name, image)
        if component.get("enableServiceLinks") is not False:
            yield f"{name}: Services of the namespace write into its environment"
        yield from _stopping(component, name, mode(service) == "Knative")
        yield from unknown_variables(component["containers"][0], f"minimal-{kind}")
        yield from (f"{name}: {violation}" for violation in violations(component))
        yield from _scaling(component, name, mode(service) == "Knative", side, settings)
    yield from _identity(service, side, settings)
    yield from _spool(service["spec"]["transformer"], side)


def _scaling(
    component: dict[str, Any], name: str, knative: bool, side: str, settings: dict[str, str]
) -> Iterator[str]:
    role = side.removeprefix("second-")
    least, most = (int(settings[f"{role}-{bound}-replicas"]) for bound in ("min", "max"))
    if (component.get("minReplicas"), component.get("maxReplicas")) != (least, most):
        yield f"{name}: its pods are not as many as the settings say"
    if not 1 <= component.get("minReplicas", 0) <= component.get("maxReplicas", 0):
        yield f"{name}: it may scale to zero, or not at all"
    kind = "knative" if knative else "standard"
    wanted = (settings[f"{kind}-scale-metric"], int(settings[f"{kind}-scale-target"]))
    if (component.get("scaleMetric"), component.get("scaleTarget")) != wanted:
        yield f"{name}: it is not scaled by {wanted}"
    if knative and component.get("timeout") != int(settings["predict-timeout-seconds"]):
        yield f"{name}: Knative ends a call before or after the gateway does"


def _identity(service: dict[str, Any], side: str, settings: dict[str, str]) -> Iterator[str]:
    """What the transformer writes into each row about itself, and what its model does."""
    variables = environment(service["spec"]["transformer"])
    if variables.get("PREDICT_TIMEOUT_SECONDS") != settings["predict-timeout-seconds"]:
        yield f"{side}: a call may end otherwise in the table than for the caller"
    if variables.get("SHADOW_ROLE") != side.removeprefix("second-"):
        yield f"{side}: SHADOW_ROLE is {variables.get('SHADOW_ROLE')}"
    own_name: object = service["metadata"]["name"]
    if mode(service) != "Knative":  # which refuses the downward API
        label = "metadata.labels['serving.kserve.io/inferenceservice']"
        own_name = {"fieldRef": {"fieldPath": label}}
    if variables.get("INFERENCE_SERVICE") != own_name:
        yield f"{side}: INFERENCE_SERVICE is not its own name"
    if variables.get("MODEL_VERSION") != settings[f"{side}-version"]:
        yield f"{side}: MODEL_VERSION is not its version in the settings"
    if environment(service["spec"]["predictor"]).get("FACTOR") != FACTORS[side]:
        yield f"{side}: FACTOR is not {FACTORS[side]}"


def _container(container: dict[str, Any], name: str, image: str) -> Iterator[str]:
    if container["name"] != "kserve-container" or container["image"] != image:
        yield f"{name}: the container is {container['name']} of {container['image']}"
    if container.get("args") != ["--model_name", "model"]:
        yield f"{name}: the model is not called `model`: {container.get('args')}"
    names = [item.get("value") for item in container["env"] if item["name"] == "MODEL_NAME"]
    if names not in ([], ["model"]):
        yield f"{name}: MODEL_NAME is not the name in the path"
    if [port["containerPort"] for port in container.get("ports", [])] != [KSERVE_HTTP_PORT]:
        yield f"{name}: it does not listen where KServe's Service sends"
    # A transformer is ready when its predictor is; for that alone it must not be restarted.
    live = "/" if "/minimal-transformer:" in image else READY
    for probe, path in {"readinessProbe": READY, "livenessProbe": live}.items():
        get = container.get(probe, {}).get("httpGet", {})
        if get != {"path": path, "port": KSERVE_HTTP_PORT}:
            yield f"{name}: {probe} asks {get}"
    for bound in ("requests", "limits"):
        if not container.get("resources", {}).get(bound, {}).keys() >= {"cpu", "memory"}:
            yield f"{name}: no {bound} of cpu and memory"


def unknown_variables(container: dict[str, Any], project: str) -> Iterator[str]:
    """Variables that the project does not read and no other variable is made of."""
    values = [str(item.get("value", "")) for item in container.get("env", [])]
    text = " ".join([*values, *container.get("args", [])])
    seen: set[str] = set()
    for item in container.get("env", []):
        name = item["name"]
        if name not in known_variables(project) and f"$({name})" not in text:
            yield f"{project} reads no variable {name}"
        for reference in re.findall(r"\$\((\w+)\)", str(item.get("value", ""))):
            if reference not in seen:
                yield f"{name} is made of {reference}, which does not stand before it"
        seen.add(name)


def environment(component: dict[str, Any]) -> dict[str, Any]:
    """Each variable's value, or where it comes from."""
    return {
        item["name"]: item.get("value", item.get("valueFrom"))
        for item in component["containers"][0].get("env", [])
    }


def _stopping(component: dict[str, Any], name: str, knative: bool) -> Iterator[str]:
    (container,) = component["containers"]
    variables = environment(component)
    grace = float(variables.get("SHUTDOWN_GRACE_SECONDS", 30))
    drain = float(variables.get("SHUTDOWN_DRAIN_SECONDS", 0))
    if knative:
        if "lifecycle" in container or "terminationGracePeriodSeconds" in component:
            yield f"{name}: Knative refuses preStop and a grace period"
        allowed, pause = component.get("timeout", 0), 0
    else:
        allowed = component.get("terminationGracePeriodSeconds", 30)
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if pause < 5:
            yield f"{name}: it stops listening before the endpoints forget it"
    if allowed < pause + grace + drain:
        yield f"{name}: killed after {allowed} s, while stopping takes {pause + grace + drain:g} s"


def _spool(component: dict[str, Any], side: str) -> Iterator[str]:
    (container,) = component["containers"]
    variables = environment(component)
    mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
    volumes = {volume["name"]: volume for volume in component.get("volumes", [])}
    spool = volumes.get(mounts.get(variables.get("SPOOL_DIR", ""), ""), {})
    limit = spool.get("emptyDir", {}).get("sizeLimit", "0Mi")
    size = int(limit[:-2]) * BYTES[limit[-2:]]
    if size < 1.1 * int(variables.get("SPOOL_MAX_BYTES", 2**30)):
        yield f"{side}: SPOOL_DIR is not a volume with room for SPOOL_MAX_BYTES"
    if "/tmp" not in mounts:
        yield f"{side}: nothing can be written to /tmp"


def _without_own_values(service: dict[str, Any]) -> dict[str, Any]:
    own = {"FACTOR", "SHADOW_ROLE", "INFERENCE_SERVICE", "MODEL_VERSION"}
    bounds = {"minReplicas": 0, "maxReplicas": 0}
    spec = {
        kind: component
        | bounds
        | {
            "containers": [
                c | {"env": [item for item in c.get("env", []) if item["name"] not in own]}
                for c in component["containers"]
            ]
        }
        for kind, component in service["spec"].items()
    }
    return {"spec": spec, "annotations": service["metadata"].get("annotations")}
