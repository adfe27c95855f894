"""Postgres: one batch is one transaction, no wait is without an end, and what a failure means."""

from __future__ import annotations

import logging
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any, Literal, LiteralString
from urllib.parse import unquote

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import CheckViolation

from minimal_transformer.logs import Episode
from minimal_transformer.recording.rows import json_body, with_raw_body
from minimal_transformer.spool.format import Frame, Kind

logger = logging.getLogger("minimal_transformer.delivery")

CONNECT_SECONDS = 5
# Longer than begin.sql's statement_timeout, which a server that hangs does not keep.
TRANSACTION_SECONDS = 45
# A batch takes a fraction of a second: whoever looks at the log need not wait for the deadline.
SLOW_SECONDS = 10

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

Casting = Literal["surely", "perhaps", "never"]

# Deeper ones end a Postgres statement with an error somewhere past 10,000 levels, and Python's
# json, which reads the tables, at 1,000.
MAX_DEPTH = 500
# Past this, parsing takes more memory than a delivery process should, and saves little.
MAX_PARSED_BYTES = 256 * 1024

# jsonb's numbers end 16,383 digits behind the point; orjson has rounded them to a double by then.
_LONG_EXPONENT = re.compile(rb"e[+-]?\d{4}"), re.compile(rb"E[+-]?\d{4}")
_LONG_DIGITS = b"0" * 1000
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")

# The last quote is optional, so that an endless string does not restart the search at each quote.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

# libpq takes what follows a password's unescaped @ for the host, and says so.
_BEFORE_AT = re.compile(r"""[^\s"']+@""")

SCHEMA = "manifests/database/schema.sql"

# Classes of SQLSTATE that speak about the rows and not about the server; P0 is a trigger's RAISE.
_DATA_CLASSES = ("21", "22", "23", "44", "54", "P0")

_TABLES = (
    "the tables are missing or of another version, or POSTGRES_URI names another database; run"
    f" `make schema`, wait for the operator to apply {SCHEMA}, or correct POSTGRES_URI"
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
    "42804": f"that column has another type than in {SCHEMA}; change it back",
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
    "is not permitted to log in": "give the role a login by ALTER ROLE ... LOGIN PASSWORD '...'",
    'role "': f"create the role with {SCHEMA}, or correct POSTGRES_URI",
    'database "': _REMEDIES["3D000"],
    "SSL": "look at sslmode and sslrootcert in POSTGRES_URI",
    "could not translate host name": "correct the host in POSTGRES_URI",
}
_UNREACHABLE = "look at the server and at the host and port in POSTGRES_URI"


