"""The rules that a deployment hands to shadow-report, read by shadow-report itself.

Kustomize puts any text into a ConfigMap; what is wrong with it would show in a live verdict that
does not start, or in a nightly report that is none.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from shadow_local.translate.document import Manifest, repository
from shadow_local.translate.forms import Malformed, file_of, pods_below

IMAGE = "shadow-report"
OPTION = "--rules="


def check_rules(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for rules that shadow-report refuses, in its own words; where it is not installed
    they are not read (`unread_rules`).
    """
    if not _program().exists():
        return
    for owner, text in _rules(manifests):
        read = subprocess.run(
            [_program(), "rules", "/dev/stdin"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if read.returncode:
            refusal = read.stderr.strip().removeprefix("shadow-report: ")
            place = file_of(kustomization, text) or owner
            raise Malformed(refusal.replace("--rules /dev/stdin", place))


def unread_rules(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A warning where nobody is there to read the rules."""
    if not _program().exists() and any(_rules(manifests)):
        yield (
            "The rules of the report are not checked, as shadow-report is not installed; run "
            "`make install PROJECT=shadow-report`."
        )


def _program() -> Path:
    return repository() / "shadow-report" / ".venv" / "bin" / "shadow-report"


def _rules(manifests: Iterable[Manifest]) -> Iterator[tuple[str, str]]:
    """Each file of rules, once: the ConfigMap that it comes from, and its text."""
    items = list(manifests)
    texts = {
        (item["metadata"]["name"], key): str(text)
        for item in items
        if item.get("kind") == "ConfigMap"
        for key, text in (item.get("data") or {}).items()
    }
    named = [found for item in items for pod in pods_below(item) for found in _mounted(pod)]
    for name, key in dict.fromkeys(named):
        if (name, key) in texts:
            yield f"ConfigMap {name}, {key}", texts[name, key]


def _mounted(pod: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The ConfigMap and the key of each file of rules that the pod's report is started with."""
    maps = {
        volume["name"]: volume["configMap"].get("name", "")
        for volume in pod.get("volumes") or ()
        if "configMap" in volume
    }
    for container in pod["containers"]:
        if container.get("image", "").rpartition("/")[2].partition(":")[0] != IMAGE:
            continue
        mounts = container.get("volumeMounts") or ()
        folders = {mount["mountPath"]: mount["name"] for mount in mounts}
        for word in container.get("args") or ():
            file = PurePosixPath(str(word).removeprefix(OPTION))
            volume = folders.get(str(file.parent))
            if str(word).startswith(OPTION) and volume in maps:
                yield maps[volume], file.name
