"""Gateways from the rendered manifests, and one whole deployment that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import Backend, answering
from gateways import Gateways, StartGateway

from shadow_local.rendering import topology
from shadow_local.stack import Options, Stack


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Gateways]:
    """Gateways of this test's own."""
    running = Gateways(tmp_path)
    yield running
    running.supervisor.stop_all()


@pytest.fixture
def start_gateway(gateways: Gateways) -> StartGateway:
    """Start Envoy with the manifests' routes: start(primary port, shadow port, …)."""
    return gateways.start


@pytest.fixture
def primary() -> Iterator[Backend]:
    """A recording server in place of the primary's transformer."""
    with answering("primary") as backend:
        yield backend


@pytest.fixture
def shadow() -> Iterator[Backend]:
    """A recording server in place of the shadow's transformer."""
    with answering("shadow") as backend:
        yield backend


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole standard deployment, shared: tests tell their own calls by pair id."""
    running = Stack(Options(tmp_path_factory.mktemp("stack"), topology("standard")))
    try:
        running.start()
        yield running
    finally:
        running.stop()
