"""The hop to a predictor that speaks REST: one aiohttp session per process, bytes both ways."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from contextvars import ContextVar
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from minimal_transformer.exchange import Answer, Arrival, Stream
from minimal_transformer.failures import error_text, refusal
from minimal_transformer.limits import SMALL_BYTES, Room
from minimal_transformer.predictor import (
    READY_SECONDS,
    Failing,
    UnknownModel,
    Unreachable,
    to_caller,
    to_predictor,
)
from minimal_transformer.predictor.v2 import (
    checked_request,
    grpc_from_rest_answer,
    rest_from_grpc_request,
)
from minimal_transformer.settings import HeaderRules, PredictorSettings

log = logging.getLogger(__name__)

# Twice as many descriptors as calls in flight: 1024 is the smallest usual limit of a process.
MAX_CONNECTIONS = 480
# Shorter than KServe's 65 s, so that the predictor seldom closes a connection that we reuse.
IDLE_SECONDS = 30.0
CONNECT_SECONDS = 10.0

# Of what the predictor answers before its body.
MAX_HEAD_BYTES = 1024 * 1024
MAX_HEADERS = 10_000
# Of what it says about itself and its model.
MAX_STATE_BYTES = 1024 * 1024
EXTENSIONS_SECONDS = 60.0
# Of a caller's making: no more of them are kept.
MAX_URLS = 256

# aiohttp warns about larger bytes and would send them in one piece; a stream goes in chunks.
STREAM_BYTES = 1 << 20

_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _Attempt:
    """One attempt of a call; `connected`: it opened a connection, and reused no idle one.

    deadline: on the loop's clock; None for the session's own limit.
    """

    __slots__ = ("connected", "deadline", "session")

    def __init__(self, session: aiohttp.ClientSession, deadline: float | None) -> None:
        self.session, self.deadline = session, deadline
        self.connected = False


_attempt: ContextVar[_Attempt] = ContextVar("attempt")


class RestPredictor:
    """Forwards calls to a REST predictor; its status, type and body come back unchanged."""

    max_connections = MAX_CONNECTIONS

    def __init__(self, settings: PredictorSettings) -> None:
        self._settings = settings
        self._urls: dict[str, URL] = {}
        self._unreachable = Unreachable(settings.host)
        self._failing = Failing(settings.host, settings.quotes_errors)
        self._unknown_model = UnknownModel(settings.host, settings.model_name)
        self._session: aiohttp.ClientSession
        self._fresh_session: aiohttp.ClientSession
        """Opens a connection for each call."""
        self._in_binary = False
        self._ask_extensions_at = 0.0

    async def open(self) -> None:
        self._session = self._make_session(keepalive_timeout=IDLE_SECONDS)
        self._fresh_session = self._make_session(force_close=True)

    def _make_session(self, **reuse: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self.max_connections,
            ssl=self._settings.ssl_context() if self._settings.use_tls else True,
            socket_factory=self._make_socket,
            **reuse,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            # What is not on the list is dropped, however long it is; aiohttp refuses 8,191 bytes.
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEADERS,
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
        await self._fresh_session.close()

    async def forward(self, arrival: Arrival) -> Answer | Stream:
        headers = to_predictor(arrival.headers, self._settings)
        path = arrival.route.path
        if arrival.route.protocol != "grpc":
            url = self._url(f"{path}?{arrival.query}" if arrival.query else path)
            return await self._post(url, arrival.body, headers, arrival.room)
        message = checked_request(arrival.body)
        raw = bool(message.raw_input_contents)
        in_binary = raw and await self._takes_binary()
        body, added = rest_from_grpc_request(message, in_binary=in_binary)
        answer = await self._post(self._url(path), body, headers | added, arrival.room)
        # A v2 answer never streams.
        return grpc_from_rest_answer(cast(Answer, answer), raw=raw)

    async def metadata(self, version: str) -> Answer:
        """What the predictor says about its model, or that version of it, in v2's form."""
        name = quote(self._settings.model_name, safe="")
        path = f"/v2/models/{name}" + (f"/versions/{quote(version, safe='')}" if version else "")
        try:
            response, body = await self._get(path)
        except (aiohttp.ClientError, TimeoutError) as failure:
            return failed(failure, self._settings)
        return passed_on(response, body, self._settings.headers)

    async def _get(self, path: str) -> tuple[aiohttp.ClientResponse, bytes]:
        timeout = aiohttp.ClientTimeout(total=min(READY_SECONDS, self._settings.timeout_seconds))
        async with self._session.get(
            self._url(path), timeout=timeout, allow_redirects=False
        ) as response:
            body = b""
            while len(body) < MAX_STATE_BYTES and (piece := await response.content.readany()):
                body += piece
            return response, body

    async def _takes_binary(self) -> bool:
        """Whether the predictor reads tensors in binary form, asked for at most once a minute.

        It lists the extension, or is KServe's, which has it and does not list it.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._ask_extensions_at:
            self._ask_extensions_at = now + EXTENSIONS_SECONDS
            try:
                server = orjson.loads((await self._get("/v2"))[1])
                extensions = server.get("extensions") or []
                self._in_binary = "binary_tensor_data" in extensions or server["name"] == "kserve"
            except (aiohttp.ClientError, TimeoutError):
                self._ask_extensions_at = now  # it may be there for the next call
            except (ValueError, KeyError, TypeError, AttributeError):
                self._in_binary = False
        return self._in_binary

    async def is_ready(self) -> bool:
        protocol = self._settings.protocol
        own_path = self._settings.passing.predictor_ready_path
        try:
            response, body = await self._get(own_path or self._ready_path(protocol))
            other = None
            if response.status == 404 and not own_path:
                other = "v2" if protocol == "v1" else "v1"
                elsewhere, _ = await self._get(self._ready_path(other))
                other = other if elsewhere.status == 200 else None
        except (aiohttp.ClientError, TimeoutError) as failure:
            if isinstance(failure, _NO_CONNECTION):
                self._unreachable.met(str(failure))
            return False
        self._unreachable.passed()
        if response.status == 404:
            self._unknown_model.met(other)
        elif response.status == 200:
            self._unknown_model.passed()
        return response.status == 200 and _says_ready(body)

    def _ready_path(self, protocol: str) -> str:
        name = quote(self._settings.model_name, safe="")
        return f"/v1/models/{name}" if protocol == "v1" else f"/v2/models/{name}/ready"

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = URL(self._settings.base_url + path, encoded=True)
            if len(self._urls) < MAX_URLS:
                self._urls[path] = url
        return url

    async def _post(
        self, url: URL, body: bytes, headers: dict[str, str], room: Room | None
    ) -> Answer | Stream:
        """Post a body; try again where the predictor cannot have started on the call."""
        retries = self._settings.retries
        raced = False
        deadline: float | None = None
        tried = 0
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            # A predictor that closed one idle connection may have closed them all.
            attempt = _Attempt(self._fresh_session if raced else self._session, deadline)
            _attempt.set(attempt)
            try:
                return await self._attempt_post(attempt, url, body, headers, room)
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
                return self._given_up(failure)
            if tried >= retries:
                return self._given_up(last)
            tried += 1
            deadline = started + self._settings.timeout_seconds
            await asyncio.sleep(min(0.1 * 2 ** (tried - 1), 1.0))

    def _given_up(self, failure: Exception) -> Answer:
        """The answer to a call after its last attempt, which the log hears of."""
        answer = failed(failure, self._settings)
        if isinstance(failure, _NO_CONNECTION):
            self._unreachable.met(str(failure))
        else:
            self._failing.saw(answer)
        return answer

    async def _attempt_post(
        self,
        attempt: _Attempt,
        url: URL,
        body: bytes,
        headers: dict[str, str],
        room: Room | None,
    ) -> Answer | Stream:
        options: dict[str, Any] = {}
        if attempt.deadline is not None:
            left = max(attempt.deadline - asyncio.get_running_loop().time(), 0.001)
            options["timeout"] = aiohttp.ClientTimeout(total=left, sock_connect=CONNECT_SECONDS)
        response = await attempt.session.post(
            url,
            data=body if len(body) <= STREAM_BYTES else io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            **options,
        )
        self._unreachable.passed()
        try:
            answer = await self._received(response, room)
        except BaseException:
            response.close()
            raise
        self._failing.saw(answer)
        return answer

    async def _received(
        self, response: aiohttp.ClientResponse, room: Room | None
    ) -> Answer | Stream:
        # Reading to the end gives the connection back to the pool; what is here needs no room.
        if room is None or response.content.is_eof():
            body = await response.read()
        else:
            body = await _read_in(response, room)
        if room is not None:
            room.limits.check_answer(len(body))
        return passed_on(response, body, self._settings.headers)


async def _read_in(response: aiohttp.ClientResponse, room: Room) -> bytes:
    """An answer's body that is still to come, when there is room for it; AnswerTooLarge or NoRoom.

    aiohttp stops reading from the connection until it is read here, so what waits is not in memory.
    """
    length = response.content_length
    if length is not None:
        if length <= SMALL_BYTES:
            room.take_small(length)
        else:
            await room.take_answer(length)
        return await response.read()
    start = await response.content.read(SMALL_BYTES)
    pieces = [start]
    received = len(start)
    while received <= SMALL_BYTES and (piece := await response.content.readany()):
        pieces.append(piece)
        received += len(piece)
    if received <= SMALL_BYTES:
        room.take_small(received)
        return b"".join(pieces)
    room.limits.check_answer(received)
    await room.take_answer(room.limits.max_body_bytes)
    while piece := await response.content.readany():
        received += len(piece)
        room.limits.check_answer(received)
        pieces.append(piece)
    room.shrink_answer(received)
    return b"".join(pieces)


def passed_on(response: aiohttp.ClientResponse, body: bytes, rules: HeaderRules) -> Answer:
    """The predictor's answer as its caller gets it."""
    status = response.status
    if status == 200:
        return Answer(200, body, to_caller(response.raw_headers, rules))
    if 300 <= status < 400:
        return refusal(502, f"the predictor answered with a redirect ({status})")
    if not 200 <= status < 600:  # no caller could be sent it
        return refusal(502, f"the predictor answered with status {status}, which HTTP has not")
    error = None if status < 300 else error_text(body, status)
    return Answer(status, body, to_caller(response.raw_headers, rules), error)


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
