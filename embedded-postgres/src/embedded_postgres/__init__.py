"""A real Postgres as a child process: for tests, and for the whole deployment on one machine."""

from embedded_postgres.schema import apply_schema, as_role
from embedded_postgres.server import Postgres, PostgresFailed, binaries

__all__ = ["Postgres", "PostgresFailed", "apply_schema", "as_role", "binaries"]
