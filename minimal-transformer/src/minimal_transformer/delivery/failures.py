"""What a failed write means: the data's fault, or a state of the server that will pass."""

from __future__ import annotations

import psycopg
from psycopg import errors

SCHEMA_REMEDY = "Apply manifests/database/schema.sql"

# Classes of SQLSTATE that speak about the rows and not about the server.
_DATA_CLASSES = ("21", "22", "23", "54")

_REMEDIES: tuple[tuple[tuple[type[psycopg.Error], ...], str], ...] = (
    ((errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction, errors.InvalidSchemaName),
     f"the tables are missing or of another version. {SCHEMA_REMEDY}"),
    ((errors.InsufficientPrivilege,),
     f"the role may not insert or make a temporary table. {SCHEMA_REMEDY}, which grants it to the role"
     " transformer"),
    ((errors.CheckViolation,),
     "a partition is missing. Run shadow-report maintain, or apply manifests/database/schema.sql"),
    ((errors.ReadOnlySqlTransaction,),
     "the server is read-only. Point POSTGRES_URI at the primary server, or end its read-only state"),
    ((errors.DiskFull,), "the server's disk is full. Free space or drop old partitions with"
     " shadow-report maintain --keep"),
    ((errors.OutOfMemory,), "the server is out of memory"),
    ((errors.TooManyConnections, errors.ConfigurationLimitExceeded),
     "the server has no connection left. Raise max_connections"),
    ((errors.InvalidPassword, errors.InvalidAuthorizationSpecification),
     "the server refuses the login. Correct the user or password in POSTGRES_URI"),
    ((errors.InvalidCatalogName,), "the database is missing. Create it or correct POSTGRES_URI"),
    ((errors.QueryCanceled,), "the server is too slow for the batch. Smaller batches are tried"),
)  # fmt: skip

_TEXTS = (
    ("password authentication failed", "correct the user or password in POSTGRES_URI"),
    ("no password supplied", "add the password to POSTGRES_URI"),
    ('role "', "create the role (schema.sql does) or correct POSTGRES_URI"),
    ('database "', "create the database or correct POSTGRES_URI"),
    ("pg_hba.conf", "have pg_hba.conf allow this host"),
    ("too many clients", "raise max_connections"),
    ("SSL", "look at sslmode and sslrootcert in POSTGRES_URI"),
)


def is_about_data(error: psycopg.Error) -> bool:
    """Whether other rows may go through where these did not."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.DataError)
    # "no partition found for row" has the state of a violated CHECK, but names no constraint.
    if isinstance(error, errors.CheckViolation) and error.diag.constraint_name is None:
        return False
    return state[:2] in _DATA_CLASSES


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same batch may go through at once: a deadlock, a serialization failure."""
    return error.sqlstate in ("40001", "40P01")


def state_of(error: psycopg.Error) -> str:
    """A name of the state that the server is in, the same for each failure of that kind."""
    if error.sqlstate is not None:
        return error.sqlstate
    for text, _ in _TEXTS:
        if text in str(error):
            return text
    return "unreachable"


def advice(error: psycopg.Error) -> str:
    """One line: what Postgres said, what it means, and what to do."""
    said = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    for kinds, remedy in _REMEDIES:
        if isinstance(error, kinds):
            return f"{said}: {remedy}."
    for text, remedy in _TEXTS:
        if text in said:
            return f"{said}: {remedy}."
    return f"{said}."
