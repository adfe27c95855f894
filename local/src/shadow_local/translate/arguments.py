"""The options and rules that a deployment hands to shadow-report, read by shadow-report itself.

Kustomize puts any text into a container's arguments and into a ConfigMap; what is wrong with it
would show in a live verdict that does not start, or in a Job that has failed by the morning.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from shadow_local.translate.document import Manifest, expand, image_name, repository
from shadow_local.translate.forms import (
    Malformed,
    file_of,
    file_saying,
    label,
    own_containers,
    pods_below,
)

PROGRAM = "shadow-report"
OPTION = "--rules="
Container = dict[str, Any]
REFERENCE = re.compile(r"\$\(\w+\)")


def check_arguments(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for options that shadow-report refuses, in its own words; where it is not installed
    they are not read (`unread`).
    """
    if not _program().exists():
        return
    # All at once, as each takes a second to start.
    asked = [
        (item, container, _started("--check", *words, env=env))
        for item, container, words, env in _commands(manifests)
    ]
    lines = [
        f"{_place(kustomization, container, refusal) or label(item)}: {refusal}"
        for item, container, run in asked
        if (refusal := _refusal(run))
    ]
    if lines:
        raise Malformed("\n".join(dict.fromkeys(lines)))


def check_rules(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """The same for its rules."""
    if not _program().exists():
        return
    for owner, text in rules_of(manifests):
        if refusal := _refusal(_started("rules", "/dev/stdin"), text):
            place = file_of(kustomization, text) or owner
            raise Malformed(refusal.replace("--rules /dev/stdin", place))


def unread(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A warning where nobody is there to read them."""
    if not _program().exists() and any(_commands(manifests)):
        yield (
            "The options and rules of the report are not checked, as shadow-report is not "
            "installed; run `make install PROJECT=shadow-report`."
        )


def _program() -> Path:
    return repository() / PROGRAM / ".venv" / "bin" / PROGRAM


def _started(*words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [_program(), *words],
        env={"PATH": os.environ["PATH"], **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _refusal(run: subprocess.Popen[str], text: str = "") -> str | None:
    """What it says, once it has read all; None where it has nothing against it."""
    _, said = run.communicate(text)
    return said.strip().removeprefix(f"{PROGRAM}: ") if run.returncode else None


def _place(kustomization: Path, container: Container, refusal: str) -> str | None:
    """The file that says what is refused; None when none says it in so many words."""
    words = [str(word) for word in container.get("args") or ()]
    meant = [
        word
        for word in words
        if f"'{word}'" in refusal or (word[:1] == "-" and word.partition("=")[0] in refusal)
    ]
    return file_saying(kustomization, meant) if meant else None


def _commands(
    manifests: Iterable[Manifest],
) -> Iterator[tuple[Manifest, Container, list[str], dict[str, str]]]:
    """Each container with its object, its arguments and variables, where all of these are known.

    Without files of rules, which stand elsewhere in a pod: `check_rules` reads them.
    """
    for item, group, container in own_containers(manifests):
        if group != PROGRAM or container.get("command"):
            continue
        fields = {"metadata.namespace": item["metadata"].get("namespace")}
        env: dict[str, str] = {}
        for variable in container.get("env") or ():
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            if (value := variable.get("value", fields.get(field))) is not None:
                env[variable["name"]] = expand(str(value), env)
        words = [expand(str(word), env) for word in container.get("args") or ()]
        words = [word for word in words if not word.startswith(f"{OPTION}/")]
        if not any(REFERENCE.search(word) for word in words):
            yield item, container, words, env


def rules_of(manifests: Iterable[Manifest]) -> Iterator[tuple[str, str]]:
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
        if image_name(container.get("image", "")) != PROGRAM:
            continue
        mounts = container.get("volumeMounts") or ()
        folders = {mount["mountPath"]: mount["name"] for mount in mounts}
        for word in container.get("args") or ():
            file = PurePosixPath(str(word).removeprefix(OPTION))
            volume = folders.get(str(file.parent))
            if str(word).startswith(OPTION) and volume in maps:
                yield maps[volume], file.name
