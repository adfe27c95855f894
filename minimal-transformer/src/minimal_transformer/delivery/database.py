"""The connection to Postgres: one batch is one transaction, and no wait is without an end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from minimal_transformer.delivery.castable import casting
from minimal_transformer.rows import json_body, with_raw_body
from minimal_transformer.segment import Frame, Kind

CONNECT_SECONDS = 5
# Longer than begin.sql's statement_timeout, which a server that hangs does not keep.
TRANSACTION_SECONDS = 45

_SQL = {
    path.name: path.read_text("utf-8") for path in (resources.files(__package__) / "sql").iterdir()
}
_COPY_START = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_COPY = {Kind.REQUEST: _SQL["copy_requests.sql"], Kind.RESPONSE: _SQL["copy_responses.sql"]}
_STAGE = {Kind.REQUEST: _SQL["stage_requests.sql"], Kind.RESPONSE: _SQL["stage_responses.sql"]}

_CONNECTION_DEFAULTS = {
    "connect_timeout": str(CONNECT_SECONDS),
    "application_name": "minimal-transformer",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


class Database:
    """Stores batches and connects when it must; what goes wrong there is a psycopg.Error."""

    def __init__(self, uri: str, secret_folder: Path | None = None) -> None:
        self._secret_folder = secret_folder
        self._said: dict[str, Any] | None
        try:
            self._said = _CONNECTION_DEFAULTS | conninfo_to_dict(uri)
        except psycopg.ProgrammingError:  # its text may show the password
            self._said = None
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def store(self, records: Sequence[Frame], *, trusting: bool) -> None:
        """Have these records in their tables, all or none.

        Trusting, rows go straight into their tables, except those whose body only Postgres can
        judge: a row that a delivery stored which then died before it could say so is an error.
        Otherwise all go through a stage, and rows that are there already stay as they are.
        """
        straight: list[Frame] = []
        staged: list[Frame] = []
        for record in records:
            body = json_body(record.row, record.body_at)
            casts = "surely" if body is None else casting(body)
            if casts == "never":
                staged.append(record._replace(row=memoryview(with_raw_body(record.row))))
            elif casts == "surely" and trusting:
                straight.append(record)
            else:
                staged.append(record)
        connection = self._connected()
        with _deadline(connection, TRANSACTION_SECONDS):
            try:
                connection.execute(_SQL["begin.sql"])
                _copy(connection, _COPY, straight)
                if staged:
                    connection.execute(_SQL["make_stage.sql"])
                    _copy(connection, _STAGE, staged)
                    connection.execute(_SQL["store_stage.sql"])
                connection.execute("COMMIT")
            except psycopg.Error:
                self._leave_transaction(connection)
                raise

    @property
    def role(self) -> str:
        """Who writes, as POSTGRES_URI says; empty where it does not."""
        return str((self._said or {}).get("user", ""))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._connection is None or self._connection.closed:
            self.close()
            if self._said is None:
                raise psycopg.OperationalError("POSTGRES_URI is no connection URI")
            # No prepared statements: behind a transaction pooler they belong to somebody else.
            self._connection = psycopg.connect(
                make_conninfo(**(self._said | self._mounted_secret())),
                autocommit=True,
                prepare_threshold=None,
            )
        return self._connection

    def _mounted_secret(self) -> dict[str, str]:
        """What a mounted Secret says now, in place of the URI's: it may come later, and change."""
        if self._secret_folder is None:
            return {}
        said = {}
        for name in ("host", "port", "password"):
            file = self._secret_folder / name
            try:
                if file.is_file():
                    said[name] = file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
                raise psycopg.OperationalError(
                    f"{file} in POSTGRES_SECRET_DIR cannot be read ({reason})"
                ) from None
        return said

    def _leave_transaction(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self.close()


def _copy(
    connection: psycopg.Connection[tuple[object, ...]],
    statements: dict[Kind, str],
    records: Sequence[Frame],
) -> None:
    for kind, statement in statements.items():
        rows = [record.row for record in records if record.kind == kind]
        if rows:
            with connection.cursor().copy(statement) as copy:
                copy.write(b"".join((_COPY_START, *rows, _COPY_END)))


@contextmanager
def _deadline(connection: psycopg.Connection[tuple[object, ...]], seconds: float) -> Iterator[None]:
    """Cut the connection when the block takes longer, so that a server that hangs is an outage."""

    def cut(_number: int, _frame: FrameType | None) -> None:
        with socket.socket(fileno=socket.dup(connection.fileno())) as handle:
            handle.shutdown(socket.SHUT_RDWR)

    previous = signal.signal(signal.SIGALRM, cut)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
