"""A streamed answer on its way to its caller: sent as it comes, recorded once, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from minimal_transformer.exchange import Answer, PredictorCut, RawHeaders, Stream
from minimal_transformer.recording.handler import Call, PredictionDBHandler
from minimal_transformer.recording.stream import End

log = logging.getLogger(__name__)


class CallerLeft(Exception):
    """The caller of a stream closed the connection, or reads nothing of it."""


class Streaming:
    """The stream of one call. Enter it once: its end, whatever ends it, writes the response row.

    What ends a stream is not a failure of ours, so leaving the block raises nothing that is known.
    """

    def __init__(
        self,
        stream: Stream,
        handler: PredictionDBHandler,
        call: Call | None,
        at_end: Callable[[], None],
    ) -> None:
        self.status = stream.status
        self.headers: RawHeaders = stream.headers
        self.is_whole = False  # the caller may be told that this was all
        self.sent_bytes = 0
        self._sending_bytes = 0
        self._stream = stream
        self._handler = handler
        self._call = call
        self._at_end = at_end
        # Nothing is kept of a call that is not recorded.
        self._assembly = None if call is None else handler.assembly(call, stream.headers)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The stream's next bytes as the predictor sent them; PredictorCut when it ends early."""
        self.sent_bytes += self._sending_bytes
        self._sending_bytes = 0
        chunk = await self._stream.read()
        if not chunk:
            self.is_whole = True
            raise StopAsyncIteration
        if self._assembly is not None:
            self._assembly.feed(chunk)
        self._sending_bytes = len(chunk)
        return chunk

    @property
    def is_sending(self) -> bool:
        """Whether its caller is being sent something, and not the predictor waited for."""
        return self._sending_bytes > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # Before anything that might fail, so that no accelerator works for nobody.
        self._stream.close()
        end, error = self._end_of(failure)
        try:
            if self._call is not None and self._assembly is not None:
                streamed = self._assembly.finish(end)
                # Only the engine's own words may quote what was asked.
                told = error or streamed.error
                answer = Answer(self.status, b"", self.headers, told, quotes=error is None)
                self._handler.record_response(self._call, answer, streamed)
        finally:
            self._at_end()
        # A stream has no other way to tell its caller than to end before its end.
        return not isinstance(failure, KeyboardInterrupt | SystemExit)

    def _end_of(self, failure: BaseException | None) -> tuple[End, str | None]:
        is_done = self._assembly is not None and self._assembly.is_done
        if failure is None:
            return "done" if is_done else "no_done", None
        if isinstance(failure, CallerLeft):
            # Clients leave with the last event; they do not wait for the connection's end.
            return ("done", None) if is_done else ("left", f"the caller left {self._after}")
        if isinstance(failure, PredictorCut):
            return "cut", f"{failure} {self._after}"
        if isinstance(failure, Exception):
            log.error("a stream failed", exc_info=failure)
            return "cut", f"{type(failure).__name__}: {failure} {self._after}"
        return "stopped", f"the server stopped {self._after}"

    @property
    def _after(self) -> str:
        if self._assembly is None or not self._assembly.tokens.chunks:
            return f"after {self.sent_bytes} bytes"
        return f"after {self._assembly.tokens.chunks} chunks"
