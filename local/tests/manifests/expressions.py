"""What the alerts and the dashboard ask Prometheus for, expression by expression."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
from tree import REPOSITORY

DASHBOARD = REPOSITORY / "manifests/options/dashboard/shadow-deployment.json"
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
IN_TEXT = re.compile(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}")


@dataclass(frozen=True)
class Asked:
    """An expression, where it stands, and the labels that its result is shown by."""

    where: str
    expression: str
    shown: frozenset[str]

    def selectors(self) -> list[promql_parser.VectorSelector]:
        """Each metric that it names, with its matchers."""
        found: list[promql_parser.VectorSelector] = []

        def visit(node: object) -> None:
            if isinstance(node, promql_parser.VectorSelector):
                found.append(node)

        promql_parser.walk(promql_parser.parse(self.expression), visit)
        return found

    def kept(self) -> set[str] | None:
        """The labels that its outermost aggregations keep; None when it has none."""
        found: list[set[str]] = []

        def visit(node: object) -> None:
            if isinstance(node, promql_parser.AggregateExpr):
                found.append(set(node.modifier.labels) if node.modifier else set())

        promql_parser.walk(promql_parser.parse(self.expression), visit)
        return set.intersection(*found) if found else None


def of_alerts(rules: dict[str, Any]) -> Iterator[Asked]:
    """A rendered PrometheusRule's."""
    for group in rules["spec"]["groups"]:
        for rule in group["rules"]:
            yield Asked(rule["alert"], rule["expr"], _labels(*rule["annotations"].values()))


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def of_dashboard() -> Iterator[Asked]:
    """Those of the panels, and of the lists to choose from."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield Asked(panel["title"], expression, _labels(target["legendFormat"]))
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            query = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert query is not None, variable["query"]
            yield Asked(f"the choice of {variable['name']}", query[1], frozenset([query[2]]))


def _labels(*texts: str) -> frozenset[str]:
    return frozenset(name for text in texts for name in IN_TEXT.findall(text))
