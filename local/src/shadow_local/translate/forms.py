"""The settings and the containers' variables: what each of them looks like (forms.yaml).

Kustomize writes any text anywhere. What a wrong one means shows in an object that is refused, in a
pod that does not start, or in Kustomize's own words, which name neither file nor setting.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from jsonpath import JSONPath, JSONPathEnvironment
from jsonpath.exceptions import JSONPathError
from jsonschema import Draft202012Validator, FormatChecker

from shadow_local import Explained
from shadow_local.translate.document import (
    KUSTOMIZATIONS,
    Manifest,
    from_repository,
    image_name,
    read_documents,
    read_yaml,
)

SETTINGS = "settings"
IMAGES = ("minimal-predictor", "shadow-report")  # the last part of the image tells whose variables
TRANSFORMER = "minimal-transformer"
IN_QUOTES = "the same in quotes, as Kubernetes takes texts alone there"
HOOKS = {"PREPROCESS", "POSTPROCESS"}
# What Python, its libraries, libpq and KServe read of an environment.
_OF_LIBRARIES = re.compile(
    r"(PG|PYTHON|SSL_CERT_|KSERVE_|GRPC_|OTEL_|MALLOC_|LC_).+|.+_(CA_BUNDLE|PROXY)"
    r"|TZ|LANG|HOME|TMPDIR|USER",
    re.IGNORECASE,
)
# A setting that a replacement reads.
_READ = re.compile(r"\bfieldPath: *[\"']?data\.([-\w]+)")
# What a user changes: whatever else is below manifests/ is the same everywhere.
_OF_MANIFESTS = re.compile(r"(?<![\w./-])manifests/((?:settings|options|mirroring)/[\w/-]+\.yaml)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FORMATS = FormatChecker(("regex",))
_PATHS = JSONPathEnvironment(strict=True)


class Malformed(Explained):
    """Settings or variables that are not what they should be; a line for each, with the remedy."""


def check_settings(kustomization: Path) -> None:
    """Malformed for the settings of the folder, by their files alone: nothing is rendered."""
    files = list(sources(kustomization))
    replacing = (file.read_text() for file in (*files, *_replacements(files)))
    read = {name for text in replacing for name in _READ.findall(text)}
    _refuse(line for file in files for line in _of_file(file, read))


def settings_below(kustomization: Path) -> dict[str, Any]:
    """The settings that the folder is rendered with; none where they are not here."""
    found = (values for file in sources(kustomization) for values in _settings_in(file))
    return next(found, {})


def check_variables(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for the containers' variables of what the folder renders to."""
    files = list(sources(kustomization))
    _refuse(
        f"{_place(files, name, value) or owner}: {name} is {value!r}; set it to {expected}."
        for owner, group, variables in _containers(manifests)
        for name, value, expected in faults(group, variables)
    )


def variables_of(group: str, manifests: Iterable[Manifest]) -> Iterator[dict[str, Any]]:
    """The variables of each container of a group, as far as they stand there as they are."""
    return (variables for _, other, variables in _containers(manifests) if other == group)


