"""Rows that Postgres refuses for what is in them: set aside as JSON lines, with the reason."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from minimal_transformer.folder import DEAD_LETTER_FOLDER
from minimal_transformer.rows import decode_row
from minimal_transformer.segment import Frame, Kind

TABLES: dict[int, str] = {Kind.REQUEST: "inference_requests", Kind.RESPONSE: "inference_responses"}


def set_aside(spool: Path, record: Frame, error: psycopg.Error) -> Path:
    """Append the record to today's dead-letter file, synced; OSError when it cannot be.

    A line holds `reason`, `sqlstate`, `table` and `row`: columns by name, bytes as {"base64": …}.
    """
    now = datetime.now(UTC)
    folder = spool / DEAD_LETTER_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}.jsonl"
    letter = {
        "set_aside_at": now.isoformat(),
        "table": TABLES[record.kind],
        "sqlstate": error.sqlstate,
        "reason": error.diag.message_primary or str(error),
        "row": _row(record),
    }
    line = json.dumps(letter, default=_as_base64).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"{path} does not take {len(line)} bytes")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def _row(record: Frame) -> object:
    try:
        return decode_row(Kind(record.kind), record.row)
    except (ValueError, LookupError):
        return bytes(record.row)


def _as_base64(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return {"base64": base64.b64encode(value).decode()}
