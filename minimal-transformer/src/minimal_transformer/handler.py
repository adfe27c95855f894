"""PredictionDBHandler: what the server calls to record a call, and to run the delivery process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from minimal_transformer import counters as slots
from minimal_transformer.folder import waiting_calls
from minimal_transformer.metrics import RecordMetrics
from minimal_transformer.record import Call, Protocol
from minimal_transformer.recorder import Recorder
from minimal_transformer.settings import RecordSettings
from minimal_transformer.supervisor import DeliveryProcess

logger = logging.getLogger("minimal_transformer.recording")


class PredictionDBHandler:
    """Records calls so that no failure of recording changes, delays or fails an answer.

    One object per serving process: `open()` there, `close()` at its end. It can be pickled to a
    worker before that. `start_delivery()` and `stop_delivery()` belong to the main process alone.
    """

    def __init__(self, settings: RecordSettings, counters_folder: Path | None = None) -> None:
        self._settings = settings
        self._counters_folder = counters_folder or slots.new_folder()
        # Who was given a folder shares the one of another process, which removes it.
        self._claims_folder = counters_folder is None
        self._delivery: DeliveryProcess | None = None
        self._recorder: Recorder | None = None

    def __reduce__(self) -> tuple[type[PredictionDBHandler], tuple[RecordSettings, Path]]:
        return PredictionDBHandler, (self._settings, self._counters_folder)

    def open(self) -> None:
        """Make this process a recorder: with an id, a numbering and spool files of its own."""
        if self._recorder is None:
            self._claim_folder()
            self._recorder = Recorder(self._settings, self._counters_folder)

    def close(self) -> None:
        """Leave the spool files to delivery; late calls are still recorded, in a new file."""
        if self._recorder is not None:
            self._recorder.close()

    def record_request(
        self,
        *,
        body: bytes,
        headers: Mapping[str, str],
        protocol: Protocol,
        model_name: str,
        predict_url: str,
        data: bytes | None = None,
    ) -> Call | None:
        """Put a call's request row on the spool; None when not sampled, or dropped and counted.

        `headers` has lower-case keys. `data` is the body's JSON form where the body is not JSON
        (gRPC). Never raises and never waits for Postgres.
        """
        if self._recorder is None:
            self.open()
        assert self._recorder is not None  # noqa: S101
        return self._recorder.record_request(
            body, headers, (model_name, protocol, predict_url), data
        )

    def record_response(
        self,
        call: Call | None,
        *,
        status_code: int,
        body: bytes | None,
        error: str | None = None,
        data: bytes | None = None,
    ) -> None:
        """Put the response row of a call on the spool; nothing for None. Never raises.

        Every call that record_request() returned wants exactly one: room is kept for it until then.
        """
        if call is not None and self._recorder is not None:
            self._recorder.record_response(call, status_code, body, error, data)

    async def durable(self) -> None:
        """With SPOOL_FSYNC=1, returns when all recorded so far is on the disk; else at once.

        The sync runs in a thread and many calls share one. Await it before answering.
        """
        if self._settings.spool_fsync and self._recorder is not None:
            await self._recorder.group_commit.wait()

    def start_delivery(self) -> None:
        """Start the background writer of the spool folder; it is started again when it dies."""
        self._claim_folder()
        environment = {slots.FOLDER_VARIABLE: str(self._counters_folder)}
        self._delivery = DeliveryProcess(self._settings, environment)
        self._delivery.start()

    def stop_delivery(self, timeout: float) -> None:
        """Drain the spool for at most `timeout` seconds and end the writer; the rest waits."""
        if self._delivery is None:
            return
        self._delivery.stop(timeout)
        self._delivery = None
        folder = self._settings.spool_folder
        if calls := waiting_calls(folder):
            logger.warning(
                "%d calls wait in %s; they are delivered at the next start.", calls, folder
            )

    def _claim_folder(self) -> None:
        if self._claims_folder:
            self._claims_folder = False
            slots.claim(self._counters_folder)

    @property
    def delivery_pid(self) -> int | None:
        """Process id of the writer; None while it does not run."""
        return None if self._delivery is None else self._delivery.pid

    def metrics(self) -> RecordMetrics:
        """The metrics over all processes; open() registers them with prometheus_client."""
        self.open()
        assert self._recorder is not None  # noqa: S101
        return self._recorder.metrics
