"""Wiring: settings and arguments into a running transformer, and its orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minimal_transformer import logs
from minimal_transformer.endpoints.infer_rpc import GrpcServer, PortTaken
from minimal_transformer.options import DefaultPort, Options
from minimal_transformer.rest_server import RestServer, loop_factory
from minimal_transformer.server_settings import ServerSettings
from minimal_transformer.settings import SettingsError
from minimal_transformer.transformer import PersistTransformer
from minimal_transformer.workers import RestWorkers

log = logging.getLogger(__name__)

USAGE_ERROR = 2


def serve(
    make_model: type[PersistTransformer] = PersistTransformer, argv: Sequence[str] | None = None
) -> int:
    """Run the transformer until SIGTERM or SIGINT; the process's exit code."""
    try:
        options = Options.read(argv)
    except SettingsError as failure:
        print(failure, file=sys.stderr)
        return USAGE_ERROR
    args = options.args
    if args.configure_logging:
        logs.configure(options.server.log_format, args.log_config_file)
    model = make_model(args.model_name, options.records, options.predictor)
    model.enable_latency_logging = args.enable_latency_logging
    model.logs_calls = options.server.access_log
    model.load()
    try:
        return TransformerServer(model, options.server, args).run()
    except PortTaken as failure:
        print(failure, file=sys.stderr)
        return 1


class TransformerServer:
    """KServe's REST and gRPC servers around one model, started and stopped in order.

    kserve.ModelServer closes the predictor's client before gRPC has drained, never uses uvloop
    with one worker and lets go of the model first; so its parts are put together here.
    """

    def __init__(self, model: PersistTransformer, settings: ServerSettings, args: Any) -> None:
        self._model = model
        self._settings = settings
        self._args = args
        self._rest = RestServer(model, settings, args, args.workers)
        self._grpc = GrpcServer(model, self._rest.dataplane, args.grpc_port, vars(args))
        self._stopping: asyncio.Event
        self._serves_grpc = False

    def run(self) -> int:
        """Serve until a signal; then finish the calls in flight and deliver the spool."""
        listener = _listen("http_port", self._rest.config.port)
        self._serves_grpc = self._args.enable_grpc and self._grpc_port_is_free()
        # Uvicorn puts its own handlers over these while it serves, and raises the signal again.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._rest.stop_soon)
        handler = self._model.recording.handler
        handler.start_delivery()
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._args.event_loop)) as runner:
                return runner.run(self._serve(listener))
        finally:
            handler.stop_delivery(self._settings.shutdown_drain_seconds)
            log.info("stopped")

    def _grpc_port_is_free(self) -> bool:
        """Whether to serve gRPC: beside a predictor on KServe's default port only when asked to."""
        port = self._args.grpc_port
        try:
            _listen("grpc_port", port).close()
        except PortTaken:
            if not isinstance(port, DefaultPort):
                raise
            log.warning("gRPC is off: its default port %d is in use; set --grpc_port.", port)
            return False
        return True

    async def _serve(self, listener: socket.socket) -> int:
        self._stopping = asyncio.Event()
        if self._args.max_asyncio_workers:
            threads = ThreadPoolExecutor(self._args.max_asyncio_workers)
            asyncio.get_running_loop().set_default_executor(threads)
        async with self._model.serving():
            if self._serves_grpc:
                await self._grpc.start()
            run_rest = self._run_workers if self._args.workers > 1 else self._run_alone
            async with asyncio.TaskGroup() as group:
                group.create_task(run_rest(listener))
                group.create_task(self._stop_grpc())
        return 0

    async def _run_alone(self, listener: socket.socket) -> None:
        self._rest.create_application()
        server = self._rest.uvicorn_server
        serving = asyncio.create_task(self._rest.serve([listener]))
        # Uvicorn owns the signals while it serves, and tells of them in this flag alone.
        while not (server.should_exit or serving.done()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        self._stopping.set()
        await serving

    async def _run_workers(self, listener: socket.socket) -> None:
        workers = RestWorkers(self._rest)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            workers.should_exit.set()
            self._stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if self._rest.uvicorn_server.should_exit:
            stop()  # A signal came while we started.
        await workers.run([listener])

    async def _stop_grpc(self) -> None:
        await self._stopping.wait()
        await self._grpc.stop(self._settings.shutdown_grace_seconds)


def _listen(argument: str, port: int) -> socket.socket:
    """A socket bound to the port; PortTaken when another process has it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104  a pod's server is for its network
    except OSError as failure:
        listener.close()
        raise PortTaken(
            f"--{argument} {port} cannot be used ({failure.strerror}); free it or set another."
        ) from None
    listener.set_inheritable(True)
    return listener