def faults(group: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Each value that is not what its form says: its name, itself, and what is expected."""
    schema = _forms()[group]
    for name, form in schema["properties"].items():
        if name not in values:
            continue
        value, whole = values[name], _resolved(form)
        if isinstance(value, bool | int | float):
            yield name, value, IN_QUOTES
        elif not isinstance(value, str) or not _validator(group, name).is_valid(
            _read(value, whole.get("type"))
        ):
            yield name, value, whole["description"]
    for names in schema.get("different", ()):
        for one, other in combinations(names, 2):
            if values.get(one) == values.get(other) is not None:
                yield other, values[other], f"another value than that of {one}"


def unknown_variables(manifests: Iterable[Manifest]) -> Iterator[tuple[str, str, str, str | None]]:
    """Each variable that a program of ours is given and does not read: the object, the program, the
    variable, and the nearest one that it reads.

    An image of somebody else's may read any, and so may a hook: with one, only those that are near.
    """
    for item, group, container in own_containers(manifests):
        program = image_name(container.get("image", ""))
        if program not in (*IMAGES, TRANSFORMER):
            continue
        env = {
            variable["name"]: str(variable.get("value", ""))
            for variable in container.get("env") or ()
        }
        text = " ".join([*env.values(), *map(str, container.get("args") or ())])
        known = [*_forms()[group]["properties"], *_forms()[group].get("also", ())]
        for name in env:
            if name.upper() in known or f"$({name})" in text or _OF_LIBRARIES.fullmatch(name):
                continue
            nearest = next(iter(get_close_matches(name.upper(), known, 1, 0.75)), None)
            if nearest or not env.keys() & HOOKS:
                yield label(item), program, name, nearest


def own_containers(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, str, dict[str, Any]]]:
    """Each container of a program of ours: the object that it is in, whose it is, and itself."""
    for item in manifests:
        found = _pods_below(item.get("spec", {}))
        for path, container in ((path, each) for path, pod in found for each in pod["containers"]):
            image = image_name(container.get("image", ""))
            group = "transformer" if path[:1] == ("transformer",) else image
            if group == "transformer" or group in IMAGES:
                yield item, group, container


def label(item: Manifest) -> str:
    """What an object is called where no file is to be named."""
    return f"{item.get('kind')} {item['metadata']['name']}"


def file_saying(kustomization: Path, words: Iterable[str]) -> str | None:
    """The first file of the kustomization that has all the words; None when none has."""
    said = [re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])") for word in words]
    for file in sources(kustomization):
        text = file.read_text()
        if all(word.search(text) for word in said):
            return from_repository(file)
    return None


def file_of(kustomization: Path, text: str) -> str | None:
    """The file of the kustomization that says just this; None when none does."""
    files = (file for file in sources(kustomization) if file.read_text() == text)
    return next(map(from_repository, files), None)


def in_place(kustomization: Path, message: str) -> str:
    """The message with each file of manifests/ that is to be edited called as it is for this
    kustomization, which may be on a copy, or on a base whose files are not here.
    """
    settings = (file for file in sources(kustomization) if file.match("settings/settings.yaml"))
    own = next((from_repository(file.parents[1]) for file in settings), None)
    return _OF_MANIFESTS.sub(
        lambda found: f"{own}/{found[1]}" if own else f"{found[0]} of its base", message
    )


def pods_below(node: Any) -> Iterator[dict[str, Any]]:
    """Each part of an object that has containers."""
    return (pod for _, pod in _pods_below(node))


def _are_paths(text: object) -> bool:
    """Whether minimal-transformer takes the list for RECORD_REDACT."""
    parts = _split(str(text)) if str(text).strip() else []
    starts = ["" if part[:1] == "$" else "$" if part[:1] in {".", "["} else "$." for part in parts]
    paths = [_PATHS.compile(start + part) for start, part in zip(starts, parts, strict=True)]
    return all(isinstance(path, JSONPath) and path.segments for path in paths)


_FORMATS.checks("json-paths", raises=(JSONPathError, ValueError))(_are_paths)


def _split(text: str) -> list[str]:
    """The parts of a list; a comma between brackets or quotes separates nothing."""
    parts, depth, quote, previous = [""], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote and previous != "\\" else quote
        elif depth and character in "'\"":
            quote = character
        else:
            depth += (character in "[(") - (character in ")]")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
        # A backslash that is escaped itself escapes nothing.
        previous = "" if previous == "\\" else character
    return [part.strip() for part in parts]


def _read(text: str, kind: str | None) -> object:
    """A number where one is asked for and the text is one; else the text, which is then none."""
    if kind not in ("integer", "number") or not _NUMBER.fullmatch(text):
        return text
    number = float(text)
    if kind == "integer":
        return int(text) if text.isdecimal() else text
    return number if math.isfinite(number) else text


def _of_file(file: Path, read: Iterable[str]) -> Iterator[str]:
    """A line for each setting of the file that is missing, malformed, or not read by anything."""
    place = from_repository(file)
    try:
        found = _settings_in(file)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        yield f"{place}{line}: {error.problem}; put a value with such characters in quotes."
        return
    known = _forms()[SETTINGS]["properties"]
    for values in found:
        for name in known:
            if name not in values:
                yield f"{place}: {name} is missing; Kustomize needs every setting."
        for name in sorted(values.keys() - {*known, *read}):
            near = get_close_matches(str(name), known, 1, 0.75)
            remedy = f"is {near[0]} meant?" if near else "take it out."
            yield f"{place}: no replacement reads the setting {name}; {remedy}"
        for name, value, expected in faults(SETTINGS, values):
            yield f"{place}: {name} is {value!r}; set it to {expected}."


def _settings_in(file: Path) -> list[dict[str, Any]]:
    """What each ConfigMap of the settings in it says; a YAMLError where it cannot be read."""
    text = file.read_text()
    if not re.search(rf"^ +name: *{SETTINGS}\b", text, re.MULTILINE):
        return []
    return [
        item.get("data") or {}
        for item in read_documents(text)
        if isinstance(item, dict)
        and item.get("kind") == "ConfigMap"
        and item.get("metadata", {}).get("name") == SETTINGS
    ]


def _containers(manifests: Iterable[Manifest]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each container whose variables are known: where it is, whose it is, and what they say."""
    for item, group, container in own_containers(manifests):
        yield label(item), group, _variables(container)


def _pods_below(
    node: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(node, dict):
        if "containers" in node:
            yield path, node
        for key, value in node.items():
            yield from _pods_below(value, (*path, key))


def _variables(container: Mapping[str, Any]) -> dict[str, Any]:
    """Those that stand there as they are: no references, nothing of a Secret, nothing unset.

    The programs read them in small letters too.
    """
    return {
        item["name"].upper(): item["value"]
        for item in container.get("env", ())
        if item.get("value") not in (None, "") and "$(" not in str(item["value"])
    }


def sources(folder: Path) -> Iterator[Path]:
    """The local files that a kustomization is made of, itself first; what cannot be read is left
    to Kustomize, which says why.
    """
    seen: set[Path] = set()
    waiting = [folder.resolve()]
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        if path.is_file():
            yield path
        for file in (path / name for name in KUSTOMIZATIONS):
            if file.is_file():
                yield file
                waiting += [(path / entry).resolve() for entry in _entries(file)]


def _kustomization(file: Path) -> dict[str, Any]:
    """Its fields; none where Kustomize cannot read it either, which says why."""
    try:
        fields = read_yaml(file.read_text())
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _entries(file: Path) -> list[str]:
    """The folders and files that a kustomization names."""
    fields = _kustomization(file)
    named = [entry for key in ("resources", "components") for entry in fields.get(key) or ()]
    patches = [patch.get("path") for patch in fields.get("patches") or ()]
    generated = [
        str(file).rpartition("=")[2]
        for generator in fields.get("configMapGenerator") or ()
        for file in generator.get("files") or ()
    ]
    return [
        entry
        for entry in (*named, *patches, *generated)
        if isinstance(entry, str) and "://" not in entry
    ]


def _replacements(files: Iterable[Path]) -> Iterator[Path]:
    """The files of replacements that the kustomizations among these name."""
    for file in files:
        entries = _kustomization(file).get("replacements") if file.name in KUSTOMIZATIONS else ()
        paths = (entry.get("path") for entry in entries or ())
        yield from (found for path in paths if path and (found := file.parent / path).is_file())


def _place(files: Iterable[Path], name: str, value: Any) -> str | None:
    """The file that says the variable's value; None when none does in so many words."""
    words = value if isinstance(value, str) else json.dumps(value)
    said = re.compile(
        rf"(?i:\bname: *[\"']?{re.escape(name)})\b[^#]{{0,99}}?{re.escape(words)}", re.DOTALL
    )
    return next((from_repository(file) for file in files if said.search(file.read_text())), None)


def _refuse(lines: Iterable[str]) -> None:
    # Both sides have most variables from one place.
    if found := list(dict.fromkeys(lines)):
        raise Malformed("\n".join(found))


@cache
def _forms() -> dict[str, Any]:
    forms: dict[str, Any] = read_yaml(Path(__file__).with_name("forms.yaml").read_text())
    return forms


def _resolved(form: Mapping[str, Any]) -> dict[str, Any]:
    """The form with what it refers to, of which its own words are the later ones."""
    _, _, name = form.get("$ref", "").rpartition("/")
    return {**_forms()["$defs"].get(name, {}), **form}


@cache
def _validator(group: str, name: str) -> Draft202012Validator:
    form = {"$defs": _forms()["$defs"], **_forms()[group]["properties"][name]}
    return Draft202012Validator(form, format_checker=_FORMATS)
