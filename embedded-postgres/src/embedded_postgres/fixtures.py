"""pytest fixtures: a database of its own for each test, on a real Postgres.

The server is POSTGRES_URI when that is set, a container when a Docker engine answers, and the
embedded one otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from embedded_postgres.schema import ROLES, apply_schema, as_role
from embedded_postgres.server import Postgres

CONTAINER_IMAGE = "postgres:18"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a superuser on the server that this session's tests share."""
    if uri := os.environ.get("POSTGRES_URI"):
        yield uri
    elif _docker_answers():
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer(CONTAINER_IMAGE, driver=None) as container:
            yield container.get_connection_url()
    else:
        server = Postgres(tmp_path_factory.mktemp("postgres") / "data")
        server.start()
        yield server.uri
        server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """Name of a database with the schema, which each test's database is copied from."""
    with _database(postgres_server, "template0") as uri:
        apply_schema(uri)
        for role in ROLES:
            as_role(uri, role)
        yield str(conninfo_to_dict(uri)["dbname"])


@pytest.fixture
def postgres_uri(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """URI of a superuser in a database of this test's own, with the schema."""
    with _database(postgres_server, postgres_template) as uri:
        yield uri


@pytest.fixture
def empty_postgres_uri(postgres_server: str) -> Iterator[str]:
    """URI of a superuser in a database of this test's own, without any table."""
    with _database(postgres_server, "template0") as uri:
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
def _database(server_uri: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    parts = conninfo_to_dict(server_uri)
    password = f":{parts['password']}" if parts.get("password") else ""
    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    yield f"postgresql://{parts['user']}{password}@{parts['host']}:{parts['port']}/{name}"
    with psycopg.connect(server_uri, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
