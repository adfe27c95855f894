"""The REST server of one process: KServe's, with our inference endpoints in front.

The body's bytes go in and the answer's bytes come out. KServe's own inference routes would decode
the body, lose the answer's bytes and change some statuses; its app serves every other path.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast
from urllib.parse import unquote

import uvicorn
from fastapi import FastAPI, Request, Response
from kserve import model_server
from kserve.protocol.rest.server import RESTServer

from minimal_transformer import logs
from minimal_transformer.endpoints.closed import ClosedRepository, TruthfulDataPlane
from minimal_transformer.endpoints.connections import (
    CALLER_LEFT,
    LARGE_ANSWER,
    PatientProtocol,
    connections_allowed,
)
from minimal_transformer.exchange import Answer, Arrival, RawHeaders, Refused, Route, combined
from minimal_transformer.failures import STATUS_BY_FAILURE, answer_to
from minimal_transformer.limits import (
    SMALL_BYTES,
    TINY_BYTES,
    NoRoom,
    Room,
    TooLarge,
    TooSlow,
)
from minimal_transformer.settings import ServerSettings
from minimal_transformer.streaming import CallerLeft, Streaming
from minimal_transformer.transformer import PersistTransformer

log = logging.getLogger(__name__)

# It has this line for each stream that is cut off on purpose; the record says so already.
logging.getLogger("uvicorn.error").addFilter(
    lambda line: line.msg != "ASGI callable returned without completing response."
)

# How often a body that others wait for is looked at.
LOOK_SECONDS = 1.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


# Of a stream, as much as is written at once.
_SLICE_BYTES = 64 * 1024
_STEPS = frozenset({".", ".."})
# An inference call of any model.
_CALLS = re.compile(
    r"/v1/models/([^/]+):(?:predict|explain)|/v2/models/([^/]+)(?:/versions/[^/]+)?/infer"
)


class InferenceEndpoints:
    """An ASGI app that answers this model's inference calls and leaves the rest to KServe's app."""

    def __init__(self, kserve_app: App, model: PersistTransformer) -> None:
        self._kserve_app = kserve_app
        self._model = model
        self._answer = model.answer
        self._routes = {unquote(r.path): r for r in model.routes() if r.protocol != "grpc"}
        self._versioned = re.compile(rf"/v2/models/{re.escape(model.name)}/versions/([^/]+)/infer")
        self._described = re.compile(rf"/v2/models/{re.escape(model.name)}(?:/versions/([^/]+))?")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._serve_other(scope, receive, send)
        route = self._routes.get(scope["path"]) or self._other_route(scope)
        if route is None:
            if (other := _CALLS.fullmatch(scope["path"])) is not None:
                self._model.asked_for(other[1] or other[2])
            return await self._kserve_app(scope, receive, send)
        headers = _headers(scope["headers"])
        room = Room(self._model.limits)
        query = scope["query_string"].decode("latin-1")
        refused = None
        try:
            try:
                body = await _body(receive, headers, room)
                if body is None:
                    return None  # The caller left before it had sent the call.
            except (NoRoom, TooLarge, TooSlow) as failure:
                body = b""
                refused = Refused(int(headers.get("content-length", 0)), failure)
            answer = await self._answer(
                Arrival(route, body, headers, query, room, lambda: CALLER_LEFT in scope, refused)
            )
            if isinstance(answer, Streaming):
                body = None
                room.release()  # a stream takes minutes, and nobody reads its prompt again
                await self._stream(answer, scope, receive, send)
            elif room.holds_large_answer:
                await _send_large(answer, scope, send)
            else:
                await _send(answer, send)
        finally:
            room.release()
        return None

    def _other_route(self, scope: Scope) -> Route | None:
        """The route of a path with a version, or a slash at its end, or that is passed on.

        What is passed on is the predictor's to read, but not with steps up, by which it would leave
        the folder that was opened to callers.
        """
        path = scope["path"].rstrip("/")
        if (versioned := self._versioned.fullmatch(path)) is not None:
            return self._model.v2_route("v2", versioned[1])
        if (known := self._routes.get(path)) is not None:
            return known
        if not _STEPS.isdisjoint(scope["path"].split("/")):
            return None
        return self._model.passed_route(scope["raw_path"].decode("latin-1"))

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """All but calls: the predictor's word on its models, and what KServe's app serves."""
        path = scope.get("path", "")
        if scope["type"] == "http" and scope["method"] == "GET":
            answer = None
            if _lists_models(path):
                answer = await self._model.listed_models(path)
            elif (described := self._described.fullmatch(path.rstrip("/"))) is not None:
                answer = await self._model.metadata(described[1] or "")
            if answer is not None:
                return await _send(answer, send)
        return await self._kserve_app(scope, receive, send)

    async def _stream(self, answer: Streaming, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a stream as it comes, and nothing more when its caller has left.

        A stream that was cut off ends without its end: the connection is closed, so that nobody
        takes what came for the whole.
        """
        with answer:
            async with _until_caller_leaves(answer, receive, self._model.patience_seconds):
                await send(_start(answer.status, answer.headers))
                async for chunk in answer:
                    await _send_piece(chunk[:_SLICE_BYTES], send)
                    for at in range(_SLICE_BYTES, len(chunk), _SLICE_BYTES):
                        # What is written within a turn is held until its end, and what stops a
                        # writer whose reader is slow does not see it before.
                        await asyncio.sleep(0)
                        await _send_piece(chunk[at : at + _SLICE_BYTES], send)
                    # What was held back for a caller that has just left would be read to its end
                    # before the listener's turn comes.
                    if CALLER_LEFT in scope:
                        raise CallerLeft
        if answer.is_whole:
            await self._model.handler.durable()
            await send({"type": "http.response.body", "body": b""})


