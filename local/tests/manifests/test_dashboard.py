"""The dashboard as Grafana's sidecar finds it and as Grafana draws it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

from expressions import dashboard, of_dashboard
from tree import Tree

# Set by Grafana itself.
GIVEN = {"__rate_interval", "__all", "labels"}


def test_the_sidecar_finds_it(tmp_path: Path) -> None:
    """A ConfigMap with the label that Grafana's Helm chart looks for, and the file in it."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    (found,) = [
        o for o in tree.objects() if o["metadata"].get("labels", {}).get("grafana_dashboard")
    ]
    assert found["kind"] == "ConfigMap"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["shadow-deployment.json"]) == dashboard()


def test_panels_lie_side_by_side() -> None:
    """None covers another, none is wider than the page, and each says what it shows."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
    for one, other in combinations(panels, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_every_variable_is_defined() -> None:
    """Each `$name`, in titles, expressions and repeated panels, is one that can be chosen."""
    document = dashboard()
    defined = {variable["name"] for variable in document["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(document)))
    assert used - GIVEN == defined


def test_every_query_is_for_the_chosen_profile_and_source() -> None:
    """One Prometheus may have several profiles; one Grafana several Prometheus'."""
    for asked in of_dashboard():
        for selector in asked.selectors():
            matchers = {m.name: m.value for m in selector.matchers.matchers}
            assert matchers.get("namespace") == "$namespace" or asked.where.endswith("namespace")
    sources: list[Any] = [p.get("datasource") for p in dashboard()["panels"] if p["type"] != "row"]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
