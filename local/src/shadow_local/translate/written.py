"""The settings as they stand in the objects, wherever these come from.

A base that is remote, or rendered into files, has no settings that could be read; what they were is
in its objects, at the places that manifests/settings/replacements.yaml names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from shadow_local.translate.document import Manifest, read_yaml, repository
from shadow_local.translate.forms import SETTINGS, Malformed, faults, label, settings_below

PLACES = "manifests/settings/replacements.yaml"
SETTINGS_FILE = "manifests/settings/settings.yaml"
VERSIONS = ("primary-version", "shadow-version", "second-shadow-version")
GATEWAY_LABEL = "gateway-label"
PROFILE = {"namespace": "PROFILE"}  # what is in it is in another namespace once it is rendered
_REQUIREMENT = re.compile(r"(!?)([^\s!=(),]+)(?:\s*(=|!=)\s*([^\s,]+)|\s+in\s+\(([^)]*)\))?")


def check_written(manifests: Iterable[Manifest]) -> None:
    """Malformed for values of settings that are not what they should be; a line for each.

    Only those that are all that a field says; of a part of a text nobody knows where it ends. The
    gateway's label has to be all that its pods are asked for, too.
    """
    manifests = list(manifests)
    found: dict[tuple[str, str], str] = {}
    for item in manifests:
        for name, value in settings_of(item):
            for _, said, expected in faults(SETTINGS, {name: value}):
                found[name, value] = (
                    f"{label(item)}: the setting {name} is {said!r} here; set it to {expected}."
                )
    lines = [*found.values(), *(line for item in manifests for line in _asked_for_more(item))]
    if lines:
        raise Malformed("\n".join(lines))


def outranked(kustomization: Path, manifests: Iterable[Manifest]) -> Iterator[str]:
    """A warning for each side whose new version stands in the settings alone, while a patch on top
    gives it another one: its rows would be taken for those of its predecessor.
    """
    said = settings_below(kustomization)
    for item in manifests:
        for name, value in settings_of(item):
            # One like the others is as it came: whoever patches all sides leaves them alone.
            shipped = {said.get(other) for other in (*VERSIONS, "image-tag") if other != name}
            if name in VERSIONS and said.get(name) not in (None, value, *shipped):
                yield (
                    f"{label(item)}: MODEL_VERSION is {value!r} by a patch on top, which outranks "
                    f"{name} in {SETTINGS_FILE}, {said[name]!r}; say the new one in that patch, or "
                    "leave MODEL_VERSION out of it."
                )


def settings_of(item: Manifest) -> Iterator[tuple[str, str]]:
    """The name and the value of each setting that was written into an object."""
    for name, path in _places(item):
        for value in _at(item, path):
            if isinstance(value, str | int | float):
                yield name, str(value)


def _places(item: Manifest) -> Iterator[tuple[str, list[str]]]:
    """Each setting that is all that a field of the object says, and the way to that field."""
    for replacement in _replacements():
        source = replacement["source"]
        for target in replacement["targets"] if "options" not in source else ():
            if not target.get("options") and _selects(target["select"], item):
                for path in target["fieldPaths"]:
                    yield source["fieldPath"].removeprefix("data."), _parts(path)


def _asked_for_more(item: Manifest) -> Iterator[str]:
    """The gateway's pods have no label that Kustomize gives to all objects and selectors here."""
    own = (item["metadata"].get("labels") or {}).items()
    ways = (path for name, path in _places(item) if name == GATEWAY_LABEL)
    labels = [labels for *above, _ in ways for labels in _at(item, above)]
    more = {key: value for asked in labels for key, value in asked.items() if (key, value) in own}
    for key, value in more.items():
        yield (
            f"{label(item)}: it asks the gateway's pods for the label {key}: {value}, which this "
            "object has and they do not, so no call would pass; in your kustomization leave "
            "includeSelectors out of `labels`, and take `labels` in the place of commonLabels."
        )


@cache
def _replacements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_yaml((repository() / PLACES).read_text())
    return found


def _selects(select: Mapping[str, str], item: Manifest) -> bool:
    if select == PROFILE:
        return item.get("kind") == "InferenceService"
    metadata = item["metadata"]
    return select["kind"] == item.get("kind") and all(
        has_labels(metadata.get(of) or {}, select.get(selector, ""))
        for of, selector in (("labels", "labelSelector"), ("annotations", "annotationSelector"))
    )


def has_labels(labels: Mapping[str, str], selector: str) -> bool:
    """Whether labels are as a selector says: `a=b`, `a!=b`, `a in (b, c)`, `a` and `!a`."""
    for absent, key, operator, value, values in _REQUIREMENT.findall(selector):
        if operator == "!=":
            holds = labels.get(key) != value
        elif operator or values:
            allowed = [value] if operator else re.split(r",\s*", values)
            holds = labels.get(key) in allowed
        else:
            holds = (key in labels) != bool(absent)
        if not holds:
            return False
    return True


def _parts(path: str) -> list[str]:
    """Of a field's path; a dot between brackets or behind a backslash separates nothing."""
    found = re.findall(r"(?:\\.|\[[^]]*\]|[^.\\])+", path)
    return [part.replace("\\.", ".") for part in found]


def _at(node: Any, parts: list[str]) -> Iterator[Any]:
    """What stands at a path; nothing where it leads nowhere."""
    if not parts:
        yield node
        return
    part, *rest = parts
    if isinstance(node, dict):
        below = [node[part]] if part in node else []
    elif not isinstance(node, list):
        below = []
    elif part == "*":
        below = node
    elif part.isdecimal():
        below = node[int(part) : int(part) + 1]
    else:
        key, _, value = part.strip("[]").partition("=")
        below = [one for one in node if isinstance(one, dict) and one.get(key) == value]
    for one in below:
        yield from _at(one, rest)
