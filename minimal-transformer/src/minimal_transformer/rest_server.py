"""The REST server of one process: KServe's, with our endpoints in front."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from kserve import errors, model_server
from kserve.protocol.rest.server import RESTServer

from minimal_transformer import logs
from minimal_transformer.endpoints.closed import (
    ClosedRepository,
    RepositoryClosed,
    TruthfulDataPlane,
)
from minimal_transformer.endpoints.one_write import OneWriteProtocol
from minimal_transformer.endpoints.rest import InferenceEndpoints
from minimal_transformer.server_settings import ServerSettings
from minimal_transformer.transformer import PersistTransformer

log = logging.getLogger(__name__)

_STATUS_BY_FAILURE: dict[type[Exception], int] = {
    errors.InvalidInput: 400,
    errors.ModelNotFound: 404,
    errors.ModelNotReady: 503,
    errors.ServerNotReady: 503,
    errors.ServerNotLive: 503,
    errors.UnsupportedProtocol: 501,
    NotImplementedError: 501,
    RepositoryClosed: 403,
}


class RestServer(RESTServer):  # type: ignore[misc]
    """KServe's REST server in one process; it can be pickled to a worker until it runs."""

    def __init__(
        self, model: PersistTransformer, settings: ServerSettings, args: Any, workers: int
    ) -> None:
        data_plane = TruthfulDataPlane(model_registry=_registry(model))
        super().__init__(
            model_server.FASTAPI_APP_IMPORT_STRING,
            data_plane,
            ClosedRepository(data_plane.model_registry),
            args.http_port,
            access_log_format=args.access_log_format,
            workers=workers,
            grace_period=settings.shutdown_grace_seconds,
            event_loop=args.event_loop,
            timeout_keep_alive=args.timeout_keep_alive,
            ssl_certfile=args.ssl_certfile,
            ssl_keyfile=args.ssl_keyfile,
        )
        # Uvicorn's access line knows no pair id; ours does.
        self.config.access_log = False
        # Nothing here asks for the caller's address, so no call pays for finding it.
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
        for kind in _STATUS_BY_FAILURE:
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
        # Uvicorn tells of this in a flag alone.
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
    """What makes an event loop for --event-loop: uvloop unless asyncio is asked for."""
    if event_loop == "asyncio":
        return None
    import uvloop  # noqa: PLC0415  there is none for Windows

    return uvloop.new_event_loop


def _registry(model: PersistTransformer) -> Any:
    registry = model_server.ModelRepository()
    registry.update(model)
    return registry


async def _refuse(request: Request, failure: Exception) -> JSONResponse:
    status = next(s for kind, s in _STATUS_BY_FAILURE.items() if isinstance(failure, kind))
    return JSONResponse(status_code=status, content={"error": str(failure)})
