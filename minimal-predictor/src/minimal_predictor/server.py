"""KServe's own server around any model, closed: no caller can load or unload it."""

import asyncio
import socket
import sys
from typing import Any, NoReturn

import orjson
import uvloop
from fastapi.responses import JSONResponse
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve import ModelServer, model_server
from kserve.errors import InvalidInput
from kserve.model import BaseKServeModel
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

# Longer than a proxy before us keeps an idle connection (Envoy an hour, Knative's queue-proxy
# 90 s): a call that comes in the moment that we close it, as KServe does after 65 s, is lost.
model_server.parser.set_defaults(timeout_keep_alive=3660)


class RepositoryClosed(GrpcException):
    """Answered with 403 over REST and PERMISSION_DENIED over gRPC."""

    status_code = StatusCode.PERMISSION_DENIED
    details = "loading and unloading models is closed; deploy another version instead."


class ClosedRepository(ModelRepositoryExtension):
    """Refuses to load and to unload; the served model stays as it was started."""

    async def load(self, model_name: str) -> NoReturn:
        """Raises RepositoryClosed, whatever the name."""
        raise RepositoryClosed

    async def unload(self, model_name: str) -> NoReturn:
        """Raises RepositoryClosed, whatever the name."""
        raise RepositoryClosed


class JsonDataPlane(DataPlane):
    """Reads a v1 body that is JSON as JSON, whatever its content type says."""

    def decode(
        self, body: Any, headers: Any, *more: Any, **named: Any
    ) -> tuple[Any, dict[str, Any]]:
        """The body as a model gets it: bytes only where it is not JSON, as an image is not.

        InvalidInput where it came with curl's own content type, which nobody chose.
        """
        decoded, attributes = super().decode(body, headers, *more, **named)
        if isinstance(decoded, bytes):
            try:
                decoded = orjson.loads(decoded)
            except orjson.JSONDecodeError as error:
                if headers["content-type"].startswith("application/x-www-form-urlencoded"):
                    raise InvalidInput(f"body is not JSON ({error}); send JSON.") from None
        return decoded, attributes


# At import, since KServe's worker processes import this module and call nothing in it.
model_server.app.add_exception_handler(
    RepositoryClosed, lambda *_: JSONResponse({"error": RepositoryClosed.details}, 403)
)


def serve(model: BaseKServeModel) -> None:
    """Serve the loaded model with KServe's arguments until SIGTERM; calls in flight finish."""
    arguments, _ = model_server.parser.parse_known_args()
    server = ModelServer(timeout_keep_alive=arguments.timeout_keep_alive)
    _require_free_port("http_port", server.http_port)
    if server.enable_grpc:
        _require_free_port("grpc_port", server.grpc_port)
    server.dataplane = JsonDataPlane(server.registered_models)
    server.model_repository_extension = ClosedRepository(server.registered_models)
    # One worker runs on the loop that is current here; `--event-loop` reaches only more workers.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
    server.start([model])


def _require_free_port(argument: str, port: int) -> None:
    """Exit in one line when the port is taken: two gRPC servers would share it and its calls."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - where KServe will listen
        except OSError as error:
            sys.exit(f"--{argument} {port} cannot be used ({error.strerror}); choose another.")
