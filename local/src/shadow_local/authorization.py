"""AuthorizationPolicies that deny, as the Envoy filter that Istio makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shadow_local.document import Section, document


def denials(manifests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Envoy's RBAC rules of the rendered policies; each is for the gateways' pods."""
    return [_policy(item) for item in manifests if item.get("kind") == "AuthorizationPolicy"]


def _policy(manifest: dict[str, Any]) -> dict[str, Any]:
    with document(manifest) as top, top.section("metadata") as metadata:
        top.has_no_effect_here("apiVersion", "kind")
        metadata.has_no_effect_here("labels", "annotations", "namespace")
        name = metadata.text("name")
        with top.section("spec") as spec:
            if spec.text("action", "ALLOW") != "DENY":
                raise spec.refusal("action", "only DENY is translated")
            with spec.section("selector") as selector:
                # All gateways here stand for those pods; the models have no sidecars.
                selector.has_no_effect_here("matchLabels")
            rules = [_rule(item) for item in spec.sections("rules")]
    policies = {f"{name}-{number}": rule for number, rule in enumerate(rules)}
    return {"action": "DENY", "policies": policies}


def _rule(section: Section) -> dict[str, Any]:
    with section as rule:
        operations = [p for item in rule.sections("to") for p in _operation(item)]
        conditions = [_condition(item) for item in rule.sections("when")]
    permissions = operations or [{"any": True}]
    principals = [{"and_ids": {"ids": conditions or [{"any": True}]}}]
    return {"permissions": permissions, "principals": principals}


def _operation(section: Section) -> list[dict[str, Any]]:
    with section as to, to.section("operation") as operation:
        paths = operation.texts("paths")
        return [{"url_path": {"path": _matcher(path)}} for path in paths]


def _condition(section: Section) -> dict[str, Any]:
    with section as when:
        header = re.fullmatch(r"request\.headers\[(.+)\]", when.text("key"))
        if header is None:
            raise when.refusal("key", "only request.headers[…] is translated")
        wanted = [_header(header[1], value) for value in when.texts("values")]
        unwanted = [_header(header[1], value) for value in when.texts("notValues")]
    if bool(wanted) == bool(unwanted):
        raise when.refusal("values", "either values or notValues is needed")
    if wanted:
        return {"or_ids": {"ids": wanted}}
    return {"not_id": {"or_ids": {"ids": unwanted}}}


def _header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"name": name, "string_match": _matcher(value)}}


def _matcher(value: str) -> dict[str, Any]:
    """Istio's notation: a star at either end."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    return {"exact": value}
