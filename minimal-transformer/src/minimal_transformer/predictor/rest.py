"""The hop to a predictor that speaks REST: one aiohttp session per process, bytes both ways."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from contextvars import ContextVar
from typing import Any, cast

import aiohttp
import orjson
from yarl import URL

from minimal_transformer.exchange import Answer, Arrival, Stream
from minimal_transformer.failures import error_text, refusal
from minimal_transformer.predictor import (
    READY_SECONDS,
    UnknownModel,
    Unreachable,
    to_caller,
    to_predictor,
)
from minimal_transformer.predictor.v2 import grpc_from_rest_answer, rest_from_grpc_request
from minimal_transformer.settings import PredictorSettings

log = logging.getLogger(__name__)

# Twice as many descriptors as calls in flight: 1024 is the smallest usual limit of a process.
MAX_CONNECTIONS = 480
# Shorter than KServe's 65 s, so that the predictor seldom closes a connection that we reuse.
IDLE_SECONDS = 30.0
CONNECT_SECONDS = 10.0

# Of a caller's making: no more of them are kept.
MAX_URLS = 256

# aiohttp warns about larger bytes and would send them in one piece; a stream goes in chunks.
STREAM_BYTES = 1 << 20

_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _Attempt:
    """Whether one attempt opened a connection of its own or reused an idle one."""

    __slots__ = ("connected",)

    def __init__(self) -> None:
        self.connected = False


_attempt: ContextVar[_Attempt] = ContextVar("attempt")


class RestPredictor:
    """Forwards calls to a REST predictor; its status, type and body come back unchanged."""

    max_connections = MAX_CONNECTIONS

    def __init__(self, settings: PredictorSettings) -> None:
        self._settings = settings
        self._urls: dict[str, URL] = {}
        self._unreachable = Unreachable(settings.host)
        self._unknown_model = UnknownModel(settings.host, settings.model_name)
        self._session: aiohttp.ClientSession

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(
            limit=self.max_connections,
            keepalive_timeout=IDLE_SECONDS,
            ssl=self._settings.ssl_context() if self._settings.use_tls else True,
            socket_factory=self._make_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            **self._session_options(),
        )

    def _session_options(self) -> dict[str, Any]:
        total = self._settings.timeout_seconds
        return {"timeout": aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_SECONDS)}

    def _make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for a new connection; notes that the running attempt did not reuse one."""
        attempt = _attempt.get(None)
        if attempt is not None:
            attempt.connected = True
        family, kind, protocol, _, _ = address
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        await self._session.close()

    async def forward(self, arrival: Arrival) -> Answer | Stream:
        headers = to_predictor(arrival.headers)
        path = arrival.route.path
        if arrival.route.protocol != "grpc":
            url = self._url(f"{path}?{arrival.query}" if arrival.query else path)
            return await self._post(url, arrival.body, headers)
        body, added = rest_from_grpc_request(arrival.body)
        answer = await self._post(self._url(path), body, headers | added)
        return grpc_from_rest_answer(cast(Answer, answer))  # a v2 answer never streams

    async def is_ready(self) -> bool:
        name = self._settings.model_name
        by_protocol = (
            f"/v1/models/{name}" if self._settings.protocol == "v1" else f"/v2/models/{name}/ready"
        )
        path = self._settings.passing.predictor_ready_path or by_protocol
        timeout = aiohttp.ClientTimeout(total=min(READY_SECONDS, self._settings.timeout_seconds))
        try:
            async with self._session.get(
                self._url(path), timeout=timeout, allow_redirects=False
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as failure:
            if isinstance(failure, _NO_CONNECTION):
                self._unreachable.met(str(failure))
            return False
        self._unreachable.passed()
        if response.status == 404:
            self._unknown_model.met()
        elif response.status == 200:
            self._unknown_model.passed()
        return response.status == 200 and _says_ready(body)

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = URL(self._settings.base_url + path, encoded=True)
            if len(self._urls) < MAX_URLS:
                self._urls[path] = url
        return url

    async def _post(self, url: URL, body: bytes, headers: dict[str, str]) -> Answer | Stream:
        """Post a body; try again where the predictor cannot have started on the call."""
        retries = self._settings.retries
        raced = False
        deadline: float | None = None
        tried = 0
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            attempt = _Attempt()
            _attempt.set(attempt)
            try:
                return await self._attempt_post(url, body, headers, deadline)
            except _NO_CONNECTION as failure:
                last: Exception = failure
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as failure:
                last = failure
                if not attempt.connected and not raced:
                    # The predictor closed an idle connection while we took it: nobody saw the call.
                    raced = True
                    deadline = started + self._settings.timeout_seconds
                    continue
            except (aiohttp.ClientError, TimeoutError) as failure:
                return failed(failure, self._settings)
            if tried >= retries:
                if isinstance(last, _NO_CONNECTION):
                    self._unreachable.met(str(last))
                return failed(last, self._settings)
            tried += 1
            deadline = started + self._settings.timeout_seconds
            await asyncio.sleep(min(0.1 * 2 ** (tried - 1), 1.0))

    async def _attempt_post(
        self, url: URL, body: bytes, headers: dict[str, str], deadline: float | None
    ) -> Answer | Stream:
        options: dict[str, Any] = {}
        if deadline is not None:
            left = max(deadline - asyncio.get_running_loop().time(), 0.001)
            options["timeout"] = aiohttp.ClientTimeout(total=left, sock_connect=CONNECT_SECONDS)
        response = await self._session.post(
            url,
            data=body if len(body) <= STREAM_BYTES else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            **options,
        )
        self._unreachable.passed()
        try:
            return await self._received(response)
        except BaseException:
            response.close()
            raise

    async def _received(self, response: aiohttp.ClientResponse) -> Answer | Stream:
        # Reading to the end gives the connection back to the pool.
        return passed_on(response, await response.read())


def passed_on(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    """The predictor's answer as its caller gets it."""
    status = response.status
    if status == 200:
        return Answer(200, body, to_caller(response.raw_headers))
    if 300 <= status < 400:
        return refusal(502, f"the predictor answered with a redirect ({status})")
    error = None if status < 300 else error_text(body, status)
    return Answer(status, body, to_caller(response.raw_headers), error)


def failed(failure: Exception, settings: PredictorSettings) -> Answer:
    """The answer to a call that the predictor did not answer; the log alone has the address."""
    if isinstance(failure, _NO_CONNECTION):
        answer = refusal(503, "the predictor is unreachable")
    elif isinstance(failure, TimeoutError):
        answer = refusal(504, f"the predictor did not answer in {settings.timeout_seconds:g} s")
    elif isinstance(failure, aiohttp.ClientPayloadError):
        answer = refusal(502, "the predictor's answer was cut off")
    elif isinstance(failure, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        answer = refusal(502, "the predictor closed the connection without an answer")
    else:
        answer = refusal(502, "the predictor's answer is not valid HTTP")
    log.debug("call to %s failed: %r", settings.base_url, failure)
    return answer


def _says_ready(body: bytes) -> bool:
    """False only if the body says so itself: older servers answer 200 with ready=false."""
    try:
        ready = orjson.loads(body).get("ready", True)
    except (orjson.JSONDecodeError, AttributeError):
        return True
    return ready not in (False, "False", "false")
