"""What the follower promises; one line for each promise that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pod_security import violations
from promises_of_pods import environment
from routes import COMPONENT, ENTRY, Objects, of_kind, shadow_sides, transformer_hosts
from routes import service_reached as reached

DAY_SECONDS = 24 * 60 * 60  # from one follow-later to the next


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """What is wrong with the follower; a deployment that mirrors has none."""
    for item in of_kind(objects, "Deployment"):
        labels = item["metadata"]["labels"]
        if labels.get(COMPONENT) == "follower":
            is_second = labels.get("shadow-deployment/candidate") == "second"
            own = {"shadow": settings["second-shadow"]} if is_second else {}
            yield from _follower(item, objects, settings | own)
    followers = [i for i in of_kind(objects, "Deployment") if "follower" in i["metadata"]["name"]]
    if followers and len(followers) != len(shadow_sides(objects)):
        yield f"{len(followers)} followers, and {len(shadow_sides(objects))} shadows"
    if any(_finds(one, other) for one in followers for other in followers if one is not other):
        yield "a follower's Deployment finds another's pods"
    for item in of_kind(objects, "CronJob"):
        if item["metadata"]["labels"][COMPONENT] == "follow-later":
            yield from _follow_later(item["spec"], objects, settings)


def _follow_later(
    spec: dict[str, Any], objects: Objects, settings: dict[str, str]
) -> Iterator[str]:
    job = spec["jobTemplate"]["spec"]
    if job["template"]["metadata"]["labels"].get(ENTRY) != settings["entry"]:
        yield "no network policy lets follow-later through"
    if spec["concurrencyPolicy"] != "Forbid":
        yield "two followers at once would send calls twice"
    if spec["suspend"]:
        yield "follow-later is suspended while there is a shadow to call"
    if not 0 < spec["startingDeadlineSeconds"] < DAY_SECONDS:
        yield "a follow-later that is resumed begins by day"
    if not 0 < job["activeDeadlineSeconds"] < DAY_SECONDS:
        yield "a follow-later that is stuck keeps the next one from its start"
    told = {"since": "24h", "until": "0s"}
    yield from _command(job["template"]["spec"], objects, settings, told)


def _finds(item: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a Deployment selects the pods of another."""
    labels = other["spec"]["template"]["metadata"]["labels"]
    return bool(item["spec"]["selector"]["matchLabels"].items() <= labels.items())


def _follower(item: dict[str, Any], objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    spec = item["spec"]
    if spec["replicas"] != 1 or spec["strategy"] != {"type": "Recreate"}:
        yield "two followers at once would send calls twice"
    yield from server(item, settings, ready="/ready", alive="/")
    yield from _command(spec["template"]["spec"], objects, settings, {"port": "8080"})


def server(
    item: dict[str, Any], settings: dict[str, str], *, ready: str, alive: str
) -> Iterator[str]:
    """What any Deployment of shadow-report promises: its pod, its image, its probes."""
    spec = item["spec"]
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    name = labels.get(COMPONENT)
    (container,) = pod["containers"]
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield f"{name}: the Deployment does not find its pods"
    yield from (f"{name}: {violation}" for violation in violations(pod))
    if spec["selector"]["matchLabels"].get(ENTRY) != settings["entry"]:
        yield f"{name}: the Deployment finds pods of another entry's deployment"
    if pod.get("enableServiceLinks") is not False:
        yield f"{name}: Services of the namespace write into its environment"
    image = f"{settings['image-registry']}/shadow-report:{settings['image-tag']}"
    if container["image"] != image:
        yield f"{name}: the image is {container['image']}"
    for bound in ("requests", "limits"):
        if not container.get("resources", {}).get(bound, {}).keys() >= {"cpu", "memory"}:
            yield f"{name}: no {bound} of cpu and memory"
    for probe, path in {"readinessProbe": ready, "livenessProbe": alive}.items():
        if container.get(probe, {}).get("httpGet") != {"path": path, "port": 8080}:
            yield f"{name}: {probe} asks {container.get(probe)}"


def _command(
    pod: dict[str, Any], objects: Objects, settings: dict[str, str], own: dict[str, str]
) -> Iterator[str]:
    (container,) = pod["containers"]
    variables = environment(pod)
    known = {k: v for k, v in variables.items() if isinstance(v, str)}
    known["NAMESPACE"] = settings["profile"]
    args = [re.sub(r"\$\((\w+)\)", lambda m: known.get(m[1], m[0]), a) for a in container["args"]]
    command, *words = args
    options = dict(word.removeprefix("--").split("=", 1) for word in words)
    to, grpc = options.pop("to"), options.pop("to-grpc")
    host = f"{to.removeprefix('http://')}.svc.cluster.local"
    transformers = transformer_hosts(objects, "Standard") | transformer_hosts(objects, "Knative")
    if transformers.get(host) != settings["shadow"]:
        yield f"the follower sends calls to {to}"
    name, _, port = grpc.partition(":")
    destination = {"host": f"{name}.svc.cluster.local", "port": {"number": int(port)}}
    if reached(objects, destination, None) != settings["shadow"]:
        yield f"the follower sends gRPC to {grpc}"
    wanted = {
        "primary": settings["primary"],
        "shadow": settings["shadow"],
        "concurrency": settings["follow-concurrency"],
        "rate": settings["follow-rate"],
        "timeout": settings["predict-timeout-seconds"],
        **own,
    }
    if (command, options) != ("follow", wanted):
        yield f"the follower is told {args}"
