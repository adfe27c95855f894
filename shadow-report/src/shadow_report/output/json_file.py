"""The report as JSON, the interface for scripts; `schema_version` says which shape it has."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from shadow_report.report import Report

OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z


def as_json(report: Report) -> bytes:
    """The report as indented UTF-8 JSON; figures that are not finite are null, never NaN."""
    return orjson.dumps(plain(report), option=OPTIONS) + b"\n"


def write_json(report: Report, file: Path) -> None:
    """Write the report to `file`, in one step: a reader sees the old file or the new one."""
    replace_file(file, as_json(report))


def plain(value: object) -> object:
    """The value as dicts, lists, text, numbers, times and None, all of which JSON can hold."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {encodable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return scalar(value)


def scalar(value: object) -> object:
    """One value as a number, truth, time, text or None."""
    match value:
        case None | bool() | datetime():
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        # Whole numbers past 64 bits are text: no reader of JSON keeps them exactly.
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case timedelta():
            return value.total_seconds()
        case _:
            return encodable(str(value))


def encodable(text: str) -> str:
    r"""The text with lone surrogates written out (`\ud800`): UTF-8 cannot hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


def replace_file(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file` in one step; a device or pipe is written to."""
    if file.exists() and not file.is_file():
        file.write_bytes(content)
        return
    draft = file.with_name(f".{file.name}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
