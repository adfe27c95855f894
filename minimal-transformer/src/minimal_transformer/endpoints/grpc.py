"""The gRPC server: KServe's service, with inference on the messages' wire form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent import futures
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from kserve.errors import ModelNotFound
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer

from minimal_transformer.endpoints.closed import ClosedRepository, TruthfulDataPlane
from minimal_transformer.exchange import Answer, Arrival, Route
from minimal_transformer.failures import RepositoryClosed, code_of
from minimal_transformer.transformer import PersistTransformer

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# Options of gRPC that are arguments of KServe.
_LENGTH_LIMITS = ("max_send_message_length", "max_receive_message_length")


class PortTaken(OSError):
    """A port that another process listens on."""


class ClosedServicer(InferenceServicer):  # type: ignore[misc]
    """KServe's service without the calls that change the model repository."""

    async def RepositoryModelLoad(self, request: Any, context: Any) -> NoReturn:  # noqa: N802
        """Always refuse."""
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(RepositoryClosed()))
        raise AssertionError

    RepositoryModelUnload = RepositoryModelLoad


class InferOnWire(aio.ServerInterceptor):  # type: ignore[misc]
    """Gives the bytes of a ModelInfer call to the model and sends the bytes of its answer."""

    def __init__(self, model: PersistTransformer) -> None:
        self._model = model
        self._route: Route = next(r for r in model.routes() if r.protocol == "grpc")
        # Without (de)serializers gRPC passes the messages as the bytes that they are on the wire.
        self._handler = grpc.unary_unary_rpc_method_handler(self._infer)
        # A caller that leaves cancels its handler; the call goes on here and is recorded.
        self.running: set[asyncio.Task[Answer]] = set()

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Take ModelInfer; leave every other method to KServe."""
        if handler_call_details.method == MODEL_INFER:
            return self._handler
        return await continuation(handler_call_details)

    async def _answer(self, arrival: Arrival) -> Answer:
        return cast(Answer, await self._model.answer(arrival))  # a v2 answer never streams

    async def _infer(self, wire: bytes, context: Any) -> bytes:
        name = _model_name(wire)
        if name is not None and name != self._model.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(ModelNotFound(name)))
        arrival = Arrival(self._route, wire, _headers(context))
        task = asyncio.create_task(self._answer(arrival))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        answer = await asyncio.shield(task)
        if answer.status != 200:
            await context.abort(code_of(answer.status), answer.error or f"status {answer.status}")
        return answer.body


class GrpcServer:
    """KServe's gRPC service on a port; calls in flight finish when it stops."""

    def __init__(
        self, model: PersistTransformer, data_plane: TruthfulDataPlane, options: dict[str, Any]
    ) -> None:
        self._inference = InferOnWire(model)
        self._data_plane = data_plane
        self._options = options
        self._server: aio.Server | None = None

    async def start(self) -> None:
        """Serve; PortTaken when the port is in use."""
        server = aio.server(
            futures.ThreadPoolExecutor(max_workers=self._options["max_threads"]),
            interceptors=(self._inference, ExceptionToStatusInterceptor()),
            options=[
                *((f"grpc.{name}", self._options[f"grpc_{name}"]) for name in _LENGTH_LIMITS),
                # Without it a second server shares the port, and half of the calls go there.
                ("grpc.so_reuseport", 0),
            ],
        )
        repository = ClosedRepository(self._data_plane.model_registry)
        servicer = ClosedServicer(self._data_plane, repository)
        add_GRPCInferenceServiceServicer_to_server(servicer, server)
        port = self._options["grpc_port"]
        try:
            server.add_insecure_port(f"[::]:{port}")
        except RuntimeError:
            raise PortTaken(f"--grpc_port {port} is in use; free it or set another.") from None
        await server.start()
        self._server = server

    async def stop(self, grace_seconds: float) -> None:
        """Take no new call, let those in flight finish, then end them; each has its record."""
        if self._server is None:
            return
        deadline = time.monotonic() + grace_seconds
        await self._server.stop(grace_seconds)
        # What callers left behind has no RPC any more, so the server does not wait for it.
        left = deadline - time.monotonic()
        if self._inference.running and left > 0:
            await asyncio.wait(self._inference.running, timeout=left)
        for task in self._inference.running:
            task.cancel()
        if self._inference.running:
            await asyncio.wait(self._inference.running)


def _model_name(wire: bytes) -> str | None:
    """The model that a message names; None for an unreadable one, whose answer will say so."""
    try:
        name: str = pb.ModelInferRequest.FromString(wire).model_name
    except DecodeError:
        return None
    return name


def _headers(context: Any) -> dict[str, str]:
    """The call's metadata as headers; binary values (-bin) are not text and stay out."""
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