class Database:
    """Stores batches and connects when it must; what goes wrong there is a psycopg.Error."""

    def __init__(self, uri: str, secret_folder: Path | None = None) -> None:
        self._secret_folder = secret_folder
        self._secrets = _secrets_in(uri)
        self._configured: dict[str, Any] | None
        try:
            self._configured = _CONNECTION_DEFAULTS | conninfo_to_dict(uri)
        except psycopg.ProgrammingError:  # its text may show the password
            self._configured = None
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._told = ""
        self._told_of: psycopg.Connection[tuple[object, ...]] | None = None
        self._slow = Episode(
            logger, f"Postgres answers in time again; batches that took over {SLOW_SECONDS} s: %d."
        )

    def store(self, records: Sequence[Frame], *, direct: bool) -> None:
        """Have these records in their tables, all or none.

        With a direct COPY rows go into their tables, except those whose body only Postgres can
        judge; a redelivered row is then an error. Otherwise all are staged, and rows that are
        there already stay as they are.
        """
        directly: list[Frame] = []
        staged: list[Frame] = []
        for record in records:
            body = json_body(record.row, record.body_at)
            casts = "surely" if body is None else casting(body)
            if casts == "never":
                staged.append(record._replace(row=memoryview(with_raw_body(record.row))))
            elif casts == "surely" and direct:
                directly.append(record)
            else:
                staged.append(record)
        self._transact(directly, staged, "COMMIT")

    def refusal(self, record: Frame) -> psycopg.Error | None:
        """Store this one record, its body as raw bytes at least; else why Postgres refuses it."""
        attempts = [record]
        if json_body(record.row, record.body_at) is not None:
            attempts.append(record._replace(row=memoryview(with_raw_body(record.row))))
        refusal: psycopg.Error | None = None
        for attempt in attempts:
            try:
                self.store([attempt], direct=False)
            except psycopg.Error as error:
                if not is_about_data(error):
                    raise
                refusal = error
            else:
                return None
        return refusal

    def accepts(self, record: Frame) -> bool:
        """Whether the tables would take this record, its body as raw bytes at least.

        Nothing is stored. A record that is there already counts as well: Postgres looks at the
        rules of a table first.
        """
        for row in (record.row, memoryview(with_raw_body(record.row))):
            try:
                self._transact([], [record._replace(row=row)], "ROLLBACK")
            except psycopg.Error as error:
                if not is_about_data(error):
                    raise
            else:
                return True
        return False

    def _transact(self, directly: list[Frame], staged: list[Frame], end: LiteralString) -> None:
        connection = self._connected()
        with _deadline(connection, self._slow):
            try:
                connection.execute(_SQL["begin.sql"])
                self._tell(connection)
                _copy(connection, _COPY, directly)
                if staged:
                    connection.execute(_SQL["make_stage.sql"])
                    _copy(connection, _STAGE, staged)
                    connection.execute(_SQL["store_stage.sql"])
                connection.execute(end)
            except psycopg.Error:
                self._leave_transaction(connection)
                raise

    def without_secrets(self, text: str) -> str:
        """The text with every part of a password replaced: libpq quotes what it cannot read."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _BEFORE_AT.sub("***@", text)

    @property
    def role(self) -> str:
        """The user in POSTGRES_URI; empty where it names none."""
        return str((self._configured or {}).get("user", ""))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._connection is None or self._connection.closed:
            self.close()
            if self._configured is None:
                raise psycopg.OperationalError("POSTGRES_URI is not a connection URI")
            # No prepared statements: behind a transaction pooler they belong to somebody else.
            self._connection = psycopg.connect(
                make_conninfo(**(self._configured | self._mounted_secret())),
                autocommit=True,
                prepare_threshold=None,
            )
        return self._connection

    def _tell(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """Once, and when it changes: rows that are missed may lie in another database or schema."""
        if connection is self._told_of:
            return
        found, info = connection.execute(_SQL["schema.sql"]).fetchone(), connection.info
        schema = f", schema {found[0]}" if found else ""
        told = f"{info.dbname} of {info.host}:{info.port}{schema}, as {info.user}"
        if told != self._told:
            logger.info("Records go to the database %s.", told)
            self._told = told
        if found:
            self._told_of = connection

    def _mounted_secret(self) -> dict[str, str]:
        """What a mounted Secret has now, in place of the URI's: it may come later, and change."""
        if self._secret_folder is None:
            return {}
        mounted = {}
        for name in ("host", "port", "password"):
            file = self._secret_folder / name
            try:
                if file.is_file():
                    mounted[name] = file.read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise psycopg.OperationalError(
                    f"{file} in POSTGRES_SECRET_DIR cannot be read ({reason})"
                ) from None
        return mounted

    def _leave_transaction(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self.close()


def _secrets_in(uri: str) -> tuple[str, ...]:
    """What of the URI may be a password's: an unescaped @ or / in it ends it for libpq.

    The longest parts first; a host's name behind such a password is not a secret.
    """
    authority = uri.partition("://")[2].partition("?")[0]
    credentials = authority.rpartition("@")[0]
    password = credentials.partition(":")[2]
    parts = {password, *re.split(r"[@:/?#]", password)}
    parts |= {unquote(part) for part in parts}
    return tuple(sorted((part for part in parts if len(part) > 2), key=len, reverse=True))


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
def _deadline(connection: psycopg.Connection[tuple[object, ...]], slow: Episode) -> Iterator[None]:
    """Cut the connection after TRANSACTION_SECONDS, so that a server that hangs is an outage; log
    it after SLOW_SECONDS.
    """
    is_slow = False

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_slow
        if not is_slow:
            is_slow = True
            slow.hit(
                f"Postgres has not taken a batch for {SLOW_SECONDS} s: it is slow, or hangs. The"
                " records wait on the spool; calls are answered as ever."
            )
            return
        with socket.socket(fileno=socket.dup(connection.fileno())) as handle:
            handle.shutdown(socket.SHUT_RDWR)

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SLOW_SECONDS, TRANSACTION_SECONDS - SLOW_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    if not is_slow:
        slow.passed()


def casting(text: memoryview) -> Casting:
    """Whether the text goes to *_data: surely, perhaps (only Postgres can tell), or never."""
    body = bytes(text)
    if _is_too_deep(body):
        return "never"
    return "surely" if _surely_casts(body) else "perhaps"


def _surely_casts(body: bytes) -> bool:
    if len(body) > MAX_PARSED_BYTES:
        return False
    try:
        orjson.loads(body)  # strict: no lone surrogate, no number past a double, UTF-8 only
    except orjson.JSONDecodeError:
        return False
    if b"\\u0000" in body or any(pattern.search(body) for pattern in _LONG_EXPONENT):
        return False
    return len(body) < len(_LONG_DIGITS) or _LONG_DIGITS not in body.translate(_DIGITS_TO_ZERO)


def _is_too_deep(body: bytes) -> bool:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH


def is_about_data(error: psycopg.Error) -> bool:
    """Whether other rows may go through where these did not."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    # "no partition found for row" has the state of a violated CHECK, but names a table and no
    # constraint; Citus' workers name neither where a CHECK is violated.
    if isinstance(error, CheckViolation) and error.diag.table_name:
        return error.diag.constraint_name is not None
    return error.sqlstate[:2] in _DATA_CLASSES


def may_pass_staged(error: psycopg.Error) -> bool:
    """Whether a staged COPY may store what a direct one could not.

    XX000 is what Citus makes of a row that a worker refuses inside COPY, and what Postgres says
    where a json column has become jsonb, whose binary form is another one.
    """
    return is_about_data(error) or error.sqlstate == "XX000"


def state_of(error: psycopg.Error) -> str:
    """A name of the state that the server is in, the same for each failure of that kind."""
    words = (text for text in _WORDS if text in str(error))
    return error.sqlstate or next(words, "unreachable")


def advice(error: psycopg.Error, role: str = "") -> str:
    """One line: Postgres' message to that role, what it means, and what to do."""
    message = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    if is_about_data(error):
        return f"{message}."
    state = state_of(error)
    remedy = _REMEDIES.get(state) or _WORDS.get(state, _UNREACHABLE)
    return f"{message}: {remedy.replace('{role}', repr(role))}."
