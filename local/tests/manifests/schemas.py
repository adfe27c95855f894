"""What an API server would refuse: of the check's schemas, and more than the check can know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
from published import CORE_KINDS, closed

from shadow_local.translate.schemas import known, refusals, violations

# The oldest that KServe 0.16 runs on, and the newest that is known here.
KUBERNETES_VERSIONS = ("1.32", "1.37")
# The fields of the Gateway API's oldest standard channel that the page promises, from its CRDs: the
# newest, which the check goes by, would take more.
GATEWAY_API = Path(__file__).with_name("gateway-api-1.2.1-standard.json")
METADATA = {"name", "namespace", "labels", "annotations"}


def schema_errors(item: dict[str, Any]) -> tuple[str, ...]:
    """One line for each thing that an API server would refuse in an object, also the oldest one.

    Rules in CEL are not evaluated: only a real API server does that. What many renderings have
    alike is validated once.
    """
    return _errors_of(json.dumps(item))


@cache
def _errors_of(text: str) -> tuple[str, ...]:
    return tuple(_found(json.loads(text)))


def _found(item: dict[str, Any]) -> Iterator[str]:
    label = f"{item.get('kind')} {item.get('metadata', {}).get('name')}"
    for key in item.get("metadata", {}).keys() - METADATA:
        yield f"{label}: metadata.{key} is not for us to set"
    if not known(item):
        yield f"{label}: no schema for {item['apiVersion']}"
    yield from (f"{label}: {refusal.line}" for refusal in refusals(item))
    if item["apiVersion"] in CORE_KINDS:
        for kubernetes in KUBERNETES_VERSIONS:
            try:
                kubernetes_validate.validate(item, kubernetes, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{label}: {'.'.join(map(str, error.path))}: {error.message}"
    if item["apiVersion"].startswith("gateway.networking.k8s.io/"):
        for refusal in violations(item, _oldest_gateway_api()[item["kind"]]):
            yield f"{label}: {refusal.line}"


@cache
def _oldest_gateway_api() -> dict[str, dict[str, Any]]:
    top = {"apiVersion": {}, "kind": {}, "metadata": {}}
    schemas = {kind: closed(schema) for kind, schema in json.loads(GATEWAY_API.read_text()).items()}
    return {
        kind: {**schema, "properties": {**schema["properties"], **top}}
        for kind, schema in schemas.items()
    }
