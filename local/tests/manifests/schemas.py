"""What an API server would refuse: unknown fields, wrong types, missing ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tree import LOADER

# The oldest that KServe 0.16 runs on, and the newest that is known here.
KUBERNETES_VERSIONS = ("1.32", "1.37")
CORE_GROUPS = ("", "apps", "batch", "networking.k8s.io")
# The fields of the Gateway API's oldest standard channel that the page promises, from its CRDs: the
# newest, as CRD_DIR has them, would take more.
GATEWAY_API = Path(__file__).with_name("gateway-api-1.2.1-standard.json")
METADATA = {"name", "namespace", "labels", "annotations"}


def schema_errors(item: dict[str, Any], crd_folder: Path | None) -> tuple[str, ...]:
    """One line for each thing that an API server would refuse in an object.

    Without a folder of CRDs the custom resources pass unseen. Rules in CEL are not evaluated: only
    a real API server does that. What many renderings have alike is validated once.
    """
    return _errors_of(json.dumps(item), crd_folder)


@cache
def _errors_of(text: str, crd_folder: Path | None) -> tuple[str, ...]:
    return tuple(_found(json.loads(text), crd_folder))


def _found(item: dict[str, Any], crd_folder: Path | None) -> Iterator[str]:
    label = f"{item.get('kind')} {item.get('metadata', {}).get('name')}"
    for key in item.get("metadata", {}).keys() - METADATA:
        yield f"{label}: metadata.{key} is not for us to set"
    group, _, version = item["apiVersion"].rpartition("/")
    if group in CORE_GROUPS:
        for kubernetes in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(item, kubernetes, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{label}: {'.'.join(map(str, error.path))}: {error.message}"
        return
    if group == "gateway.networking.k8s.io":
        yield from _errors(label, item, _oldest_gateway_api()[item["kind"]])
    if crd_folder:
        schemas = custom_resources(crd_folder)
        if (group, version, item["kind"]) in schemas:
            yield from _errors(label, item, schemas[group, version, item["kind"]])
        else:
            yield f"{label}: no CRD serves {item['apiVersion']}"


@cache
def _oldest_gateway_api() -> dict[str, dict[str, Any]]:
    kinds = json.loads(GATEWAY_API.read_text())
    return {kind: closed(schema, top=True) for kind, schema in kinds.items()}


def _errors(label: str, item: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    for error in Draft202012Validator(schema).iter_errors(item):
        yield f"{label}: {'.'.join(map(str, error.absolute_path))}: {error.message}"


@cache
def custom_resources(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The served versions of the CRDs in a folder, as schemas that refuse unknown fields."""
    found = {}
    for path in sorted(folder.glob("*.y*ml")):
        spec = yaml.load(path.read_text(), Loader=LOADER)["spec"]
        for version in spec["versions"]:
            if version["served"]:
                schema = closed(version["schema"]["openAPIV3Schema"], top=True)
                found[spec["group"], version["name"], spec["names"]["kind"]] = schema
    return found


def closed(schema: dict[str, Any], top: bool = False) -> dict[str, Any]:
    """A structural schema that allows no field it does not name, as an API server prunes by it."""
    result = dict(schema)
    if schema.get("nullable"):
        result["type"] = [schema["type"], "null"]
    if "items" in schema:
        result["items"] = closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(schema["additionalProperties"])
    if "properties" in schema:
        result["properties"] = {k: closed(v) for k, v in schema["properties"].items()}
        if top:
            result["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    return result


def crd_folder() -> Path | None:
    """CRD_DIR: a folder with the CRDs of KServe, Istio, the Crunchy operator and Prometheus'."""
    value = os.environ.get("CRD_DIR")
    return Path(value) if value else None