async def _send(answer: Answer, send: Send) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    await send(_start(answer.status, [*answer.headers, length]))
    await send({"type": "http.response.body", "body": answer.body})


async def _send_large(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer that holds room; returns when the connection has taken all of it."""
    scope[LARGE_ANSWER] = True
    length = (b"content-length", b"%d" % len(answer.body))
    await send(_start(answer.status, [*answer.headers, length]))
    await _send_piece(answer.body, send)
    # Uvicorn keeps the second message back while the first is not written.
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


async def _send_piece(piece: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})


def _start(status: int, headers: RawHeaders) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _lists_models(path: str) -> bool:
    return path in ("/v1/models", "/openai/v1/models") or path.startswith("/openai/v1/models/")


@contextlib.asynccontextmanager
async def _until_caller_leaves(
    answer: Streaming, receive: Receive, patience_seconds: float
) -> AsyncIterator[None]:
    """Ends the block with CallerLeft when the caller closes the connection, or stops to read.

    Uvicorn's send() says nothing of a caller that has left, so somebody has to listen.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())
    has_left = False

    async def listen() -> None:
        nonlocal has_left
        while True:
            sent = answer.sent_bytes
            try:
                async with asyncio.timeout(patience_seconds):
                    message = await receive()
            except TimeoutError:
                if answer.sent_bytes != sent or not answer.is_sending:
                    continue
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                has_left = True
                task.cancel()
                return

    listener = asyncio.create_task(listen())
    try:
        yield
        if has_left:
            await asyncio.sleep(0)  # where the cancellation arrives that we have asked for
    except asyncio.CancelledError:
        # Only the one of ours: another one is the server's, and goes on.
        if has_left and not task.uncancel():
            raise CallerLeft from None
        raise
    finally:
        listener.cancel()


def _headers(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers by their lower-case names, each byte of a value as a character."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
    if len(headers) < len(pairs):
        return combined((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs)
    return headers


async def _body(receive: Receive, headers: Mapping[str, str], room: Room) -> bytes | None:
    """The whole body; None when the caller left before its end. NoRoom, TooLarge or TooSlow."""
    announced = headers.get("content-length")
    if announced is None:
        return await _chunked_body(receive, room)
    length = int(announced)
    if length > SMALL_BYTES:
        # Until then the connection is not read: what the caller has sent waits in the kernel.
        await room.take_request(length)
        return await _rest_of_body(receive, [], room)
    room.limits.check_request(length)
    if length > TINY_BYTES:
        room.take_small(length)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message["body"])
    return await _rest_of_body(receive, [message], room)


async def _chunked_body(receive: Receive, room: Room) -> bytes | None:
    """A body of unknown length: once it is not short, it has the room of the longest."""
    first: list[Message] = []
    received = 0
    while received <= SMALL_BYTES:
        first.append(message := await receive())
        received += len(message.get("body", b""))
        if not message.get("more_body"):
            if received > SMALL_BYTES:
                await room.take_request(received)
            else:
                room.take_small(received)
            return await _rest_of_body(receive, first, room)
    await room.take_request(room.limits.max_body_bytes)
    body = await _rest_of_body(receive, first, room)
    room.shrink_request(len(body or b""))
    return body


async def _rest_of_body(receive: Receive, first: list[Message], room: Room) -> bytes | None:
    """The body that begins with these messages."""
    started = time.monotonic()
    received = 0
    pieces: list[bytes] = []
    messages = iter(first)
    while True:
        message = next(messages, None) or await _next(receive, room, received, started)
        if message["type"] != "http.request":
            return None
        pieces.append(message["body"])
        received += len(message["body"])
        room.limits.check_request(received)
        if not message.get("more_body"):
            return b"".join(pieces)


async def _next(receive: Receive, room: Room, received: int, started: float) -> Message:
    """The body's next message; TooSlow when others wait for its room longer than it deserves."""
    while not room.is_too_slow(received, started):
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await receive()
        except TimeoutError:
            continue
    raise TooSlow


class RestServer(RESTServer):  # type: ignore[misc]
    """KServe's REST server in one process; it can be pickled to a worker until it runs."""

    def __init__(self, model: PersistTransformer, settings: ServerSettings, args: Any) -> None:
        registry = model_server.ModelRepository()
        registry.update(model)
        data_plane = TruthfulDataPlane(model_registry=registry)
        super().__init__(
            model_server.FASTAPI_APP_IMPORT_STRING,
            data_plane,
            ClosedRepository(registry),
            args.http_port,
            access_log_format=args.access_log_format,
            workers=args.workers,
            grace_period=settings.shutdown_grace_seconds,
            event_loop=args.event_loop,
            timeout_keep_alive=args.timeout_keep_alive,
            ssl_certfile=args.ssl_certfile,
            ssl_keyfile=args.ssl_keyfile,
        )
        # Uvicorn's access line knows no pair id; ours does.
        self.config.access_log = False
        # Nothing here reads the caller's address, so no call pays for finding it.
        self.config.proxy_headers = False
        self.config.http = PatientProtocol
        # An upgrade to WebSocket is one that we do not do either.
        self.config.ws = "none"
        self.config.limit_concurrency = connections_allowed(settings.max_connections)
        self._model = model
        self._settings = settings
        self._event_loop = args.event_loop
        self.log_config_file = args.log_config_file if args.configure_logging else None
        self._configures_logging = bool(args.configure_logging)

    @property
    def uvicorn_server(self) -> uvicorn.Server:
        """The server that runs in this process."""
        server: uvicorn.Server = self._server
        return server

    def create_application(self) -> None:
        """KServe's app with our endpoints in front; uvicorn serves the result."""
        super().create_application()
        app: Any = InferenceEndpoints(model_server.app, self._model)
        if self.access_log_format:
            from asgi_logger import AccessLoggerMiddleware  # noqa: PLC0415  KServe's logging extra

            app = AccessLoggerMiddleware(app, format=self.access_log_format)
        self.config.app = app

    def _add_middlewares(self, app: FastAPI) -> None:
        """None: KServe's times each call and logs two lines about it."""

    def _add_exception_handlers(self, app: FastAPI) -> None:
        """KServe's statuses, without a stack trace in the log for what a caller got wrong."""
        super()._add_exception_handlers(app)
        for kind in STATUS_BY_FAILURE:
            app.add_exception_handler(kind, _refuse)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """A worker process's whole life."""
        if self._configures_logging:
            logs.configure(self._settings.log_format, self.log_config_file)
        # Uvicorn raises the signal again once it has stopped; the default would end us there.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop_soon)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        self.create_application()
        with asyncio.Runner(loop_factory=loop_factory(self._event_loop)) as runner:
            runner.run(self._serve_worker(sockets))

    async def _serve_worker(self, sockets: list[socket.socket] | None) -> None:
        async with self._model.serving():
            await self.serve(sockets)

    def stop_soon(self, *_: object) -> None:
        """Stop as soon as possible; a signal handler for the time when uvicorn has none."""
        self._server.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None) -> None:
        """Serve until a signal, with uvicorn's handlers for it."""
        serving = asyncio.create_task(self._server.serve(sockets=sockets))
        # Uvicorn shows this in a flag alone.
        while not (self._server.started or serving.done()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        log.info("serving model %s on port %d", self._model.name, self.config.port)
        await serving


def _end_with_parent() -> None:
    """Stop this worker when its parent was killed; nobody else would, and it holds the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def loop_factory(event_loop: str) -> Any:
    """What makes an event loop for --event-loop: uvloop unless it is asyncio."""
    if event_loop == "asyncio":
        return None
    import uvloop  # noqa: PLC0415  not available for Windows

    return uvloop.new_event_loop


async def _refuse(request: Request, failure: Exception) -> Response:
    answer = answer_to(failure)
    return Response(answer.body, answer.status, media_type="application/json")
