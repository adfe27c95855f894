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
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, cast

import uvicorn
from fastapi import FastAPI, Request, Response
from kserve import model_server
from kserve.protocol.rest.server import RESTServer
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minimal_transformer import logs
from minimal_transformer.endpoints.closed import ClosedRepository, TruthfulDataPlane
from minimal_transformer.exchange import Answer, Arrival, RawHeaders, Route
from minimal_transformer.failures import STATUS_BY_FAILURE, answer_to
from minimal_transformer.settings import ServerSettings
from minimal_transformer.streaming import CallerLeft, Streaming
from minimal_transformer.transformer import PersistTransformer

log = logging.getLogger(__name__)

# It has this line for each stream that is cut off on purpose; the record says so already.
logging.getLogger("uvicorn.error").addFilter(
    lambda line: line.msg != "ASGI callable returned without completing response."
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


# Of a stream, as much as is written at once.
_SLICE_BYTES = 64 * 1024
# What is still to be sent on a connection that is closed has so long.
_LINGER_SECONDS = 30.0
_STEPS = frozenset({".", ".."})


class InferenceEndpoints:
    """An ASGI app that answers this model's inference calls and leaves the rest to KServe's app."""

    def __init__(self, kserve_app: App, model: PersistTransformer) -> None:
        self._kserve_app = kserve_app
        self._model = model
        self._answer = model.answer
        self._routes = {r.path: r for r in model.routes() if r.protocol != "grpc"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._serve_other(scope, receive, send)
        route = self._routes.get(scope["path"]) or self._passed_route(scope)
        if route is None:
            return await self._kserve_app(scope, receive, send)
        body = await _body(receive)
        if body is None:
            return None  # The caller left before it had sent the call.
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        arrival = Arrival(route, body, headers, scope["query_string"].decode("latin-1"))
        answer = await self._answer(arrival)
        if isinstance(answer, Streaming):
            return await self._stream(answer, receive, send)
        return await _send(answer, send)

    def _passed_route(self, scope: Scope) -> Route | None:
        """The route of a call that is passed on as it comes; its path is the predictor's to read.

        Not with steps up, by which it would leave the folder that was opened to callers.
        """
        if not _STEPS.isdisjoint(scope["path"].split("/")):
            return None
        return self._model.passed_route(scope["raw_path"].decode("latin-1"))

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is no call: OpenAI's list of models, and all that KServe's app serves."""
        path = scope.get("path", "")
        if scope["type"] == "http" and scope["method"] == "GET" and _lists_models(path):
            answer = await self._model.listed_models(path)
            if answer is not None:
                return await _send(answer, send)
        return await self._kserve_app(scope, receive, send)

    async def _stream(self, answer: Streaming, receive: Receive, send: Send) -> None:
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
        if answer.is_whole:
            await self._model.handler.durable()
            await send({"type": "http.response.body", "body": b""})


async def _send(answer: Answer, send: Send) -> None:
    length = (b"content-length", b"%d" % len(answer.body))
    await send(_start(answer.status, [*answer.headers, length]))
    await send({"type": "http.response.body", "body": answer.body})


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


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the caller left before its end."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message["body"])
    chunks = []
    while message["type"] == "http.request":
        chunks.append(message["body"])
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
    return None


class GatheringTransport:
    """A transport that sends what is written within one turn of the event loop at once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        # Read for each answer; what is read once for a connection goes through __getattr__.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold the data until this turn of the loop ends."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # A reader that takes nothing would have the connection stay for ever.
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self.is_closing():
            self._transport.writelines(held)


class OneWriteProtocol(HttpToolsProtocol):
    """Answers in one TCP segment; uvicorn writes head and body apart, in two system calls."""

    def connection_made(self, transport: Any) -> None:
        """Start on a new connection."""
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]


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
        self.config.http = OneWriteProtocol
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
