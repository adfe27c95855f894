"""How a log line looks, as text and as JSON, in the server and in the delivery process."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

TEXT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s: %(message)s"
TEXT_DATE = "%Y-%m-%d %H:%M:%S"
_EXTRA = ("pair_id", "status", "duration_ms")


class JsonLines(logging.Formatter):
    """One JSON object per record; an exception is a field of it and not further lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _EXTRA if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def formatter(log_format: str) -> logging.Formatter:
    """The formatter of that LOG_FORMAT, `text` or `json`."""
    return JsonLines() if log_format == "json" else logging.Formatter(TEXT, TEXT_DATE)
