"""Gateways from the rendered manifests, and one whole deployment that several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import Backend, answering
from gateways import Gateways, StartGateway
from runs import Run, Start
from tree import Tree

from shadow_local.stack import Options, Stack
from shadow_local.translate.document import topology

# A rendering allocates little, and kubectl's garbage collector would take a third of its time.
os.environ["GOGC"] = "off"


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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def run(*words: str, **settings: Any) -> Run:
        folder = tmp_path / f"run-{len(runs)}"
        folder.mkdir()
        runs.append(Run(folder, *words, **settings))
        return runs[-1]

    yield run
    for item in runs:
        if item.is_running:
            item.process.kill()
            item.process.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with the options given."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small tmpfs takes root on Linux; run this test as root")
    folder = tmp_path / "small-disk"
    folder.mkdir()

    def mounted(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        return folder

    yield mounted
    subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole standard deployment, shared: tests tell their own calls by pair id."""
    running = Stack(Options(tmp_path_factory.mktemp("stack"), topology("standard")))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def follow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The topology without a mesh, with two shadows; shared by the tests of both."""
    folder = tmp_path_factory.mktemp("follow")
    tree = Tree(folder / "tree")
    tree.choose_topology("follow")
    tree.switch_on("second-shadow/follow")
    running = Stack(Options(folder / "stack", tree.folder))
    try:
        running.start()
        yield running
    finally:
        running.stop()
