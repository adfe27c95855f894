"""What an API server says to an object by its kind's schema: unknown fields, wrong types, missing
ones; and, by its code, to the words of a pod and to its amounts.

The schemas (schemas.json) are those of Kubernetes and of the CRDs, without their prose, a line
each; tests/manifests/published.py writes them. Rules in CEL are not among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, reduce
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError

from shadow_local.translate.document import Manifest
from shadow_local.translate.forms import IN_QUOTES, Malformed, file_saying, label
from shadow_local.translate.resources import faults

Schema = dict[str, Any]
FILE = Path(__file__).with_name("schemas.json")
TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
NO_EVERY_HOST = (
    "the host that callers use, by `domain`, as the Gateway API has no name for every host"
)
LIMITS = {
    "minimum": "{} or more",
    "maximum": "{} or less",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "{} characters or more",
    "maxLength": "{} characters or fewer",
    "minItems": "{} entries or more",
    "maxItems": "{} entries or fewer",
    "minProperties": "{} entries or more",
    "maxProperties": "{} entries or fewer",
}
# Words of a pod that no schema lists, by the field and another one of the same mapping; an empty
# one is the default. After Kubernetes' pkg/apis/core/validation/validation.go, which checks them.
WORDS = {
    ("imagePullPolicy", "image"): ("Always", "IfNotPresent", "Never"),
    ("terminationMessagePolicy", "image"): ("File", "FallbackToLogsOnError"),
    ("restartPolicy", "containers"): ("Always", "OnFailure", "Never"),
    ("dnsPolicy", "containers"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("preemptionPolicy", "containers"): ("PreemptLowerPriority", "Never"),
    ("operator", "tolerationSeconds"): ("Exists", "Equal", "Lt", "Gt"),
    ("effect", "tolerationSeconds"): ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("whenUnsatisfiable", "topologyKey"): ("DoNotSchedule", "ScheduleAnyway"),
    ("protocol", "containerPort"): ("TCP", "UDP", "SCTP"),
    ("scheme", "httpHeaders"): ("HTTP", "HTTPS"),
    ("type", "localhostProfile"): ("RuntimeDefault", "Localhost", "Unconfined"),
}
BUDGET, EXCLUDING = "PodDisruptionBudget", ("maxUnavailable", "minAvailable")
FEW = 8  # so many fields are named where one is unknown
_OF_QUANTITIES = "[KMGTPE]i"
# What people write for 4Gi and 500m.
_UNIT = re.compile(r"([0-9.]+) *([kKmMgGtTpP])(i?)[bB]?")


def check_schemas(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for objects that an API server would refuse by their schemas: a line for each
    thing, with the file that says it, where one does. Objects of other kinds pass (`known`).
    """
    found: dict[tuple[str, str], str] = {}
    for item in manifests:
        for refusal in refusals(item):
            place = file_saying(kustomization, refusal.words) if refusal.words else None
            owner = f"{place}: {label(item)}" if place else label(item)
            # Both sides have most of it from one file.
            found.setdefault((place or owner, refusal.line), f"{owner}: {refusal.line}")
    if found:
        raise Malformed("\n".join(found.values()))


@dataclass(frozen=True)
class Refusal:
    """What is wrong with a field, and the words by which the file that says it is found."""

    line: str
    words: tuple[str, ...] = ()


def refusals(item: Manifest) -> Iterator[Refusal]:
    """Each thing that an API server would refuse in an object."""
    # Go reads a date and a key of digits as the text that stands there, and so does JSON.
    item = json.loads(json.dumps(item, default=str))
    api_version, kind = item["apiVersion"], item["kind"]
    if known(item):
        found = list(violations(item, _kind(key(api_version, kind))))
        # Where lists and mappings are where they belong.
        yield from found or _of_code(item)
    elif served := _served(api_version, kind):
        line = f"apiVersion is {api_version!r}; set it to {_either(served)}."
        yield Refusal(line, (kind, api_version))


