"""Keeps KServe's log to what an operator needs: the start, the end and faults of the server."""

import warnings

from kserve import logging
from kserve.constants.constants import KSERVE_LOGLEVEL


def quieten() -> None:
    """No line per call unless KSERVE_LOGLEVEL is DEBUG; in force once KServe sets up its log."""
    # KServe's own routes answer with it; nobody here can change that.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    if KSERVE_LOGLEVEL != "DEBUG":
        for logger in ("kserve.trace", "uvicorn.access"):
            logging.KSERVE_LOG_CONFIG["loggers"][logger]["level"] = "WARNING"
