"""What is recorded of a call, and that it costs no answer."""

from __future__ import annotations

import logging

from minimal_transformer.exchange import Answer, Arrival
from minimal_transformer.handler import PredictionDBHandler
from minimal_transformer.predictor.bridge import request_json, response_json
from minimal_transformer.record import Call
from minimal_transformer.settings import RecordSettings

log = logging.getLogger(__name__)


class Recording:
    """Hands calls and answers to the handler; a fault of recording ends here, in the log."""

    def __init__(self, settings: RecordSettings) -> None:
        self.handler = PredictionDBHandler(settings)
        self.fsyncs = settings.spool_fsync

    def open(self) -> None:
        """Start recording in this process."""
        self.handler.open()

    def close(self) -> None:
        """Finish this process's files; a late answer is recorded all the same."""
        self.handler.close()

    def arrived(self, arrival: Arrival, model_name: str) -> Call | None:
        """Put the request on the spool; None when it is not to be recorded."""
        route = arrival.route
        try:
            return self.handler.record_request(
                body=arrival.body,
                headers=arrival.headers,
                protocol=route.protocol,
                model_name=model_name,
                predict_url=route.predict_url,
                data=request_json(arrival.body) if route.protocol == "grpc" else None,
            )
        except Exception:
            log.exception("a request to %s was not recorded", route.path)
            return None

    def answered(self, call: Call | None, arrival: Arrival, answer: Answer) -> None:
        """Put the answer on the spool."""
        if call is None:
            return
        body: bytes | None = answer.body
        data = None
        try:
            if arrival.route.protocol == "grpc":
                succeeded = answer.status == 200
                # A failed gRPC call has no message: the caller gets the code and its details.
                body = body if succeeded else None
                data = response_json(answer.body) if succeeded else None
            self.handler.record_response(
                call, status_code=answer.status, body=body, error=answer.error, data=data
            )
        except Exception:
            log.exception("an answer of %s was not recorded", arrival.route.path)

    async def durable(self) -> None:
        """Wait until what was recorded is on the disk (SPOOL_FSYNC=1)."""
        try:
            await self.handler.durable()
        except Exception:
            log.exception("the spool could not be synced to the disk")
