"""The schemas that the check goes by, from what their owners publish; run as a program, this writes
them anew: with CRD_DIR, `.venv/bin/python tests/manifests/published.py`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from tree import LOADER

from shadow_local.translate import schemas

Schema = dict[str, Any]
KUBERNETES = "v1.37.0"
# What this repository renders, and what stands next to a model in a deployment of one's own.
CORE_KINDS = {
    "v1": (
        "ConfigMap Namespace PersistentVolume PersistentVolumeClaim Pod Secret Service "
        "ServiceAccount"
    ),
    "apps/v1": "DaemonSet Deployment StatefulSet",
    "autoscaling/v1": "HorizontalPodAutoscaler",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "batch/v1": "CronJob Job",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "policy/v1": "PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
}
METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
# As in every CRD; the published schema of Kubernetes itself leaves the pattern to prose.
QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|"
    r"([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
OF_KUBERNETES: dict[str, Schema] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "type": ["number", "string"],
        "pattern": QUANTITY,
    },
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    # What kubectl and controller-gen write where there is none.
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": {"type": ["string", "null"]},
}
# Of a schema: what a check of values needs, in the words of JSON Schema.
BELOW = ("items", "additionalProperties", "not")
LISTS = ("allOf", "anyOf", "oneOf")
VALUES = (
    *("type", "enum", "pattern", "required", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties"),
    *("maxProperties", "multipleOf", "uniqueItems"),
)
WORTH_SHARING = 60  # characters of JSON; a reference has half of them


def crd_folder() -> Path | None:
    """CRD_DIR: the CRDs of KServe, Istio, the Gateway API, Prometheus' and Crunchy's operators,
    Flagger and Argo Rollouts.
    """
    value = os.environ.get("CRD_DIR")
    return Path(value) if value else None


def published(crds: Path) -> str:
    """The file: a line for each schema, the kinds first; equal parts stand in it once."""
    kinds = {**core_kinds(), **custom_kinds(crds)}
    return _text(kinds)


def custom_kinds(folder: Path) -> dict[str, Schema]:
    """The served versions of the CRDs in a folder."""
    found = {}
    for path in sorted(folder.glob("*.y*ml")):
        spec = yaml.load(path.read_text(), Loader=LOADER)["spec"]
        for version in spec["versions"]:
            if version["served"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "status": {}}
                schema["properties"]["metadata"] = _resolved(_definitions()[METADATA])
                name = f"{spec['group']}/{version['name']}"
                found[schemas.key(name, spec["names"]["kind"])] = schema
    return found


def core_kinds() -> dict[str, Schema]:
    """Those of Kubernetes itself."""
    by_kind = {
        (kind["group"], kind["version"], kind["kind"]): schema
        for schema in _definitions().values()
        for kind in schema.get("x-kubernetes-group-version-kind", ())
    }
    found = {}
    for name, kinds in CORE_KINDS.items():
        group, _, version = name.rpartition("/")
        for kind in kinds.split():
            schema = _resolved(by_kind[group, version, kind])
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "status": {}}
            found[schemas.key(name, kind)] = schema
    return found


def closed(schema: Schema) -> Schema:
    """A structural schema, as far as it is about values; it allows no field that it does not name,
    since an API server would drop that one, or refuse it where it is asked to be strict.
    """
    result = {name: schema[name] for name in VALUES if name in schema}
    if schema.get("x-kubernetes-int-or-string"):
        pattern = {"pattern": schema["pattern"]} if "pattern" in schema else {}
        return {"type": ["integer", "string"], **pattern}
    if schema.get("nullable"):
        result["type"] = [*schemas.listed(result["type"]), "null"]
    for name in BELOW:
        if isinstance(schema.get(name), dict):
            result[name] = closed(schema[name]) if name != "not" else _condition(schema[name])
    for name in LISTS:
        if name in schema:
            result[name] = [_condition(item) for item in schema[name]]
    if "properties" in schema:
        result["properties"] = {name: closed(item) for name, item in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    return result


def _condition(schema: Schema) -> Schema:
    """A part of `oneOf` and the like: it names only the fields that it is about."""
    result = {name: schema[name] for name in VALUES if name in schema}
    for name in BELOW:
        if isinstance(schema.get(name), dict):
            result[name] = _condition(schema[name])
    for name in LISTS:
        if name in schema:
            result[name] = [_condition(item) for item in schema[name]]
    if "properties" in schema:
        below = schema["properties"].items()
        result["properties"] = {name: _condition(item) for name, item in below}
    return result


def _resolved(schema: Schema) -> Schema:
    """A schema of Kubernetes' own without references; a field that stands there empty is one that
    was forgotten, although Go takes it for one that is not there.
    """
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return dict(OF_KUBERNETES[name] if name in OF_KUBERNETES else _of_kubernetes(name))
    result = {name: schema[name] for name in VALUES if name in schema}
    if isinstance(result.get("type"), list):
        (result["type"],) = {*result["type"]} - {"null"}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            result[name] = _resolved(schema[name])
    if "properties" in schema:
        result["additionalProperties"] = False
        below = schema["properties"].items()
        result["properties"] = {name: _resolved(item) for name, item in below}
    return result


@cache
def _of_kubernetes(name: str) -> Schema:
    return _resolved(_definitions()[name])


@cache
def _definitions() -> dict[str, Schema]:
    folder = f"kubernetes-json-schema/{KUBERNETES}-local-strict/_definitions.json"
    found: dict[str, Schema] = json.loads(files("kubernetes_validate").joinpath(folder).read_text())
    return found["$defs"]


def _text(kinds: dict[str, Schema]) -> str:
    texts: Counter[str] = Counter()
    for schema in kinds.values():
        _count(schema, texts)
    shared: dict[str, tuple[str, Any]] = {}  # a part's text -> its name, and itself with references
    taken: Counter[str] = Counter()

    def refer(schema: Any, name: str) -> Any:
        if isinstance(schema, list):
            return [refer(item, name) for item in schema]
        if not isinstance(schema, dict):
            return schema
        text = _dumped(schema)
        if text in shared:
            return {"$ref": f"#/$defs/{shared[text][0]}"}
        below = {}
        for key, value in sorted(schema.items()):
            if key == "properties":
                below[key] = {field: refer(item, field) for field, item in sorted(value.items())}
            else:
                below[key] = refer(value, name)
        if texts[text] < 2 or len(text) < WORTH_SHARING:
            return below
        taken[name] += 1
        own = name if taken[name] == 1 else f"{name}-{taken[name]}"
        shared[text] = own, below
        return {"$ref": f"#/$defs/{own}"}

    tops = {name: refer(schema, name) for name, schema in sorted(kinds.items())}
    parts = dict(sorted(shared.values()))
    return (
        "{\n"
        + ",\n".join(
            f'"{title}": {{\n'
            + ",\n".join(f"{json.dumps(name)}: {_dumped(item)}" for name, item in items.items())
            + "\n}"
            for title, items in (("kinds", tops), ("$defs", parts))
        )
        + "\n}\n"
    )


def _count(schema: Any, texts: Counter[str]) -> None:
    """How often each part occurs, where what is shared counts once."""
    if isinstance(schema, list):
        for item in schema:
            _count(item, texts)
    elif isinstance(schema, dict):
        text = _dumped(schema)
        texts[text] += 1
        if texts[text] == 1:
            for key, value in schema.items():
                _count([*value.values()] if key == "properties" else value, texts)


def _dumped(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))


if __name__ == "__main__":
    folder = crd_folder()
    if folder is None:
        raise SystemExit("CRD_DIR is not set; set it to a folder with the CRDs.")
    schemas.FILE.write_text(published(folder))
    print(f"wrote {schemas.FILE.name}")
