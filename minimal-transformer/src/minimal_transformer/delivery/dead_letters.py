"""Rows that Postgres refuses by its own rules: set aside in files, and put back by a command.

    python -m minimal_transformer.delivery.dead_letters

It runs beside the delivery process, with that one's environment: in its pod, or over a copy of its
dead-letter/ that lies in SPOOL_DIR. Rows that Postgres takes now go into their tables as delivery
would have brought them there; the others stay, with why Postgres refused them this time.

How no row is lost between the two processes: whoever appends to a file, or puts another in its
place, first takes the file's lock, and then looks whether it is still the file at its path. The
command reads without the lock, so that delivery does not wait for it, and writes what stays to a
file beside. It takes the lock for what was appended meanwhile and to put that file in place. Until
then the former file is whole: after a run that died, the next one puts some rows back once more,
which changes nothing.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import psycopg

from minimal_transformer.delivery.database import Database, advice
from minimal_transformer.recording.rows import TABLES, decode_row, encode_row
from minimal_transformer.settings import SettingsError, SpoolSettings
from minimal_transformer.spool.folder import DEAD_LETTER_FOLDER
from minimal_transformer.spool.format import Frame, Kind

COMMAND = "python -m minimal_transformer.delivery.dead_letters"

SUFFIX = ".jsonl"
# Behind the name of a file while its rows are put back: the lines that stay.
STAYING_SUFFIX = ".staying"
# A trigger may give every row a reason of its own.
MAX_REASONS = 3

Letter = dict[str, Any]


def main() -> int:
    """Put back what can be; 0 when nothing is left, else 1."""
    argparse.ArgumentParser(
        COMMAND,
        description="Put the rows in dead-letter/ of SPOOL_DIR into their tables in POSTGRES_URI."
        " What is still refused stays there with the reason. Exit code 0: nothing is left.",
    ).parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    os.nice(10)
    try:
        settings = SpoolSettings.from_environment()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    folder = settings.spool_folder / DEAD_LETTER_FOLDER
    database = Database(settings.postgres_uri.get_secret_value(), settings.secret_folder)
    run = PutBack(database)
    try:
        for path in _files(folder):
            run.put_back(path)
    except psycopg.Error as error:
        told = database.without_secrets(advice(error, database.role))
        print(f"Postgres does not take the rows, they stay in {folder}: {told}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The rows stay in {folder}: {error}.", file=sys.stderr)
        return 1
    finally:
        database.close()
    print(run.summary(folder))
    return 1 if run.left else 0


def _files(folder: Path) -> list[Path]:
    """The files with rows that were set aside, the oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except FileNotFoundError:  # no row was ever refused
        return []


def set_aside(spool: Path, record: Frame, error: psycopg.Error) -> None:
    """Append the record to today's dead-letter file, synced; OSError when it cannot be.

    A line holds `reason`, `sqlstate`, `table` and `row`: columns by name, bytes as {"base64": …}.
    """
    now = datetime.now(UTC)
    folder = spool / DEAD_LETTER_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}{SUFFIX}"
    kind = Kind(record.kind)
    letter = {
        "set_aside_at": now.isoformat(),
        "table": TABLES[kind],
        **_why(error),
        "row": _row(kind, record),
    }
    with _locked(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
        size = os.fstat(descriptor).st_size
        # A line that a crash has torn must not take this one along.
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        line = b"\n" * is_torn + _line(letter)
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"{path} does not take {len(line)} bytes")
        os.fsync(descriptor)


