"""The `restricted` level of Kubernetes' pod security standards, and a little more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
VOLUMES |= {"projected", "secret"}
HOST_ACCESS = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What a pod spec, or a KServe component, has that `restricted` forbids, or lacks."""
    for field in HOST_ACCESS:
        if pod.get(field):
            yield f"{field} is set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a service-account token is mounted"
    for volume in pod.get("volumes", []):
        for source in volume.keys() - {"name"}:
            if source not in VOLUMES:
                yield f"volume {volume['name']} is a {source}"
        if "sizeLimit" not in volume.get("emptyDir", {"sizeLimit": ""}):
            yield f"volume {volume['name']} may fill the node"
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for violation in _container(container, pod.get("securityContext", {})):
            yield f"container {container['name']}: {violation}"


def _container(container: dict[str, Any], pod_context: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = pod_context | own
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "privilege escalation is allowed"
    if own.get("capabilities", {}).get("drop") != ["ALL"]:
        yield "it keeps capabilities"
    if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "it adds capabilities"
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 1) == 0:
        yield "it may run as root"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "it has no seccomp profile"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root file system can be written"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "it takes a port of the node"
