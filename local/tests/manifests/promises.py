"""Every promise about a whole deployment that the rendered manifests alone can break."""

from __future__ import annotations

import re

import promises_of_alerts
import promises_of_database
import promises_of_follower
import promises_of_live_verdict
import promises_of_options
import promises_of_pods
import promises_to_callers
from routes import COMPONENT, Objects
from schemas import schema_errors
from tree import Tree, parse

PLACEHOLDER = re.compile(
    r"\b(PRIMARY|SHADOW|SECOND|SIDE|ENTRY|PROFILE|DOMAIN|GATEWAY|REGISTRY|TAG|KEY|CONTENT_LENGTH|GATEWAY_NAMESPACE|GATEWAY_NAME|RUNBOOK|PATHS)\b"
)


def broken_promises(tree: Tree) -> list[str]:
    """One line for each promise that a tree of manifests breaks; empty when it keeps all."""
    text = tree.text()
    objects, settings = parse(text), tree.settings()
    cluster = (tree.folder / "postgres-crd.yml").read_text()
    found = [f"the placeholder {match[1]} is left" for match in PLACEHOLDER.finditer(text)]
    found += _places(objects, settings)
    found += promises_to_callers.broken(objects, settings)
    found += promises_of_pods.broken(objects, settings)
    found += promises_of_database.broken(objects, settings, cluster)
    found += promises_of_options.broken(objects, settings)
    found += promises_of_follower.broken(objects, settings)
    found += promises_of_alerts.broken(objects, settings)
    found += promises_of_live_verdict.broken(objects, settings)
    # Last, and only while all else is well: it takes most of the time.
    return found or [error for item in objects for error in schema_errors(item)]


def _places(objects: Objects, settings: dict[str, str]) -> list[str]:
    """Everything is in the profile, but for what has to stand beside the gateway's pods."""
    found = []
    for item in objects:
        kind, metadata = item["kind"], item["metadata"]
        namespace = metadata.get("namespace")
        near_gateway = kind in ("Service", "DestinationRule")
        allowed = {settings["profile"]} | (
            {settings["gateway-namespace"]} if near_gateway else set()
        )
        if namespace not in allowed:
            found.append(f"{kind} {metadata['name']} is in {namespace}")
        of_option = metadata.get("labels", {}).get(COMPONENT) in ("dashboard", "rules")
        kinds = ("PostgresCluster", "ConfigMap", "Secret", "PersistentVolumeClaim")
        if kind in kinds and not of_option:
            found.append(f"`kubectl delete -k .` would take {kind} {metadata['name']} away")
        if len(metadata["name"]) > 63:
            found.append(f"{kind} {metadata['name']} has a name of more than 63 characters")
    return found
