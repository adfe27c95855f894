"""pytest fixtures: a database of its own for each test, on a real Postgres.

The server is POSTGRES_URI when that is set, a container when a Docker engine answers and has or
pulls the image, and the embedded one otherwise. Needs the extra `tests`.
"""

from __future__ import annotations

import gc
import os
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from docker.errors import DockerException
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.exceptions import ContainerStartException

from embedded_postgres.schema import ROLES, apply_schema, as_role
from embedded_postgres.server import Postgres

CONTAINER_IMAGE = "postgres:18"
CONNECT_SECONDS = 10
READY_SECONDS = 60
ENGINE_FAILURE = pytest.StashKey[str]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says in one line why the tests did not run on the Docker engine that answers."""
    if failure := config.stash.get(ENGINE_FAILURE, None):
        terminalreporter.write_line(f"{failure}; the tests used the embedded Postgres.")


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URI of a superuser on the server that this session's tests share."""
    if uri := os.environ.get("POSTGRES_URI"):
        yield uri
        return
    container = None
    if docker_answers():
        try:
            container = start_container()
        except EngineFailed as error:
            request.config.stash[ENGINE_FAILURE] = str(error)
    if container is not None:
        yield container.get_connection_url()
        container.stop()
        return
    # Nothing in it outlives the session, and each test's database would wait for the disk.
    server = Postgres(tmp_path_factory.mktemp("postgres") / "data", durable=False)
    server.start()
    yield server.uri
    server.stop()


@pytest.fixture(scope="session")
def template_day() -> date:
    """The day from which the template has partitions ahead: a session may outlive it."""
    return datetime.now(UTC).date()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str, template_day: date) -> Iterator[str]:
    """Name of a database with the schema, which each test's database is copied from."""
    with database(postgres_server, "template0") as uri:
        apply_schema(uri)
        for role in ROLES:
            as_role(uri, role)
        yield str(conninfo_to_dict(uri)["dbname"])


@pytest.fixture
def postgres_uri(postgres_server: str, postgres_template: str, template_day: date) -> Iterator[str]:
    """URI of a superuser in a database of this test's own, with the schema as applied today."""
    with database(postgres_server, postgres_template) as uri:
        if datetime.now(UTC).date() != template_day:
            apply_schema(uri)
        yield uri


@pytest.fixture
def one_day() -> None:
    """Today does not end while the test runs: in its last minute this waits for tomorrow."""
    while (now := datetime.now(UTC)).hour == 23 and now.minute == 59:
        time.sleep(1)


@pytest.fixture
def empty_postgres_uri(postgres_server: str) -> Iterator[str]:
    """URI of a superuser in a database of this test's own, without any table."""
    with database(postgres_server, "template0") as uri:
        yield uri


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A server of this test's own, with the schema; the test may stop or kill it."""
    server = Postgres(tmp_path / "own-postgres")
    server.start()
    apply_schema(server.uri)
    for role in ROLES:
        as_role(server.uri, role)
    yield server
    server.stop()


@contextmanager
def database(server_uri: str, template: str) -> Iterator[str]:
    """URI of a superuser in a new copy of the template on the server; dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    parts = conninfo_to_dict(server_uri)
    password = f":{parts['password']}" if parts.get("password") else ""
    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute(
            # File by file, it takes half the CPU of writing each block to the log, too.
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    yield f"postgresql://{parts['user']}{password}@{parts['host']}:{parts['port']}/{name}"
    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class EngineFailed(RuntimeError):
    """The Docker engine answers, and has no Postgres for us; the message is one line."""


def docker_answers() -> bool:
    """Whether a Docker engine answers where testcontainers looks for one."""
    with warnings.catch_warnings():
        # The SDK leaves the socket of a failed attempt to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            DockerClient().client.close()
        except DockerException:
            answers = False
        else:
            answers = True
        gc.collect()
    return answers


def start_container(image: str = CONTAINER_IMAGE) -> PostgresContainer:
    """A running container whose Postgres takes connections from here; EngineFailed says why not."""
    container = PostgresContainer(image, username="postgres", driver=None)
    container.with_command("postgres -c max_connections=200 -c fsync=off -c full_page_writes=off")
    # One try a second; a test's own time limit, with this wait in its first fixture, is 120 s.
    testcontainers_config.max_tries = READY_SECONDS
    try:
        container.start()
        psycopg.connect(container.get_connection_url(), connect_timeout=CONNECT_SECONDS).close()
    # Requests to the engine fail as OSError, and a Postgres that never gets ready as TimeoutError.
    except (DockerException, OSError, ContainerStartException, psycopg.Error) as error:
        container.stop()
        reason = " ".join(str(getattr(error, "explanation", None) or error).split())
        raise EngineFailed(f"The Docker engine gave no {image} ({reason[:300]})") from error
    return container
