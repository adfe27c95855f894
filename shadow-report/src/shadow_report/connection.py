"""The database's failures in one line, without the password."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from shadow_report.errors import OneLineError


def failure(error: psycopg.Error, uri: str, role: str) -> OneLineError:
    """What a failed statement or connection means and what to do; `role` is the one that may."""
    return OneLineError(_meaning(error, f"Postgres at {place(uri)}", first_line(error), role))


def _meaning(error: psycopg.Error, where: str, what: str, role: str) -> str:
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedFunction():
            text = (
                f"{where} lacks the shadow tables or their functions ({what}); "
                "apply manifests/database/schema.sql to it with `make schema`."
            )
        case psycopg.errors.InsufficientPrivilege():
            text = f"The role of POSTGRES_URI may not do this ({what}); connect as the role {role}."
        case psycopg.errors.DiskFull() | psycopg.errors.ConfigurationLimitExceeded():
            text = (
                f"{where} has no room for this query ({what}); "
                "make room on its disk and in its shared memory, or compare less with --last."
            )
        case psycopg.ProgrammingError() if error.sqlstate is None:
            # libpq's own words repeat the URI, and with it the password.
            text = (
                "POSTGRES_URI is not a connection URI; "
                "write it like postgresql://report:password@host:5432/inference."
            )
        case psycopg.OperationalError() if error.sqlstate is None and "FATAL:" in str(error):
            text = (
                f"{where} refuses the connection: {what}; "
                "check the user, the password and the database in POSTGRES_URI."
            )
        case psycopg.OperationalError() if error.sqlstate is None:
            text = (
                f"{where} does not answer: {what}; "
                "check the host and the port in POSTGRES_URI, and that it runs."
            )
        case _:
            text = f"{where} failed: {what}."
    return text


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
    # libpq adds its guesses as further lines, which begin with a blank.
    lines = [line for line in str(error).strip().splitlines() if not line[:1].isspace()]
    said = lines[-1].rpartition("failed: ")[-1] if lines else type(error).__name__
    return said.removeprefix("FATAL:").strip().rstrip(".")
