"""The arguments that a deployment hands to the programs of this repository, and the rules that it
hands to shadow-report, each read by the program itself.

Kustomize puts any text into a container's arguments and into a ConfigMap; what is wrong with it
would show in a pod that does not start, or in a Job that has failed by the morning.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
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

REPORT = "shadow-report"
PROGRAMS = (REPORT, "minimal-transformer", "minimal-predictor")
OPTION = "--rules="
REFERENCE = re.compile(r"\$\(\w+\)")
# argparse's, before what it says.
_USAGE = re.compile(r"usage: .*?^[\w-]+: error: ", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A container of a program of ours, whose arguments are all known."""

    item: Manifest
    program: str
    words: tuple[str, ...]
    env: Mapping[str, str]

    @property
    def question(self) -> tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]:
        """What two commands have alike to which the answer is one."""
        # The servers' options say all by themselves; their variables are read by forms.yaml.
        env = tuple(self.env.items()) if self.program == REPORT else ()
        return self.program, self.words, env


def check_arguments(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for arguments that their program refuses, in its own words; where it is not
    installed they are not read (`unread`).
    """
    commands = {command.question: command for command in _commands(manifests)}
    # All at once, as each takes a second to start.
    asked = [
        (command, _started(program, "--check", *words, env=dict(env)))
        for (program, words, env), command in commands.items()
        if _path(program).exists()
    ]
    lines = [
        f"{_place(kustomization, command, refusal) or label(command.item)}: {refusal}"
        for command, run in asked
        if (refusal := _refusal(command.program, run))
    ]
    if lines:
        raise Malformed("\n".join(dict.fromkeys(lines)))


def check_rules(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """The same for its rules."""
    if not _path(REPORT).exists():
        return
    for owner, text in rules_of(manifests):
        if refusal := _refusal(REPORT, _started(REPORT, "rules", "/dev/stdin"), text):
            place = file_of(kustomization, text) or owner
            raise Malformed(refusal.replace("--rules /dev/stdin", place))


def unread(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A warning for each program that is not there to read them."""
    given = {command.program for command in _commands(manifests)}
    for program in PROGRAMS:
        if program in given and not _path(program).exists():
            what = "options and rules of the report" if program == REPORT else "servers' arguments"
            yield (
                f"The {what} are not checked, as {program} is not installed; "
                f"run `make install PROJECT={program}`."
            )


def _path(program: str) -> Path:
    return repository() / program / ".venv" / "bin" / program


def _started(
    program: str, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [_path(program), *words],
        env={"PATH": os.environ["PATH"], **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _refusal(program: str, run: subprocess.Popen[str], text: str = "") -> str | None:
    """What it says, once it has read all; None where it has nothing against it."""
    _, said = run.communicate(text)
    if not run.returncode:
        return None
    refusal = _USAGE.sub(f"{program} refuses them: ", said.strip().removeprefix(f"{program}: "))
    unknown = re.search(r"unrecognized arguments: (--[\w-]+)", refusal)
    near = get_close_matches(unknown[1], re.findall(r"\[(--\w+)", said), 1) if unknown else []
    return f"{refusal}; is {near[0]} meant?" if near else refusal


def _place(kustomization: Path, command: Command, refusal: str) -> str | None:
    """The file that says what is refused; None when none says it in so many words."""
    meant = [
        word
        for word in command.words
        if f"'{word}'" in refusal or (word[:1] == "-" and word.partition("=")[0] in refusal)
    ]
    return file_saying(kustomization, meant) if meant else None


def _commands(manifests: Iterable[Manifest]) -> Iterator[Command]:
    """Each container whose arguments are to be read, as far as all of these are known.

    Without files of rules, which stand elsewhere in a pod: `check_rules` reads them. A server that
    is given its model's name alone is started so by its own tests.
    """
    for item, _, container in own_containers(manifests):
        program = image_name(container.get("image", ""))
        if program not in PROGRAMS or container.get("command"):
            continue
        fields = {"metadata.namespace": item["metadata"].get("namespace")}
        env: dict[str, str] = {}
        for variable in container.get("env") or ():
            field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            if (value := variable.get("value", fields.get(field))) is not None:
                env[variable["name"]] = expand(str(value), env)
        words = [expand(str(word), env) for word in container.get("args") or ()]
        words = [word for word in words if not word.startswith(f"{OPTION}/")]
        named = program != REPORT and words[:1] == ["--model_name"] and len(words) == 2
        if not named and not any(REFERENCE.search(word) for word in words):
            yield Command(item, program, tuple(words), env)


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
        if image_name(container.get("image", "")) != REPORT:
            continue
        mounts = container.get("volumeMounts") or ()
        folders = {mount["mountPath"]: mount["name"] for mount in mounts}
        for word in container.get("args") or ():
            file = PurePosixPath(str(word).removeprefix(OPTION))
            volume = folders.get(str(file.parent))
            if str(word).startswith(OPTION) and volume in maps:
                yield maps[volume], file.name
