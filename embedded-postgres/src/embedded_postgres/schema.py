"""The deployment's schema in a database, and that database as one of its roles."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

ROLES = ("transformer", "report", "maintenance")
# A server that is frozen takes connections, and answers none.
CONNECT_SECONDS = 10


def schema_path() -> Path:
    """manifests/database/schema.sql of the repository that this package stands in."""
    for folder in Path(__file__).resolve().parents:
        path = folder / "manifests" / "database" / "schema.sql"
        if path.exists():
            return path
    raise FileNotFoundError("manifests/database/schema.sql stands in no folder above this package")


def apply_schema(uri: str) -> None:
    """Make the tables, views and roles in the database of `uri`; what is there stays."""
    with psycopg.connect(uri, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        connection.execute(schema_path().read_bytes())


def as_role(uri: str, role: str) -> str:
    """The URI of the same database for one of the schema's roles, allowed to log in.

    The role gets the password of `uri`, where that has one. Raises psycopg.OperationalError when
    the server does not answer.
    """
    parts = conninfo_to_dict(uri)
    password = parts.get("password")
    change = sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role))
    if password:
        change += sql.SQL(" PASSWORD {}").format(sql.Literal(password))
    with psycopg.connect(uri, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        # ALTER ROLE of two sessions at once fails with "tuple concurrently updated".
        connection.execute("SELECT pg_advisory_lock(hashtextextended('embedded-postgres', 0))")
        connection.execute(change)
    user = f"{role}:{quote(str(password), safe='')}" if password else role
    return f"postgresql://{user}@{parts['host']}:{parts['port']}/{parts['dbname']}"
