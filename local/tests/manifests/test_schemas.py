"""What an API server with these CRDs would say to each object of each overlay."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from goldens import FOLDER
from published import crd_folder, published
from schemas import schema_errors
from tree import REPOSITORY, kustomize, parse

from shadow_local.translate.schemas import FILE

CORE_KINDS = ("ConfigMap", "CronJob", "Deployment", "NetworkPolicy", "Service")


def _objects() -> list[dict[str, Any]]:
    return [item for path in sorted(FOLDER.iterdir()) for item in parse(path.read_text())]


def test_the_schemas_are_what_their_owners_publish() -> None:
    """Of each CRD in CRD_DIR, and of Kubernetes: an update of one is an update of the file."""
    folder = crd_folder()
    if folder is None:
        pytest.skip("set CRD_DIR to a folder with the CRDs that README.md names; .ci/run does")
    current = FILE.read_text() == published(folder)
    assert current, "run tests/manifests/published.py, and read what it changes"


def test_custom_resources_are_accepted() -> None:
    """Unknown fields, wrong types, missing ones: none in any overlay, stage or option."""
    items = [*_objects(), yaml.safe_load((REPOSITORY / "postgres-crd.yml").read_text())]
    assert [error for item in items for error in schema_errors(item)] == []


def test_core_objects_are_accepted() -> None:
    """The jobs, policies, Services and ConfigMaps fit the oldest and the newest Kubernetes."""
    items = [item for item in _objects() if item["kind"] in CORE_KINDS]
    items += parse(kustomize(REPOSITORY / "manifests/database"))
    assert {item["kind"] for item in items} == set(CORE_KINDS)
    assert [error for item in items for error in schema_errors(item)] == []


def test_routes_are_accepted_by_the_oldest_gateway_api() -> None:
    """Topology follow fits the standard channel that KServe 0.16 installs, 1.2."""
    routes = [item for item in _objects() if item["kind"] in ("HTTPRoute", "GRPCRoute")]
    assert {item["kind"] for item in routes} == {"HTTPRoute", "GRPCRoute"}
    assert [error for item in routes for error in schema_errors(item)] == []


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_rule_has_no_name(kind: str) -> None:
    """The standard channel has names of rules since 1.4 only."""
    route = next(item for item in _objects() if item["kind"] == kind)
    route["spec"]["rules"][0]["name"] = "entry"
    (line,) = schema_errors(route)
    assert "spec.rules[0].name is not a field" in line


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("VirtualService", "spec.http.1.mirors", []),
        ("VirtualService", "spec.http.1.retries.attempts", "none"),
        ("VirtualService", "spec.http.1.route.0.destination", {"port": {"number": 80}}),
        ("DestinationRule", "spec.trafficPolicy.connectionPool.http.http1MaxPending", 3),
        ("InferenceService", "spec.transformer.minReplica", 1),
        ("InferenceService", "spec.transformer.containers.0.env.0", {"nam": "FACTOR"}),
        ("InferenceService", "spec.predictor.containers.0.readinessProbe.httpGet.prt", 8080),
        ("PodMonitor", "spec.podMetricsEndpoints.0.intervall", "30s"),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "fifteen minutes"),
        ("PrometheusRule", "spec.groups.0.rules.0.severity", "critical"),
        ("PostgresCluster", "spec.users.0.password.type", "Letters"),
        ("PostgresCluster", "spec.databaseInitSQL", {"name": "prediction-db-schema"}),
    ],
)
def test_validation_is_strict(kind: str, path: str, value: object) -> None:
    """The check itself sees an unknown field, a wrong type and a missing one, deep down."""
    items = [*_objects(), yaml.safe_load((REPOSITORY / "postgres-crd.yml").read_text())]
    item = next(item for item in items if item["kind"] == kind)
    place: Any = item
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    place[last] = value
    assert schema_errors(item)


def test_core_validation_is_strict() -> None:
    """An unknown field of a core object is refused too."""
    job = next(item for item in _objects() if item["kind"] == "CronJob")
    job["spec"]["jobTemplate"]["spec"]["backofLimit"] = 1
    assert schema_errors(job)
