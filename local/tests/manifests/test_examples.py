"""The examples' kustomizations: what an API server with these CRDs would say to each object."""

from __future__ import annotations

from pathlib import Path

import pytest
from schemas import crd_folder, schema_errors
from test_schemas import WHAT_RUNS_IT
from tree import REPOSITORY, kustomize, parse

EXAMPLES = sorted(path.parent for path in REPOSITORY.glob("examples/*/kustomization.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda folder: folder.name)
def test_an_examples_objects_are_accepted(example: Path) -> None:
    """Unknown fields, wrong types, missing ones, namespaces of nobody: none."""
    crds = crd_folder()
    if crds is None:
        pytest.skip(WHAT_RUNS_IT)
    items = parse(kustomize(example))
    assert [error for item in items for error in schema_errors(item, crds)] == []
    assert {item["metadata"]["namespace"] for item in items} == {"prokube-demo-profile"}
