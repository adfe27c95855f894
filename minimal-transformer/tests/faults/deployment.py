"""How the fault tests start a transformer and reach its database."""

from __future__ import annotations

from collections.abc import Callable

from serving import Transformer

from embedded_postgres import Postgres

# Of a POSTGRES_URI, arguments and environment variables.
Start = Callable[..., Transformer]


def as_transformer(server: Postgres) -> str:
    """The URI of a server, running or not, for the role that may only INSERT."""
    return server.uri.replace("//postgres@", "//transformer@")
