"""A transformer, a predictor and a Postgres for each fault; what a test starts ends with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deployment import Start, as_transformer
from processes import mount, unmount
from serving import Predictor, Transformer

from embedded_postgres import Postgres, apply_schema, as_role


@pytest.fixture(scope="session")
def postgres_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a stopped server with the schema, to copy."""
    server = Postgres(tmp_path_factory.mktemp("template") / "data")
    server.start()
    apply_schema(server.uri)
    for role in ("transformer", "report"):
        as_role(server.uri, role)
    server.stop()
    return server.folder


@pytest.fixture
def stopped_postgres(tmp_path: Path, postgres_data: Path) -> Iterator[Postgres]:
    """A server of this test's own, with the schema, that is not running yet."""
    folder = tmp_path / "postgres"
    subprocess.run(["cp", "-a", str(postgres_data), str(folder)], check=True)
    server = Postgres(folder)
    yield server
    server.kill()


@pytest.fixture
def postgres(stopped_postgres: Postgres) -> Postgres:
    """A running server of this test's own, with the schema."""
    stopped_postgres.start()
    return stopped_postgres


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Where this test's records wait; made by the transformer."""
    return tmp_path / "spool"


@pytest.fixture
def start(tmp_path: Path, spool: Path, predictor: Predictor) -> Iterator[Start]:
    """Starts transformers with this test's spool; ends them and their children after the test."""
    with ExitStack() as running:

        def started(uri: str, *arguments: str, **variables: str) -> Transformer:
            host = variables.pop("PREDICTOR", predictor.address)
            settings = {"SPOOL_DIR": str(spool)} | variables
            return running.enter_context(Transformer(tmp_path, uri, host, *arguments, **settings))

        yield started


@pytest.fixture
def transformer_uri(postgres: Postgres) -> str:
    """The test's server for the role that may only INSERT."""
    return as_transformer(postgres)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system with the options given."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs takes root; run this test as root")
    folder = tmp_path / "small-disk"
    folder.mkdir()

    def mounted(options: str) -> Path:
        mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
        return folder

    yield mounted
    unmount(folder)


@pytest.fixture
def database(postgres_uri: str) -> str:
    """This test's database for the role that may only INSERT."""
    return as_role(postgres_uri, "transformer")