class PutBack:
    """One run over dead-letter files, a row at a time, and what became of their lines."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.stored = 0
        self._refused: dict[str, int] = {}  # by reason
        self._damaged = 0

    @property
    def left(self) -> int:
        """How many lines stay."""
        return sum(self._refused.values()) + self._damaged

    def put_back(self, path: Path) -> None:
        """Store those rows of a file that Postgres takes; the file is removed when none stays.

        psycopg.Error and OSError leave the file as it was.
        """
        beside = path.with_name(path.name + STAYING_SUFFIX)
        try:
            # Its lock keeps a second run off the file at the path.
            with _locked(beside, os.O_RDWR | os.O_CREAT, wait=False) as descriptor:
                try:
                    os.ftruncate(descriptor, 0)  # of a run that was killed
                    with open(descriptor, "wb", closefd=False) as staying:
                        self._replace(path, beside, staying)
                except BaseException:
                    beside.unlink(missing_ok=True)
                    raise
        except BlockingIOError:
            raise OSError(f"another run is putting back {path}; let it end") from None

    def _replace(self, path: Path, beside: Path, staying: BinaryIO) -> None:
        """Leave those lines at the path that stay."""
        left_before, end = self.left, 0
        with path.open("rb") as letters:
            for line in letters:
                if not line.endswith(b"\n"):  # torn, or delivery is writing it
                    break
                staying.write(self._what_stays(line, path))
                end += len(line)
            # Read anew: what was read of a line that is being written may be taken back.
            with (
                _locked(path, os.O_RDWR) as descriptor,
                open(descriptor, "rb", closefd=False) as rest,
            ):
                if not _is_at(path, letters.fileno()):
                    raise OSError(f"{path} was moved meanwhile; run this again")
                rest.seek(end)
                for line in rest:
                    staying.write(self._what_stays(line, path))
                if self.left == left_before:
                    path.unlink()
                    beside.unlink()
                else:
                    staying.flush()
                    os.fsync(staying.fileno())
                    beside.replace(path)

    def _what_stays(self, line: bytes, path: Path) -> bytes:
        """The line as it stays in its file; nothing when its row is in its table."""
        if not line.strip():
            return b""
        try:
            letter, record = _read(line)
        except (ValueError, RecursionError) as error:
            self._damaged += 1
            print(f"A line of {path} is damaged and stays: {error}.", file=sys.stderr)
            return line.rstrip(b"\n") + b"\n"
        refusal = self._database.refusal(record)
        if refusal is None:
            self.stored += 1
            return b""
        why = _why(refusal)
        self._count(why["reason"] or "")
        return _line(letter | why)

    def _count(self, reason: str) -> None:
        reason = " ".join(reason.split())
        if reason not in self._refused and len(self._refused) >= MAX_REASONS:
            reason = "other reasons"
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def summary(self, folder: Path) -> str:
        """One line: how many rows are in their tables now, how many stay and why."""
        parts = [f"{_counted(self.stored, 'row')} put back"]
        if self._refused:
            reasons = "; ".join(f"{reason} ({count})" for reason, count in self._refused.items())
            parts.append(f"{sum(self._refused.values())} still refused: {reasons}")
        if self._damaged:
            parts.append(f"{_counted(self._damaged, 'damaged line')}")
        return f"{', '.join(parts)}; {'kept' if self.left else 'none is left'} in {folder}."


@contextmanager
def _locked(path: Path, flags: int, *, wait: bool = True) -> Iterator[int]:
    """The file at the path, opened and locked; BlockingIOError when that would take a wait."""
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # While this waited, it may have been removed, or another put in its place.
            if _is_at(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at the path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _why(error: psycopg.Error) -> dict[str, str | None]:
    return {"sqlstate": error.sqlstate, "reason": error.diag.message_primary or str(error)}


def _row(kind: Kind, record: Frame) -> object:
    try:
        return decode_row(kind, record.row)
    except (ValueError, LookupError):
        return bytes(record.row)


def _line(letter: Letter) -> bytes:
    return json.dumps(letter, default=_as_base64).encode() + b"\n"


def _read(line: bytes) -> tuple[Letter, Frame]:
    """The letter on a line, and its row as delivery read it from the spool; ValueError."""
    letter = json.loads(line, object_hook=_from_base64)
    if not isinstance(letter, dict) or not isinstance(letter.get("row"), dict):
        raise ValueError("it has no row of columns by name")
    kind = next((kind for kind, table in TABLES.items() if table == letter.get("table")), None)
    if kind is None:
        raise ValueError(f"it names the table {letter.get('table')!r}")
    row, body_at = encode_row(kind, letter["row"])
    return letter, Frame(kind, memoryview(row), body_at, 0, None)


def _as_base64(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return {"base64": base64.b64encode(value).decode()}


def _from_base64(value: dict[str, Any]) -> dict[str, Any] | bytes:
    return base64.b64decode(value["base64"], validate=True) if value.keys() == {"base64"} else value


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


if __name__ == "__main__":
    sys.exit(main())
