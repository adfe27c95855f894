"""What the processes log and how: text or JSON lines on stderr, a line at a change of state."""

from __future__ import annotations

import logging
import logging.config
import os
import time
import warnings
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

# A folder at its cap takes a record now and then; that is still the same trouble.
QUIET_SECONDS = 1.0
PACE_SECONDS = 60.0


class Episode:
    """Counts what a trouble cost and logs when it begins and when it is over, not at each record.

    Not safe for threads.
    """

    def __init__(self, logger: logging.Logger, over: str) -> None:
        self._logger = logger
        self._over = over
        self._last = 0.0
        self.count = 0

    def hit(self, message: str) -> None:
        """The trouble met one more; `message` says what is wrong and what to do."""
        self._last = time.monotonic()
        self.count += 1
        if self.count == 1:
            self._logger.warning("%s", message)

    def passed(self) -> None:
        """Something went through; the trouble is over once it has met nothing for a second."""
        if self.count and time.monotonic() - self._last > QUIET_SECONDS:
            self.count, count = 0, self.count
            self._logger.warning(self._over, count)


class Pace:
    """Counts what happens over and over, for a line at the first and then at most one a minute.

    Not safe for threads.
    """

    def __init__(self) -> None:
        self._count = 0
        self._logged_at = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether the next one is logged."""
        return time.monotonic() - self._logged_at >= PACE_SECONDS

    def hit(self, times: int = 1) -> int:
        """How many there were since the last line, with these, when a line is due; else 0."""
        self._count += times
        if not self.is_due:
            return 0
        count, self._count, self._logged_at = self._count, 0, time.monotonic()
        return count

    def forget(self) -> None:
        """Leave what there was since the last line out of the next one."""
        self._count = 0


class RateLimit(logging.Filter):
    """Lets a line through so often in a while, whoever causes it; then counts and says how many.

    Lines are alike when one place in the code writes them. A line per call that was asked for
    (ACCESS_LOG, --enable_latency_logging) is not limited.
    """

    UNLIMITED = frozenset({"minimal_transformer.access_log", "kserve.trace"})
    LINES = 10
    SECONDS = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; the last one of a while says that others were not."""
        if record.name in self.UNLIMITED:
            return True
        place = record.name, record.pathname, record.lineno
        now = time.monotonic()
        began, count = self._seen.get(place, (now, 0))
        left_out = 0
        if now - began >= self.SECONDS:
            left_out, began, count = count - self.LINES, now, 0
        self._seen[place] = began, count + 1
        if count == self.LINES - 1:
            record.msg = f"{record.getMessage()} (more of these in {self.SECONDS:g} s are left out)"
            record.args = ()
        elif left_out > 0:
            record.msg = f"{record.getMessage()} ({left_out} of these were left out)"
            record.args = ()
        return count < self.LINES


def formatter(log_format: str) -> logging.Formatter:
    """The formatter of that LOG_FORMAT, `text` or `json`, in the server and in delivery."""
    if log_format != "json":
        line = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s: %(message)s"
        return logging.Formatter(line, "%Y-%m-%d %H:%M:%S")
    return JsonFormatter(
        "{levelname}{name}{process}{message}",
        style="{",
        timestamp="time",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],
    )


def configure(log_format: str, config_file: str | None = None) -> None:
    """Set up logging in a serving process; KServe's --log_config_file replaces all of it."""
    if config_file is not None:
        from kserve.logging import configure_logging  # noqa: PLC0415  delivery imports no kserve

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
            "filters": {"rate": {"()": RateLimit}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stderr",
                    "formatter": "line",
                    "filters": ["rate"],
                }
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                "minimal_transformer": ours,
                # Only with --enable_latency_logging.
                "kserve.trace": ours,
                # Both log each step of a start at INFO; we log once that we serve.
                "kserve": ours | {"level": os.environ.get("KSERVE_LOGLEVEL", "WARNING").upper()},
                "uvicorn": ours | {"level": "WARNING"},
            },
        }
    )
