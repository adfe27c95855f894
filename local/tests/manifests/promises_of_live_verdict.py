"""What the live verdict and its rules promise; one line for each promise that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from promises_of_follower import server
from promises_of_pods import environment
from routes import COMPONENT, Objects, of_kind

ALLOWED = ("shadow-deployment/metrics", "shadow-deployment/gate")
RULES = "--rules=/etc/shadow-report/rules.yaml"


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """What is wrong with the live verdict where the option is on, and with the rules' mounts."""
    share = settings["mirror-percentage"]
    if not of_kind(objects, "VirtualService"):  # a follower copies all that is recorded
        share = "100"
    for item in _of_component(objects, "live-verdict", "Deployment"):
        yield from server(item, settings, ready="/ready", alive="/live")
        yield from _judging(item["spec"]["template"]["spec"], "serve", share)
        yield from _reached(item, objects, settings)
    for item in _of_component(objects, "report", "CronJob"):
        yield from _judging(
            item["spec"]["jobTemplate"]["spec"]["template"]["spec"], "compare", share
        )
    for files in _of_component(objects, "rules", "ConfigMap"):
        yield from _rules(files, objects)


def _of_component(objects: Objects, component: str, kind: str) -> Objects:
    return [
        o for o in of_kind(objects, kind) if o["metadata"]["labels"].get(COMPONENT) == component
    ]


def _judging(pod: dict[str, Any], command: str, share: str) -> Iterator[str]:
    """Both judge the newest versions, and know how many calls should have a pair."""
    args = pod["containers"][0]["args"]
    wanted = [command, "--since-rollout"]
    wanted += ["--address=0.0.0.0", "--port=8080"] if command == "serve" else []
    if [word for word in args if not word.startswith("--rules")] != wanted:
        yield f"{command} is told {args}"
    if environment(pod).get("MIRROR_PERCENTAGE") != share:
        yield f"{command} takes another share of the calls to be mirrored than {share}"


def _reached(item: dict[str, Any], objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """By its own namespace, and by namespaces that somebody has labelled; by nobody else."""
    labels = item["spec"]["template"]["metadata"]["labels"]
    name = f"{settings['entry']}-verdict"
    services = _of_component(objects, "live-verdict", "Service")
    if [service["metadata"]["name"] for service in services] != [name]:
        yield f"the live verdict is not at {name}"
    for service in services:
        spec = service["spec"]
        if spec["type"] != "ClusterIP" or spec["selector"] != labels:
            yield "the live verdict's Service does not lead to its pods, or from outside too"
        if [(port["port"], port["targetPort"]) for port in spec["ports"]] != [(80, 8080)]:
            yield "the live verdict's Service is not port 80"
    policies = _of_component(objects, "live-verdict", "NetworkPolicy")
    spaces = [{"namespaceSelector": {"matchLabels": {label: "allowed"}}} for label in ALLOWED]
    wanted = {
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {}}, *spaces], "ports": [{"protocol": "TCP", "port": 8080}]}
        ],
    }
    if [policy["spec"] for policy in policies] != [wanted]:
        yield "others than its namespace reach the live verdict"
    if any(labels.items() <= _taken(route).items() for route in objects):
        yield "a Service of another purpose leads to the live verdict"


def _taken(item: dict[str, Any]) -> dict[str, str]:
    own = item["metadata"]["labels"].get(COMPONENT) == "live-verdict"
    selector: dict[str, str] = item["spec"].get("selector", {}) if item["kind"] == "Service" else {}
    return {} if own else selector


def _rules(files: dict[str, Any], objects: Objects) -> Iterator[str]:
    """Whoever judges reads the file that is there, at the path that its option names."""
    jobs = [job["spec"]["jobTemplate"] for job in _of_component(objects, "report", "CronJob")]
    judges = [*jobs, *_of_component(objects, "live-verdict", "Deployment")]
    if "rules.yaml" not in files["data"]:
        yield "there is no rules.yaml"
    for judge in judges:
        pod = judge["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        named = {v["name"]: v.get("configMap", {}).get("name") for v in pod["volumes"]}
        mounted = {m["mountPath"]: named[m["name"]] for m in container["volumeMounts"]}
        if mounted.get("/etc/shadow-report") != files["metadata"]["name"]:
            yield f"{container['name']} does not have the rules"
        if container["args"][-1] != RULES:
            yield f"{container['name']} does not read the rules"
