"""python -m minimal_transformer.delivery: the one writer of a spool folder.

Started by PredictionDBHandler.start_delivery() with the transformer's environment. Its standard
input is a pipe from there: a line "drain <seconds>" ends it when the spool is empty or the time is
over, and the pipe's end, which is the transformer's death, does the same with DRAIN_SECONDS.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

from minimal_transformer import counters
from minimal_transformer.counters import Counters
from minimal_transformer.delivery.database import Database
from minimal_transformer.delivery.election import Election
from minimal_transformer.delivery.orders import Orders
from minimal_transformer.delivery.writer import Writer
from minimal_transformer.log_format import formatter
from minimal_transformer.settings import RecordSettings, SettingsError

# A batch is sent when it is full or this old.
BATCH_SECONDS = 0.2
ELECTION_SECONDS = 0.5


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(os.environ.get("LOG_FORMAT", "text")))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Ctrl-C goes to the whole process group; the transformer says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    try:
        settings = RecordSettings.from_environment()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    orders = Orders()
    election = Election(settings.spool_folder)
    while not election.is_won():
        if orders.wait(ELECTION_SECONDS):
            return 0
    folder = os.environ.get(counters.FOLDER_VARIABLE)
    writer = Writer(
        settings.spool_folder,
        Database(settings.postgres_uri.get_secret_value(), settings.secret_folder),
        Counters(Path(folder) if folder else None),
    )
    run(writer, orders)
    writer.close()
    return 0


def run(writer: Writer, orders: Orders) -> None:
    """Deliver until told to drain, then until the spool is empty or the time is over."""
    while True:
        pause = writer.advance()
        if pause is None and orders.is_draining:
            return
        orders.wait(BATCH_SECONDS if pause is None else pause)
        if orders.is_over:
            return


if __name__ == "__main__":
    sys.exit(main())