def known(item: Manifest) -> bool:
    """Whether there is a schema for the object's kind, in that version."""
    return key(item["apiVersion"], item["kind"]) in _file()["kinds"]


def violations(item: Manifest, schema: Schema) -> Iterator[Refusal]:
    """Each thing in an object that a schema does not allow."""
    for error in Draft202012Validator(schema).iter_errors(item):
        yield from _explained(item, error)


def _of_code(item: Manifest) -> Iterator[Refusal]:
    """What fits the schema and is refused all the same."""
    for steps, node in _mappings(item, []):
        resources = node.get("resources")
        # A claim's have only storage.
        if isinstance(resources, dict) and "storage" not in (resources.get("requests") or {}):
            for part, name, problem in faults(resources):
                said = str((resources.get(part) or {}).get(name, ""))
                place = _path([*steps, "resources", part, name])
                # An amount stands in many a file, and `cpu` with a digit in the settings too.
                yield Refusal(f"{place} {problem}", (item["kind"], part, name, said))
        if item["kind"] == BUDGET and all(name in node for name in EXCLUDING):
            both = " and ".join(EXCLUDING)
            yield Refusal(
                f"{_path(steps)} has {both}, which exclude each other; leave one of them.",
                EXCLUDING,
            )


def _mappings(
    node: Any, steps: list[str | int]
) -> Iterator[tuple[list[str | int], dict[str, Any]]]:
    """Each mapping at and below a node, with the way there."""
    if isinstance(node, dict):
        yield steps, node
    below = node.items() if isinstance(node, dict) else enumerate(node)
    for step, value in below:
        if isinstance(value, dict | list):
            yield from _mappings(value, [*steps, step])


def key(api_version: str, kind: str) -> str:
    """The name of a kind's schema."""
    return f"{kind}.{api_version.replace('/', '.')}"


def _explained(item: Manifest, error: ValidationError) -> Iterator[Refusal]:
    steps, value = list(error.absolute_path), error.instance
    if error.validator == "additionalProperties":
        fields = error.schema.get("properties", {})
        for name in sorted(value.keys() - fields.keys()):
            remedy = _remedy(item, steps, name, fields)
            yield Refusal(f"{_path([*steps, name])} is not a field; {remedy}", (name,))
    elif error.validator == "required":
        # There is an error for each of the missing ones, and its message alone says for which.
        if name := next((n for n in error.validator_value if f"{n!r} is" in error.message), None):
            yield Refusal(f"{_path([*steps, name])} is missing.")
    elif error.validator in ("oneOf", "anyOf", "not"):
        yield Refusal(_alternatives(_path(steps), error))
    else:
        yield _of_value(item, steps, error)


def _of_value(item: Manifest, steps: list[str | int], error: ValidationError) -> Refusal:
    """A value that is not what it should be; an environment variable's has the variable's name."""
    value, place = error.instance, _path(steps)
    words = [str(step) for step in steps[-1:]] if steps and isinstance(steps[-1], str) else []
    if steps[-1:] == ["value"] and isinstance(steps[-2], int):
        *above, _ = steps
        parent: Any = reduce(lambda node, step: node[step], above, cast("Any", item))
        name = parent.get("name", "")
        words, place = [str(name)], f"{place} ({name})"
    scalar = isinstance(value, str | int | float)
    words += [value if isinstance(value, str) else json.dumps(value)] if scalar else []
    return Refusal(f"{place} is {_shown(value)}; set it to {_expected(error)}.", tuple(words))


def _remedy(item: Manifest, steps: list[str | int], name: str, fields: Schema) -> str:
    """The nearest field, or where all of them are described."""
    by_small_letters = {field.lower(): field for field in fields}
    if near := get_close_matches(name.lower(), by_small_letters, 1, 0.75):
        return f"is {by_small_letters[near[0]]} meant?"
    if len(fields) <= FEW:
        return f"its fields are {', '.join(sorted(fields))}."
    above = [item["kind"].lower(), *(step for step in steps if isinstance(step, str))]
    return f"take it out, or look for its place with `kubectl explain {'.'.join(above)}`."


