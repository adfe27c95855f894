"""POSTGRES_URI as someone gave it: checked, completed, and shown without its password."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
DEFAULT_PORT = 5432


class BadUri(Exception):
    """POSTGRES_URI cannot be used; the message says why and what to do, without the password."""


def completed(uri: str) -> str:
    """The URI with its port written out; BadUri when it has no host or is no URI at all."""
    try:
        conninfo_to_dict(uri)
        parts = urlsplit(uri)
        port = parts.port
    except (ProgrammingError, ValueError):
        parts, port = urlsplit(""), None
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise BadUri(
            f"POSTGRES_URI is no URI of a Postgres server; set it to {FORM}, with every other "
            "character than letters and digits of the password as %XX."
        )
    if port is not None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{DEFAULT_PORT}"))


def masked(uri: str) -> str:
    """The URI as it may be shown: `***` in place of the password."""
    parts = urlsplit(uri)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    hidden = f"{user}:***" if colon else user
    return urlunsplit(parts._replace(netloc=f"{hidden}{at}{place}", query=""))
