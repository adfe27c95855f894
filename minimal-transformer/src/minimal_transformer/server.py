"""Wiring: settings and arguments into a running transformer, and its orderly end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from kserve import context, model_server
from kserve.constants.constants import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, DEFAULT_HTTPS_PORT
from kserve.predictor_config import PredictorConfig
from kserve.protocol.rest.multiprocess.server import RESTServerMultiProcess, RESTServerProcess

from minimal_transformer import logs
from minimal_transformer.delivery.supervisor import DeliveryProcess
from minimal_transformer.endpoints.grpc import GrpcServer, PortTaken
from minimal_transformer.endpoints.rest import RestServer, loop_factory
from minimal_transformer.settings import (
    DefaultTimeout,
    HookSettings,
    PredictorSettings,
    RecordSettings,
    ServerSettings,
    SettingsError,
)
from minimal_transformer.transformer import PersistTransformer

log = logging.getLogger(__name__)

USAGE_ERROR = 2
# Far more than connections are allowed.
MAX_DESCRIPTORS = 65536
# KServe's.
DEFAULT_TIMEOUT_SECONDS = 600
# Longer than what calls us keeps an idle connection: Envoy an hour, Knative's queue-proxy 90 s.
# A call sent over a connection just as we close it, as KServe does after 65 s, gets no answer, and
# a mirrored copy is lost.
KEEP_ALIVE_SECONDS = 3660
# A worker that reached the end of its grace period still writes its last records.
KILL_AFTER_GRACE_SECONDS = 8
# Without an answer for so long a worker hangs; until its first one it may still be starting.
HANG_SECONDS = 5.0
START_SECONDS = 120.0


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
    try:
        model.use_hooks(options.hooks)
    except SettingsError as failure:
        print(failure, file=sys.stderr)
        return USAGE_ERROR
    model.enable_latency_logging = args.enable_latency_logging
    model.logs_calls = options.server.access_log
    model.load()
    try:
        return TransformerServer(model, options).run()
    except PortTaken as failure:
        print(failure, file=sys.stderr)
        return 1


class TransformerServer:
    """KServe's REST and gRPC servers around one model, started and stopped in order.

    kserve.ModelServer closes the predictor's client before gRPC has drained, never uses uvloop
    with one worker and lets go of the model first; so its parts are put together here.
    """

    def __init__(self, model: PersistTransformer, options: Options) -> None:
        self._model = model
        self._settings = options.server
        self._args = args = options.args
        self._delivery = DeliveryProcess(options.records, model.handler.counters_folder)
        self._rest = RestServer(model, options.server, args)
        self._grpc = GrpcServer(model, self._rest.dataplane, vars(args))
        self._stopping: asyncio.Event
        self._serves_grpc = False

    def run(self) -> int:
        """Serve until a signal; then finish the calls in flight and deliver the spool."""
        listener = _listen("http_port", self._rest.config.port)
        self._serves_grpc = self._args.enable_grpc and self._grpc_port_is_free()
        _raise_descriptor_limit()
        # Uvicorn puts its own handlers over these while it serves, and raises the signal again.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._rest.stop_soon)
        # Before delivery counts there.
        self._model.handler.claim_counters()
        self._delivery.start()
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._args.event_loop)) as runner:
                return runner.run(self._serve(listener))
        finally:
            self._delivery.stop(self._settings.shutdown_drain_seconds)
            log.info("stopped")

    def _grpc_port_is_free(self) -> bool:
        """Whether to serve gRPC: where KServe's default port is in use, only when it was set."""
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
        # Uvicorn owns the signals while it serves, and shows them in this flag alone.
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


class RestWorkers(RESTServerMultiProcess):  # type: ignore[misc]
    """KServe's worker processes; one that dies or hangs is replaced and stalls nobody."""

    def __init__(self, server: RestServer) -> None:
        # KServe's own constructor would make a RESTServer of its own.
        self.log_config_file = server.log_config_file
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
        log.warning("worker %s died; %s replaces it", process.pid, replacement.pid)

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


class DefaultPort(int):
    """A port that nobody set."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a server is made from."""

    args: argparse.Namespace
    records: RecordSettings
    server: ServerSettings
    hooks: HookSettings
    predictor: PredictorSettings

    @classmethod
    def read(cls, argv: Sequence[str] | None) -> Self:
        """The options, or SettingsError with a line for each bad one."""
        args = _arguments(argv)
        found: list[Any] = []
        problems: list[str] = []
        for read in (
            RecordSettings.from_environment,
            ServerSettings.from_environment,
            HookSettings.from_environment,
            partial(PredictorSettings.of, args),
        ):
            try:
                found.append(read())
            except SettingsError as failure:
                problems.append(str(failure))
        if problems:
            raise SettingsError("\n".join(problems))
        return cls(args, *found)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="minimal-transformer",
        description="Forwards each call to the predictor and records it in Postgres. "
        "POSTGRES_URI and SHADOW_ROLE must be set; see README.md for the other variables.",
        parents=[model_server.parser],
        allow_abbrev=False,
    )
    # KServe logs a line per call by default; ACCESS_LOG=1 does it with the pair id.
    parser.set_defaults(
        enable_latency_logging=False,
        grpc_port=DefaultPort(DEFAULT_GRPC_PORT),
        predictor_request_timeout_seconds=DefaultTimeout(DEFAULT_TIMEOUT_SECONDS),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    parser.add_argument(
        "--check", action="store_true", help="only read the arguments; nothing is started"
    )
    args = parser.parse_args(argv)
    if args.check:
        parser.exit()
    if args.ssl_certfile and args.ssl_keyfile and args.http_port == DEFAULT_HTTP_PORT:
        args.http_port = DEFAULT_HTTPS_PORT
    # A KServe model reads its predictor's address there.
    context.set_predictor_config(
        PredictorConfig(
            args.predictor_host,
            args.predictor_protocol,
            args.predictor_use_ssl,
            args.predictor_request_timeout_seconds,
            args.predictor_request_retries,
            args.enable_predictor_health_check,
        )
    )
    return args


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: the usual soft limit is for select()'s sake."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