def _alternatives(path: str, error: ValidationError) -> str:
    """Of fields that exclude each other there are two, or none at all."""
    names = sorted(set(_required(error.validator_value)))
    if not names or not isinstance(error.instance, dict):
        return f"{path} is {_shown(error.instance)}, which its schema does not allow."
    given = [name for name in names if name in error.instance]
    if len(given) > 1:
        return f"{path} has {' and '.join(given)}, which exclude each other; leave one of them."
    return f"{path} needs {_either(names)}."


def _required(branches: Any) -> Iterator[str]:
    """The fields that the branches of a `oneOf` ask for."""
    if isinstance(branches, list):
        for branch in branches:
            yield from _required(branch)
    elif isinstance(branches, dict):
        yield from branches.get("required", ())
        for word in ("anyOf", "oneOf", "not"):
            yield from _required(branches.get(word))


def _expected(error: ValidationError) -> str:
    """What a value should be, for the end of a sentence."""
    allowed = error.validator_value
    if _OF_QUANTITIES in error.schema.get("pattern", ""):
        return _quantity(error.instance)
    if error.validator == "type":
        return _type(error)
    if error.validator in LIMITS:
        return LIMITS[error.validator].format(allowed)
    if error.validator == "enum":
        return _either(word for word in allowed if word != "")
    if error.validator == "pattern":
        every_host = error.instance == "*" and "hostnames" in error.absolute_path
        return NO_EVERY_HOST if every_host else f"a text that matches {allowed}"
    return f"what its schema allows, {error.validator} {allowed}"


def _type(error: ValidationError) -> str:
    kinds = [kind for kind in listed(error.validator_value) if kind != "null"]
    if kinds == ["string"] and isinstance(error.instance, bool | int | float):
        return IN_QUOTES
    if kinds == ["object"] and (names := error.schema.get("required")):
        return f"a mapping with {' and '.join(names)}"
    return _either(TYPES[kind] for kind in kinds)


def _quantity(value: Any) -> str:
    """An amount of memory or of processors."""
    if isinstance(value, str) and (found := _UNIT.fullmatch(value)):
        number, unit, _ = found.groups()
        return f"a quantity: {number}{unit.upper()}i"
    return "a quantity such as 4Gi, 512Mi, 2 or 500m, as text or whole number"


def _path(steps: Iterable[str | int]) -> str:
    """As elsewhere in the check: `spec.predictor.containers[0].image`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".") or "the object"


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def _either(words: Iterable[Any]) -> str:
    *most, last = map(str, words)
    return f"{', '.join(most)} or {last}" if most else last


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _served(api_version: str, kind: str) -> list[str]:
    """The versions that a kind has here, where the group is right and the version is another."""
    group = api_version.rpartition("/")[0]
    start = f"{kind}.{group}." if group else f"{kind}."
    versions = [name.removeprefix(start) for name in _file()["kinds"] if name.startswith(start)]
    return [f"{group}/{name}" if group else name for name in versions if "." not in name]


@cache
def _file() -> dict[str, dict[str, Schema]]:
    found: dict[str, dict[str, Schema]] = json.loads(FILE.read_text())
    return found


@cache
def _kind(name: str) -> Schema:
    schema: Schema = _whole(_file()["kinds"][name])
    return schema


@cache
def _part(name: str) -> Any:
    return _whole(_file()["$defs"][name])


def _whole(schema: Any) -> Any:
    """A schema with its shared parts in place: to look each up at each use takes far longer."""
    if isinstance(schema, list):
        return [_whole(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if reference := schema.get("$ref"):
        return _part(reference.removeprefix("#/$defs/"))
    whole = {name: _whole(below) for name, below in schema.items()}
    fields = whole.get("properties", {})
    for (name, other), words in WORDS.items():
        if name in fields and other in fields:
            fields[name] = {"enum": ["", *words], **fields[name]}
    return whole
