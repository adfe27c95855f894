"""What the server logs and how: text or JSON lines on stderr, one place for every process."""

from __future__ import annotations

import logging
import logging.config
import os
import warnings
from typing import Any

from kserve.logging import configure_logging

from minimal_transformer.log_format import formatter


def configure(log_format: str, config_file: str | None = None) -> None:
    """Set up logging in this process; KServe's --log_config_file replaces all of it."""
    if config_file is not None:
        configure_logging(config_file)
        return
    # KServe 0.21 names this class in its FastAPI app; the warning takes five lines in each process.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    ours: dict[str, Any] = {"level": "INFO", "handlers": ["stderr"], "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": formatter, "log_format": log_format}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stderr",
                    "formatter": "line",
                }
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                "minimal_transformer": ours,
                # Only with --enable_latency_logging.
                "kserve.trace": ours,
                # Both tell at INFO of each step of a start; we say once that we serve.
                "kserve": ours | {"level": os.environ.get("KSERVE_LOGLEVEL", "WARNING").upper()},
                "uvicorn": ours | {"level": "WARNING"},
            },
        }
    )
