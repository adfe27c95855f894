"""postgres-crd.yml and init.sql, as the operator uses them, on a real Postgres."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import yaml
from psycopg import sql
from tree import REPOSITORY, kustomize

from embedded_postgres import Postgres

DATABASE = REPOSITORY / "manifests/database"
CLUSTER: dict[str, Any] = yaml.safe_load((REPOSITORY / "postgres-crd.yml").read_text())
CONFIG_FOLDER = "/etc/postgres"  # where the operator mounts spec.config.files


def test_operator_gets_the_only_copy_of_the_schema() -> None:
    """The ConfigMap holds schema.sql as it stands, under the names that postgres-crd.yml uses."""
    (config_map,) = yaml.safe_load_all(kustomize(DATABASE))
    spec = CLUSTER["spec"]
    assert config_map["metadata"]["name"] == spec["databaseInitSQL"]["name"]
    assert config_map["data"][spec["databaseInitSQL"]["key"]] == _text("init.sql")
    (file,) = spec["config"]["files"]
    assert file["configMap"]["name"] == config_map["metadata"]["name"]
    (projected,) = file["configMap"]["items"]
    assert config_map["data"][projected["key"]] == _text("schema.sql")
    assert f"\\i {CONFIG_FOLDER}/{projected['path']}" in _text("init.sql").splitlines()


def test_users_get_nothing_from_the_operator() -> None:
    """No user lists a database, on which the operator would grant all, and none has options."""
    names = ("transformer", "report", "maintenance")
    bare = [{"name": name, "password": {"type": "AlphaNumeric"}} for name in names]
    assert CLUSTER["spec"]["users"] == bare


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """A server as the operator hands it to init.sql: users with a login, no database of ours."""
    server = Postgres(tmp_path / "server")
    server.start()
    try:
        with psycopg.connect(server.uri, autocommit=True) as connection:
            for user in CLUSTER["spec"]["users"]:
                connection.execute(sql.SQL("CREATE USER {}").format(sql.Identifier(user["name"])))
        yield server
    finally:
        server.stop()


def test_init_makes_the_schema_and_may_run_again(server: Postgres, tmp_path: Path) -> None:
    """One run makes database, tables and grants; a second changes nothing and fails nothing."""
    for _ in range(2):
        result = _run_init(server, tmp_path, _text("schema.sql"))
        assert result.returncode == 0, result.stderr
    with psycopg.connect(_uri(server, "transformer")) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("predictions",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM inference_requests")
    with psycopg.connect(_uri(server, "report")) as connection:
        assert connection.execute("SELECT count(*) FROM inference_pairs").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM inference_requests")


def test_users_cannot_make_anything(server: Postgres, tmp_path: Path) -> None:
    """None of the three may make a table or a schema, or change what is written."""
    assert _run_init(server, tmp_path, _text("schema.sql")).returncode == 0
    forbidden = ["CREATE TABLE mine (a int)", "CREATE SCHEMA mine", "DROP TABLE inference_requests"]
    forbidden += [
        "UPDATE inference_responses SET error = ''",
        "TRUNCATE inference_requests CASCADE",
    ]
    for user in ("transformer", "report", "maintenance"):
        with psycopg.connect(_uri(server, user), autocommit=True) as connection:
            for statement in forbidden:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


def test_a_broken_schema_is_reported(server: Postgres, tmp_path: Path) -> None:
    """psql fails, so that the operator tries again instead of taking half a schema for a whole."""
    result = _run_init(server, tmp_path, "CREATE TABLE a (b nonsense);")
    assert result.returncode != 0
    assert "nonsense" in result.stderr


def _text(name: str) -> str:
    return (DATABASE / name).read_text()


def _uri(server: Postgres, user: str) -> str:
    parts = urlsplit(server.uri)
    place = f"{user}@{parts.netloc.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=place, path="/predictions"))


def _run_init(server: Postgres, folder: Path, schema: str) -> subprocess.CompletedProcess[str]:
    """Feed init.sql to psql as the operator does, with the mounted folder moved to `folder`."""
    (folder / "schema.sql").write_text(schema)
    return subprocess.run(
        [server.bin / "psql", "-Xw", "--file=-", server.uri],
        input=_text("init.sql").replace(CONFIG_FOLDER, str(folder)),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
