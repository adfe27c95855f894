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


# Each with its `broken`: what it promises to whom.
PROMISES = (
    *(promises_to_callers, promises_of_pods, promises_of_options, promises_of_follower),
    *(promises_of_alerts, promises_of_live_verdict),
)


def broken_promises(tree: Tree) -> list[str]:
    """A line for each promise that a tree of manifests breaks, with the file that has it; empty
    when it keeps all.
    """
    text = tree.text()
    objects, settings = parse(text), tree.settings()
    cluster = (tree.folder / "postgres-crd.yml").read_text()
    found = [
        f"manifests/settings/replacements.yaml: the placeholder {match[1]} is left"
        for match in PLACEHOLDER.finditer(text)
    ]
    found += _places(objects, settings)
    of_database = promises_of_database.broken(objects, settings, cluster)
    found += [f"{promises_of_database.__name__}.py: {line}" for line in of_database]
    for promises in PROMISES:
        lines = promises.broken(objects, settings)
        found += [f"{promises.__name__}.py: {line}" for line in lines]
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
