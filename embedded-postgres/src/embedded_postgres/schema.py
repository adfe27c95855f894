"""The deployment's schema in a database, and that database as one of its roles."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

ROLES = ("transformer", "report", "maintenance")


def schema_path() -> Path:
    """manifests/database/schema.sql of the repository that this package stands in."""
    for folder in Path(__file__).resolve().parents:
        path = folder / "manifests" / "database" / "schema.sql"
        if path.exists():
            return path
    raise FileNotFoundError("manifests/database/schema.sql stands in no folder above this package")


def apply_schema(uri: str) -> None:
    """Make the tables, views and roles in the database of `uri`; what is there stays."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(schema_path().read_bytes())


def as_role(uri: str, role: str) -> str:
    """The URI of the same database for one of the schema's roles, allowed to log in.

    For servers that trust local connections; the URI has no password.
    """
    with psycopg.connect(uri, autocommit=True) as connection:
        # ALTER ROLE of two sessions at once fails with "tuple concurrently updated".
        connection.execute("SELECT pg_advisory_lock(hashtextextended('embedded-postgres', 0))")
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
    parts = conninfo_to_dict(uri)
    return f"postgresql://{role}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def main() -> int:
    """Apply the schema to POSTGRES_URI: `python -m embedded_postgres.schema`."""
    uri = os.environ.get("POSTGRES_URI")
    if not uri:
        print("POSTGRES_URI is not set; give it the URI of a user who may create tables and roles.")
        return 2
    try:
        apply_schema(uri)
    except psycopg.Error as error:
        print(f"The schema was not applied: {str(error).strip()}")
        return 1
    print("The schema is in place: tables, partitions, views, roles and grants.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
