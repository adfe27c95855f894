"""Puts a model behind KServe's server: quiet, closed to load and unload, on uvloop."""

import asyncio
import socket
import sys

import uvloop
from kserve import Model, ModelServer, model_server
from kserve.protocol.rest.multiprocess import server as multiprocess

from minimal_predictor.closed import ClosedRepository, FixedModels
from minimal_predictor.rest import QuietRESTServer
from minimal_predictor.rpc import QuietGRPCServer
from minimal_predictor.workers import PatientProcess

# KServe has no argument for these; it looks them up by these names when it starts.
model_server.RESTServer = QuietRESTServer
model_server.GRPCServer = QuietGRPCServer
multiprocess.RESTServer = QuietRESTServer
multiprocess.RESTServerProcess = PatientProcess

# Longer than a proxy before us keeps one that is idle (Envoy an hour, Knative's queue-proxy 90 s).
# A call that comes in the moment that we close it, as KServe does after 65 s, gets no answer.
KEEP_ALIVE_SECONDS = 3660


def serve(model: Model, keep_alive_seconds: int = KEEP_ALIVE_SECONDS) -> None:
    """Serve the loaded model until SIGTERM or Ctrl-C; calls in flight finish, then it stops."""
    server = ModelServer(registered_models=FixedModels(), timeout_keep_alive=keep_alive_seconds)
    _require_free_ports(server)
    server.model_repository_extension = ClosedRepository(server.registered_models)
    # One worker runs on the loop that is current here; `--event-loop` reaches only more workers.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
    server.start([model])
    model.stop()


def _require_free_ports(server: ModelServer) -> None:
    """End the start in one line when a port is taken, before anything listens."""
    ports = {"http_port": server.http_port}
    if server.enable_grpc:
        ports["grpc_port"] = server.grpc_port
    for argument, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104 - where KServe will listen
            except OSError as error:
                sys.exit(f"--{argument} {port} cannot be used ({error.strerror}); choose another.")
