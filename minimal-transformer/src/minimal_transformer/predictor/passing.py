"""The hop for bodies that pass as they are, also in a stream: what comes goes on as it comes.

A session of its own: a stream holds its connection for minutes, and what waits for a slow reader
has to wait at the predictor and not in our memory.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp

from minimal_transformer.exchange import Answer, Arrival, PredictorCut, Stream
from minimal_transformer.failures import refusal
from minimal_transformer.limits import Room
from minimal_transformer.predictor import NotThere, to_caller
from minimal_transformer.predictor.rest import (
    CONNECT_SECONDS,
    RestPredictor,
    failed,
    passed_on,
)
from minimal_transformer.settings import PredictorSettings

EVENT_STREAM = "text/event-stream"
# uvloop reads up to 256 KiB at once, so the socket's buffer is what bounds a stream that stalls:
# with a thousand of them a pod's memory is at stake.
RECEIVE_BYTES = 32 * 1024
READ_BYTES = 16 * 1024


class PassingPredictor(RestPredictor):
    """Forwards calls to a REST predictor and hands on what it sends while it sends it.

    At most `max_streams` calls are in flight. The timeout is how long the predictor may be silent
    before a stream's first byte; STREAM_IDLE_TIMEOUT_SECONDS how long between two pieces of it.
    """

    max_connections = 0  # no limit of aiohttp's, which would have calls wait; ours refuses them

    def __init__(self, settings: PredictorSettings) -> None:
        super().__init__(settings)
        self._limit = settings.passing.max_streams
        self._in_flight = 0
        prefix = settings.passing.openai_predictor_prefix
        self._not_there = NotThere(settings.host, prefix, settings.quotes_errors)

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        made = super()._make_socket(address)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return made

    def _session_options(self) -> dict[str, Any]:
        silence = self._settings.timeout_seconds  # until a stream's first byte
        return super()._session_options() | {
            "timeout": aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=silence),
            "read_bufsize": READ_BYTES,
        }

    async def forward(self, arrival: Arrival) -> Answer | Stream:
        """The predictor's answer; one in events comes as a Stream, which its taker must close."""
        if self._in_flight >= self._limit:
            return refusal(
                503,
                f"{self._limit} calls are in flight already (MAX_STREAMS); try again",
                [(b"content-type", b"application/json"), (b"retry-after", b"1")],
            )
        self._in_flight += 1
        answer: Answer | Stream | None = None
        try:
            answer = await super().forward(arrival)
            if arrival.route.protocol == "openai" and isinstance(answer, Answer):
                self._not_there.saw(arrival.route.path, answer)
            return answer
        finally:
            if not isinstance(answer, Stream):
                self._in_flight -= 1

    async def get(self, path: str) -> Answer:
        """The predictor's answer to a question that is not a call, such as for its models."""
        try:
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                self._session.get(self._url(path), allow_redirects=False) as response,
            ):
                return passed_on(response, await response.read(), self._settings.headers)
        except (aiohttp.ClientError, TimeoutError) as failure:
            return failed(failure, self._settings)

    async def _received(
        self, response: aiohttp.ClientResponse, room: Room | None
    ) -> Answer | Stream:
        if response.status != 200 or response.content_type != EVENT_STREAM:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await super()._received(response, room)
        return self._stream(response)

    def _stream(self, response: aiohttp.ClientResponse) -> Stream:
        is_open = True
        allowed_seconds = self._settings.timeout_seconds

        async def read() -> bytes:
            nonlocal allowed_seconds
            try:
                piece = await response.content.readany()
            except TimeoutError:
                silence = f"the predictor sent nothing for {allowed_seconds:g} s"
                raise PredictorCut(silence) from None
            except (aiohttp.ClientError, OSError):
                raise PredictorCut("the predictor's answer was cut off") from None
            if allowed_seconds != self._settings.stream_idle_seconds:
                allowed_seconds = self._settings.stream_idle_seconds
                _allow_silence(response, allowed_seconds)
            return piece

        def close() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._in_flight -= 1
                response.close()  # gives the connection back instead when all was read

        return Stream(200, to_caller(response.raw_headers, self._settings.headers), read, close)


def _allow_silence(response: aiohttp.ClientResponse, seconds: float) -> None:
    """Give up an answer that is being read when nothing of it comes for so long, from now on.

    aiohttp's own timer, which stops while a slow caller holds the predictor back; one around each
    read would cost every event.
    """
    connection = response.connection
    if connection is None or connection.protocol is None:
        return  # all of it is here: the connection may be another call's by now
    connection.protocol.read_timeout = seconds
    connection.protocol.start_timeout()
