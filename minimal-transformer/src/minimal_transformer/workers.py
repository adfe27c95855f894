"""The REST server: one process, or KServe's worker processes, with our endpoints in front."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from kserve import errors, model_server
from kserve.logging import logger
from kserve.protocol.rest.multiprocess.server import RESTServerMultiProcess, RESTServerProcess
from kserve.protocol.rest.server import RESTServer

from minimal_transformer import logs
from minimal_transformer.endpoints.closed import (
    ClosedRepository,
    RepositoryClosed,
    TruthfulDataPlane,
)
from minimal_transformer.endpoints.rest import InferenceEndpoints
from minimal_transformer.server_settings import ServerSettings
from minimal_transformer.transformer import PersistTransformer

# A worker that reached the end of its grace period still writes its last records.
KILL_AFTER_GRACE_SECONDS = 8
# Without an answer for so long a worker hangs; until its first one it may still be starting.
HANG_SECONDS = 5.0
START_SECONDS = 120.0

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
        self._model = model
        self._settings = settings
        self._event_loop = args.event_loop
        self._log_config_file = args.log_config_file if args.configure_logging else None
        self._configures_logging = bool(args.configure_logging)

    @property
    def uvicorn_server(self) -> uvicorn.Server:
        """The server that runs in this process."""
        server: uvicorn.Server = self._server
        return server

    def create_application(self) -> None:
        """KServe's app with our endpoints in front; uvicorn serves the result."""
        super().create_application()
        app: Any = InferenceEndpoints(model_server.app, self._model, self._settings.access_log)
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
            logs.configure(self._settings.log_format, self._log_config_file)
        # Uvicorn raises the signal again once it has stopped; the default would end us there.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        self.create_application()
        with asyncio.Runner(loop_factory=loop_factory(self._event_loop)) as runner:
            runner.run(self._serve_worker(sockets))

    async def _serve_worker(self, sockets: list[socket.socket] | None) -> None:
        async with self._model.serving():
            await self._server.serve(sockets=sockets)


class RestWorkers(RESTServerMultiProcess):  # type: ignore[misc]
    """KServe's worker processes; one that dies or hangs is replaced and stalls nobody."""

    def __init__(self, server: RestServer) -> None:
        # KServe's own constructor would make a RESTServer of its own.
        self.log_config_file = server._log_config_file
        self._rest_server = server
        self._processes: list[RESTServerProcess] = []
        self._started: set[int] = set()
        self.should_exit = asyncio.Event()

    async def run(self, sockets: list[socket.socket]) -> None:
        """Keep the workers running until stop()."""
        self.init_processes(sockets)
        while not self.should_exit.is_set():
            await self.keep_subprocess_alive(sockets)
            try:
                await asyncio.wait_for(self.should_exit.wait(), timeout=0.5)
            except TimeoutError:
                continue
        for listener in sockets:
            listener.close()
        # Each worker has its own copy of the config: this is only how long we wait for them.
        self._rest_server.config.timeout_graceful_shutdown += KILL_AFTER_GRACE_SECONDS
        await self.terminate_all()

    async def keep_subprocess_alive(self, sockets: list[socket.socket]) -> None:
        """Replace the workers that are dead, or hang."""
        await asyncio.gather(*(self._check(i, sockets) for i in range(len(self._processes))))

    async def _check(self, index: int, sockets: list[socket.socket]) -> None:
        process = self._processes[index]
        if await self._answers(process) or self.should_exit.is_set():
            return
        process.kill()
        await process.wait_for_termination()
        replacement = RESTServerProcess(
            sockets, self._rest_server.run, log_config_file=self.log_config_file
        )
        replacement.start()
        self._processes[index] = replacement
        logger.warning("worker %s died; %s replaces it", process.pid, replacement.pid)

    async def _answers(self, process: RESTServerProcess) -> bool:
        """Whether a worker answers a ping; KServe's own wait for it would block the gRPC server.

        KServe also kills a worker that does not answer 5 s after its start, over and over where
        importing takes longer than that: a pod with little CPU never gets up.
        """
        seconds = HANG_SECONDS if process.pid in self._started else START_SECONDS
        deadline = time.monotonic() + seconds
        pipe = process._parent_conn
        pipe.send(b"ping")
        while process._process.is_alive() and time.monotonic() < deadline:
            if pipe.poll():
                pipe.recv()
                self._started.add(process.pid)
                return True
            if self.should_exit.is_set():
                return False
            await asyncio.sleep(0.05)
        return False


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
