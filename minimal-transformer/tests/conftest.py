"""Servers and a database that one session's tests share; each call has its own pair id."""

from __future__ import annotations

import gc
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

# Until all tests are imported, as the server itself: that is half of a collection's CPU.
gc.disable()
# `import kserve` parses the command line; pytest's own is not meant for it.
_argv, sys.argv = sys.argv, sys.argv[:1]
import kserve  # noqa: E402, F401

sys.argv = _argv

from scripted import ScriptedPredictor  # noqa: E402
from serving import Predictor, Storyteller, Transformer, free_port  # noqa: E402
from streaming import StreamingPredictor  # noqa: E402


def pytest_collection_finish() -> None:
    """From here on garbage is collected, and not among what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_uri(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A database with the schema for the servers that several tests share."""
    name = f"shared_{uuid.uuid4().hex}"
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(postgres_template)))
    parts = conninfo_to_dict(postgres_server)
    password = f":{parts['password']}" if parts.get("password") else ""
    yield f"postgresql://{parts['user']}{password}@{parts['host']}:{parts['port']}/{name}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs and spools of the servers that several tests share."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def predictor(folder: Path) -> Iterator[Predictor]:
    """The example model, multiplying by two."""
    with Predictor(folder) as running:
        yield running


@pytest.fixture(scope="session")
def transformer(folder: Path, shared_uri: str, predictor: Predictor) -> Iterator[Transformer]:
    """A transformer in front of the example model over REST."""
    with Transformer(folder, shared_uri, predictor.address) as running:
        yield running


@pytest.fixture(scope="session")
def grpc_transformer(folder: Path, shared_uri: str, predictor: Predictor) -> Iterator[Transformer]:
    """A transformer in front of the example model over gRPC."""
    arguments = ["--predictor_protocol", "grpc-v2"]
    with Transformer(folder, shared_uri, predictor.grpc_address, *arguments) as running:
        yield running


@pytest.fixture(scope="session")
def scripted() -> Iterator[ScriptedPredictor]:
    """A predictor that misbehaves on demand."""
    with ScriptedPredictor() as running:
        yield running


@pytest.fixture(scope="session")
def fronting(folder: Path, shared_uri: str, scripted: ScriptedPredictor) -> Iterator[Transformer]:
    """A transformer in front of the misbehaving predictor, with a timeout of 10 s."""
    arguments = ["--predictor_request_timeout_seconds", "10"]
    with Transformer(folder, shared_uri, scripted.address, *arguments) as running:
        yield running


@pytest.fixture(scope="session")
def storyteller(folder: Path) -> Iterator[Storyteller]:
    """The example that generates."""
    with Storyteller(folder) as running:
        yield running


@pytest.fixture(scope="session")
def telling(folder: Path, shared_uri: str, storyteller: Storyteller) -> Iterator[Transformer]:
    """A transformer in front of the example that generates."""
    with Transformer(folder, shared_uri, storyteller.address) as running:
        yield running


@pytest.fixture(scope="session")
def streaming() -> Iterator[StreamingPredictor]:
    """A predictor whose streams the tests write down."""
    with StreamingPredictor() as running:
        yield running


@pytest.fixture(scope="session")
def passing(folder: Path, shared_uri: str, streaming: StreamingPredictor) -> Iterator[Transformer]:
    """A transformer in front of it that passes what is posted below /any."""
    with Transformer(folder, shared_uri, streaming.address, PASS_PATHS="/any") as running:
        yield running


@pytest.fixture(scope="session")
def retrying(folder: Path, shared_uri: str, scripted: ScriptedPredictor) -> Iterator[Transformer]:
    """A transformer in front of the misbehaving predictor that tries twice more."""
    arguments = ["--predictor_request_retries", "2"]
    with Transformer(folder, shared_uri, scripted.address, *arguments) as running:
        yield running


@pytest.fixture(scope="session")
def away(folder: Path, shared_uri: str) -> Iterator[Transformer]:
    """A transformer whose predictor is not there."""
    with Transformer(folder, shared_uri, f"127.0.0.1:{free_port()}") as running:
        yield running


@pytest.fixture(scope="session")
def grpc_away(folder: Path, shared_uri: str) -> Iterator[Transformer]:
    """A transformer whose gRPC predictor is not there."""
    arguments = ["--predictor_protocol", "grpc-v2"]
    with Transformer(folder, shared_uri, f"127.0.0.1:{free_port()}", *arguments) as running:
        yield running


@pytest.fixture(scope="session")
def no_postgres(folder: Path, scripted: ScriptedPredictor) -> Iterator[Transformer]:
    """A transformer whose database is not there."""
    uri = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with Transformer(folder, uri, scripted.address) as running:
        yield running


# A busy machine is not a fault of the code; an example that takes long is judged by its result.
hypothesis.settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.load_profile("patient")
