"""What the alerts promise; one line for each promise that is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from routes import Objects, of_kind

SEVERITIES = ("info", "warning", "critical")
# What chance alone moves; the gates' statuses and the verdict have bounds that hold at every look.
ESTIMATES = ("shadow_coverage_ratio", "shadow_gate_estimate")
DURATION = re.compile(r"[1-9]\d*[mh]")


def broken(objects: Objects, settings: dict[str, str]) -> Iterator[str]:
    """What is wrong with the alerts where the option is on."""
    for item in of_kind(objects, "PrometheusRule"):
        rules = [rule for group in item["spec"]["groups"] for rule in group["rules"]]
        names = [rule["alert"] for rule in rules]
        if len(set(names)) != len(names):
            yield "two alerts have one name"
        for rule in rules:
            yield from _broken(rule, settings)


def _broken(rule: dict[str, Any], settings: dict[str, str]) -> Iterator[str]:
    name, notes = rule["alert"], rule["annotations"]
    # Others' deployments in the same Prometheus are others' matter.
    own = f'namespace="{settings["profile"]}"'
    if rule["expr"].count("{") != 1 or f"{{{own}" not in rule["expr"]:
        yield f"{name} looks at other namespaces than {own}"
    if any(estimate in rule["expr"] for estimate in ESTIMATES):
        yield f"{name} goes by an estimate"
    if rule["labels"].get("severity") not in SEVERITIES:
        yield f"{name} has the severity {rule['labels'].get('severity')}"
    # What counts over a span of its own need not wait.
    if "for" not in rule and "increase(" not in rule["expr"]:
        yield f"{name} fires at the first look"
    if not DURATION.fullmatch(rule.get("for", "1m")):
        yield f"{name} waits {rule['for']}"
    if notes["runbook_url"] != f"{settings['runbook']}#{name.lower()}":
        yield f"{name} leads to {notes['runbook_url']}"
    if not all(notes.get(note, "").endswith(".") for note in ("summary", "description")):
        yield f"{name} does not say what is wrong and what to do"
