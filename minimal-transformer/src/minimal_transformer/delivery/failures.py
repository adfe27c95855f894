"""What a failed write means: the data's fault, or a state of the server that will pass."""

from __future__ import annotations

import psycopg
from psycopg.errors import CheckViolation

SCHEMA = "manifests/database/schema.sql"

# Classes of SQLSTATE that speak about the rows and not about the server; P0 is a trigger's RAISE.
_DATA_CLASSES = ("21", "22", "23", "44", "54", "P0")

_TABLES = (
    "the tables are missing or of another version; run `make schema`, or wait for the operator to"
    f" apply {SCHEMA}"
)
_LOGIN = (
    "the server refuses the login; correct the user or password in POSTGRES_URI or"
    " POSTGRES_SECRET_DIR"
)
_FULL = "the server has no connection left; raise its max_connections"
_REMEDIES = {
    "42P01": _TABLES,
    "42703": _TABLES,
    "42883": _TABLES,
    "3F000": _TABLES,
    "42501": (
        "the role {role} lacks INSERT on inference_requests and inference_responses; run `make"
        f" schema`, or wait for the operator to apply {SCHEMA}, and log in as its role transformer"
    ),
    "23514": f"a partition is missing; run shadow-report maintain or apply {SCHEMA}",
    "25006": "the server is read-only; point POSTGRES_URI at the one that is not",
    "53100": "the server's disk is full; free space, or shadow-report maintain --keep 30d",
    "53200": "the server is out of memory; give it more",
    "53300": _FULL,
    "53400": _FULL,
    "28P01": _LOGIN,
    "28000": _LOGIN,
    "3D000": "the database is missing; create it or correct POSTGRES_URI",
    "57014": "the server is too slow for the batch; smaller ones are tried",
}
# A connection that fails has no SQLSTATE, only libpq's words.
_WORDS = {
    "POSTGRES_SECRET_DIR": "have this process's user read it (defaultMode, fsGroup), as text",
    "POSTGRES_URI": "set it to postgresql://user:password@host:5432/database, its parts %-encoded",
    "password authentication failed": _REMEDIES["28P01"],
    "no password supplied": _REMEDIES["28P01"],
    "pg_hba.conf": "have the server's pg_hba.conf allow this user and host",
    "too many clients": _REMEDIES["53300"],
    "permission denied for database": "grant the role {role} CONNECT on it",
    'role "': f"create the role with {SCHEMA}, or correct POSTGRES_URI",
    'database "': _REMEDIES["3D000"],
    "SSL": "look at sslmode and sslrootcert in POSTGRES_URI",
    "could not translate host name": "correct the host in POSTGRES_URI",
}
_UNREACHABLE = (
    "look at the server and at the host and port in POSTGRES_URI; it is retried until it answers"
)


def is_about_data(error: psycopg.Error) -> bool:
    """Whether other rows may go through where these did not."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    # "no partition found for row" has the state of a violated CHECK, but names no constraint.
    if isinstance(error, CheckViolation) and error.diag.constraint_name is None:
        return False
    return error.sqlstate[:2] in _DATA_CLASSES


def state_of(error: psycopg.Error) -> str:
    """A name of the state that the server is in, the same for each failure of that kind."""
    words = (text for text in _WORDS if text in str(error))
    return error.sqlstate or next(words, "unreachable")


def advice(error: psycopg.Error, role: str = "") -> str:
    """One line: what Postgres said to that role, what it means, and what to do."""
    said = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    if is_about_data(error):
        return f"{said}."
    state = state_of(error)
    remedy = _REMEDIES.get(state) or _WORDS.get(state, _UNREACHABLE)
    return f"{said}: {remedy.replace('{role}', repr(role))}."
