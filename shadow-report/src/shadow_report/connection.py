"""The database's failures in one line, without the password."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shadow_report.errors import OneLineError


def failure(error: psycopg.Error, uri: str, role: str) -> OneLineError:
    """What a failed statement or connection means and what to do; `role` is the one that may."""
    where = f"Postgres at {place(uri)}"
    what = first_line(error)
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedFunction():
            return OneLineError(
                f"{where} lacks the shadow tables or their functions ({what}); "
                "apply manifests/database/schema.sql to it with `make schema`."
            )
        case psycopg.errors.InsufficientPrivilege():
            return OneLineError(
                f"The role of POSTGRES_URI may not do this ({what}); connect as the role {role}."
            )
        case psycopg.ProgrammingError() if error.sqlstate is None:
            # libpq's own words repeat the URI, and with it the password.
            return OneLineError(
                "POSTGRES_URI is not a connection URI; "
                "write it like postgresql://report:password@host:5432/inference."
            )
        case psycopg.OperationalError() if error.sqlstate is None:
            return OneLineError(f"{where} does not answer: {what}; check POSTGRES_URI.")
        case _:
            return OneLineError(f"{where} failed: {what}.")


def place(uri: str) -> str:
    """Host, port and database of a URI, without its password."""
    try:
        parts = conninfo_to_dict(uri)
    except psycopg.Error:
        return "the given URI"
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def first_line(error: psycopg.Error) -> str:
    """The line of a driver's message that says what happened."""
    if error.diag.message_primary:
        return error.diag.message_primary
    lines = str(error).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else type(error).__name__
