"""What the parts promise about the database; one line for each promise that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from promises_of_pods import unknown_variables
from routes import Objects, of_kind

CA = "ca.crt"
# No POSTGRES_PORT: where the key is missing, a Service called postgres would give it a value.
NAMES = {"POSTGRES_HOST": "host", "POSTGRES_PORT_NUMBER": "port", "POSTGRES_PASSWORD": "password"}


def broken(objects: Objects, settings: dict[str, str], cluster_text: str) -> Iterator[str]:
    cluster = yaml.safe_load(cluster_text)
    for user, label, pod in _clients(objects):
        (container,) = pod["containers"]
        # A server must take calls before the database exists; a job may wait for it.
        optional = user == "transformer"
        yield from _connection(cluster, user, label, pod, optional)
        if user != "transformer":
            yield from unknown_variables(container, "shadow-report")
            image = f"{settings['image-registry']}/shadow-report:{settings['image-tag']}"
            if container["image"] != image:
                yield f"{label}: the image is {container['image']}"


def _clients(objects: Objects) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for service in of_kind(objects, "InferenceService"):
        name = service["metadata"]["name"]
        yield "transformer", f"{name} transformer", service["spec"]["transformer"]
    for job in of_kind(objects, "CronJob"):
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        command = pod["containers"][0]["args"][0]
        users = {"maintain": "maintenance", "compare": "report", "follow": "report"}
        yield users.get(command, "nobody"), job["metadata"]["name"], pod
    for item in of_kind(objects, "Deployment"):
        yield "report", item["metadata"]["name"], item["spec"]["template"]["spec"]


def _connection(
    cluster: dict[str, Any], user: str, label: str, pod: dict[str, Any], optional: bool
) -> Iterator[str]:
    name = cluster["metadata"]["name"]
    if user not in {item["name"] for item in cluster["spec"]["users"]}:
        yield f"{label}: {user} is not a user of {name}"
    variables = {item["name"]: item for item in pod["containers"][0]["env"]}
    for variable, key in NAMES.items():
        source = variables.get(variable, {}).get("valueFrom", {})
        expected: dict[str, Any] = {"name": f"{name}-pguser-{user}", "key": key}
        if optional:
            expected["optional"] = True
        if source.get("secretKeyRef") != expected:
            yield f"{label}: {variable} is not the {key} that the operator gives {user}"
    uri = str(variables.get("POSTGRES_URI", {}).get("value"))
    wanted = (
        rf"postgresql://{user}:\$\(POSTGRES_PASSWORD\)@\$\(POSTGRES_HOST\):\$\(POSTGRES_PORT_NUMBER\)"
        r"/predictions\?sslmode=verify-full&sslrootcert=(/[\w/.-]+)"
    )
    match = re.fullmatch(wanted, uri)
    if match is None:
        yield f"{label}: POSTGRES_URI is {uri}"
    elif not _is_mounted(pod, match[1], f"{name}-cluster-cert", optional):
        yield f"{label}: {match[1]} is not the CA of {name}"


def _is_mounted(pod: dict[str, Any], path: str, secret: str, optional: bool) -> bool:
    folder, _, file = path.rpartition("/")
    volumes = {volume["name"]: volume.get("secret", {}) for volume in pod["volumes"]}
    for mount in pod["containers"][0]["volumeMounts"]:
        source = volumes.get(mount["name"], {})
        if mount["mountPath"] == folder and source.get("secretName") == secret:
            there = bool(source.get("optional")) == optional
            return there and bool(source.get("items") == [{"key": CA, "path": file}])
    return False
