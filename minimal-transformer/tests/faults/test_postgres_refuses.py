"""Postgres answers and refuses: told once, and all is written once it takes the rows."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from deployment import Start, as_transformer
from evidence import (
    WRITERS,
    check_every_answer_is_stored_once,
    query,
    read_only,
    told,
    writable,
)
from load import Load

from embedded_postgres import Postgres, apply_schema


def test_tables_created_ten_seconds_late(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """Without tables the log names the file to apply; once they exist everything is written."""
    query(postgres.uri, "DROP TABLE inference_requests, inference_responses CASCADE")
    server = start(transformer_uri)
    with Load(server) as load:
        told(server, "manifests/database/schema.sql")
        time.sleep(10)
        apply_schema(postgres.uri)
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


RIGHTS = "INSERT ON inference_requests, inference_responses"


def revoke(uri: str) -> None:
    """Take the role's right to write."""
    query(uri, f"REVOKE {RIGHTS} FROM transformer")


def grant(uri: str) -> None:
    """Give it back."""
    query(uri, f"GRANT {RIGHTS} TO transformer")


def test_role_without_insert_is_granted_it_later(
    postgres: Postgres, transformer_uri: str, start: Start
) -> None:
    """A role that may not write is told of in the log; all is written after the grant."""
    revoke(postgres.uri)
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(100)
        told(server, "permission denied")
        grant(postgres.uri)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)


def rename(uri: str) -> None:
    """The responses' table is gone, in the middle of everything."""
    query(uri, "ALTER TABLE inference_responses RENAME TO elsewhere")


def rename_back(uri: str) -> None:
    """It is back."""
    query(uri, "ALTER TABLE elsewhere RENAME TO inference_responses")


def no_connections(uri: str) -> None:
    """The role may hold no connection."""
    query(uri, "ALTER ROLE transformer CONNECTION LIMIT 0")
    query(uri, f"SELECT pg_terminate_backend(pid) {WRITERS}")


def connections(uri: str) -> None:
    """The role may connect again."""
    query(uri, "ALTER ROLE transformer CONNECTION LIMIT -1")


@pytest.mark.parametrize(
    ("fault", "heal", "complaint"),
    [
        (revoke, grant, "permission denied"),
        (read_only, writable, "read-only transaction"),
        (rename, rename_back, "does not exist"),
        (no_connections, connections, "too many connections"),
    ],
)
def test_refusal_in_the_middle_of_the_load(
    *,
    fault: Callable[[str], None],
    heal: Callable[[str], None],
    complaint: str,
    postgres: Postgres,
    transformer_uri: str,
    start: Start,
) -> None:
    """Rights revoked, read-only, a table gone, no connection: told once, all written afterwards."""
    server = start(transformer_uri)
    with Load(server) as load:
        load.until_answered(100)
        fault(postgres.uri)
        told(server, complaint)
        load.until_answered(100)
        heal(postgres.uri)
        load.until_answered(100)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)
    assert server.log.count(complaint) == 1
    told(server, "takes the records again")


def test_wrong_password_is_mended(postgres: Postgres, start: Start) -> None:
    """A refused password is an outage like another: told, and over when the password is right."""
    hba = postgres.folder / "pg_hba.conf"
    trusting = hba.read_text()
    hba.write_text(f"host all transformer 127.0.0.1/32 scram-sha-256\n{trusting}")
    query(postgres.uri, "ALTER ROLE transformer PASSWORD 'wrong'")
    query(postgres.uri, "SELECT pg_reload_conf()")
    uri = as_transformer(postgres).replace("transformer@", "transformer:right@")
    server = start(uri)
    with Load(server) as load:
        load.until_answered(100)
        told(server, "password authentication failed")
        query(postgres.uri, "ALTER ROLE transformer PASSWORD 'right'")
    assert not load.failed
    assert "right" not in server.log.replace("copyright", "")
    check_every_answer_is_stored_once(postgres.uri, load)
