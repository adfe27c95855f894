"""What the server logs and how: text or JSON lines on stderr, one place for every process."""

from __future__ import annotations

import json
import logging
import logging.config
from datetime import UTC, datetime
from typing import Any

from kserve.logging import configure_logging

_TEXT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s: %(message)s"
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


def configure(log_format: str, config_file: str | None = None) -> None:
    """Set up logging in this process; KServe's --log_config_file replaces all of it."""
    if config_file is not None:
        configure_logging(config_file)
        return
    formatters: dict[str, Any] = {
        "text": {"format": _TEXT, "datefmt": "%Y-%m-%d %H:%M:%S"},
        "json": {"()": JsonLines},
    }
    ours: dict[str, Any] = {"level": "INFO", "handlers": ["stderr"], "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": formatters,
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stderr",
                    "formatter": log_format,
                }
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": dict.fromkeys(("minimal_transformer", "kserve", "kserve.trace"), ours)
            # Uvicorn tells of each start and stop; we say it once ourselves.
            | {"uvicorn": ours | {"level": "WARNING"}},
        }
    )
