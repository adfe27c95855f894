"""The gRPC server: KServe's service, with inference on the messages' wire form."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent import futures
from typing import Any, NoReturn

import grpc
import orjson
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
from minimal_transformer.exchange import Answer, Arrival, Refused, Route, combined
from minimal_transformer.failures import RepositoryClosed, code_of
from minimal_transformer.limits import (
    SILENT_SECONDS,
    SLOW_START_SECONDS,
    SMALL_BYTES,
    NoRoom,
    Pool,
    Room,
    TooLarge,
    TooSlow,
)
from minimal_transformer.predictor.v2 import metadata_message
from minimal_transformer.transformer import PersistTransformer

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# Options of gRPC that are arguments of KServe.
# Messages that are received at the same time; the others wait with their callers.
RECEIVED_AT_ONCE = 8
# The wire form, the parsed message, and its form for the tables or for a REST predictor.
COPIES_OF_A_MESSAGE = 4
MAX_DETAILS_BYTES = 2000
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

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What the predictor says; KServe's own answer names no inputs."""
        model = self._data_plane.model_registry.get_model(request.name)
        if model is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(ModelNotFound(request.name)))
        answer = await model.metadata(request.version)
        if answer.status != 200:
            await context.abort(code_of(answer.status), details_of(answer))
        try:
            return metadata_message(orjson.loads(answer.body))
        except ValueError as failure:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(failure))
            raise AssertionError from None


class InferOnWire(aio.ServerInterceptor):  # type: ignore[misc]
    """Gives the bytes of a ModelInfer call to the model and sends the bytes of its answer."""

    def __init__(self, model: PersistTransformer, max_message_bytes: int) -> None:
        self._model = model
        self._route: Route = next(r for r in model.routes() if r.protocol == "grpc")
        # Without (de)serializers gRPC passes the messages as the bytes that they are on the wire.
        # Declared as a stream of requests, which looks the same on the wire, the call begins before
        # its message is received: gRPC leaves that with the caller until it is read here.
        self._handler = grpc.stream_unary_rpc_method_handler(self._infer)
        self._max_message_bytes = max_message_bytes
        self._receiving = Pool(RECEIVED_AT_ONCE * max_message_bytes)
        self._deadlines: dict[asyncio.Timeout, float] = {}
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

    async def _infer(self, _messages: Any, context: Any) -> bytes:
        room = Room(self._model.limits)
        holder = Holder(room)
        holder.hold_until_done(asyncio.current_task())
        answer = await self._answer(context, room, holder)
        if answer.status != 200:
            await context.abort(code_of(answer.status), details_of(answer))
        return answer.body

    async def _answer(self, context: Any, room: Room, holder: Holder) -> Answer:
        arrival = Arrival(self._route, b"", _headers(context), room=room)
        try:
            wire = await self._received(context, room)
        except (NoRoom, TooLarge, TooSlow) as failure:
            return await self._model.whole_answer(arrival._replace(refused=Refused(0, failure)))
        name, version = _model_of(wire)
        if name is not None and name != self._model.name:
            self._model.asked_for(name)
            await context.abort(grpc.StatusCode.NOT_FOUND, str(ModelNotFound(name)))
        route = self._model.v2_route("grpc", version) if version else self._route
        has_left = False
        arrival = arrival._replace(route=route, body=wire, has_left=lambda: has_left)
        task = asyncio.create_task(self._model.whole_answer(arrival))
        holder.hold_until_done(task)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            has_left = not task.done()
            raise

    async def _received(self, context: Any, room: Room) -> bytes:
        """The call's message; NoRoom, TooLarge or TooSlow."""
        size = self._max_message_bytes
        if self._receiving.free < size:
            self._hurry()
        if not await self._receiving.take(size):
            raise NoRoom
        try:
            wire = await self._read(context)
            room.limits.check_request(len(wire))
            if len(wire) <= SMALL_BYTES:
                room.take_small(len(wire))
            else:
                # Until then the message is here, in the place of one that could be received.
                await room.take_request(len(wire), COPIES_OF_A_MESSAGE)
            return wire
        finally:
            self._receiving.give_back(size)

    async def _read(self, context: Any) -> bytes:
        deadline = asyncio.timeout(SILENT_SECONDS)
        self._deadlines[deadline] = asyncio.get_running_loop().time()
        try:
            async with deadline:
                wire = await context.read()
        except TimeoutError:
            raise TooSlow from None
        finally:
            del self._deadlines[deadline]
        return b"" if wire is aio.EOF else bytes(wire)

    def _hurry(self) -> None:
        """Somebody has to wait: messages that come slowly have a moment left."""
        for deadline, started in self._deadlines.items():
            if not deadline.expired():
                deadline.reschedule(started + SLOW_START_SECONDS)


class Holder:
    """Keeps a call's room until the last task that works on it is done."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._tasks = 0

    def hold_until_done(self, task: asyncio.Task[Any] | None) -> None:
        """Not before this task is done either."""
        if task is not None:
            self._tasks += 1
            task.add_done_callback(self._one_is_done)

    def _one_is_done(self, _: object) -> None:
        self._tasks -= 1
        if not self._tasks:
            self._room.release()


class GrpcServer:
    """KServe's gRPC service on a port; calls in flight finish when it stops."""

    def __init__(
        self, model: PersistTransformer, data_plane: TruthfulDataPlane, options: dict[str, Any]
    ) -> None:
        longest, body = options["grpc_max_receive_message_length"], model.limits.max_body_bytes
        # gRPC's -1 means no limit.
        self._inference = InferOnWire(model, min(longest, body) if longest > 0 else body)
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
                # A message is let in when it is read, and not by what the network would carry.
                ("grpc.http2.bdp_probe", 0),
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


def _model_of(wire: bytes) -> tuple[str | None, str]:
    """The model and version that a message names; None if unreadable: its answer will say so."""
    try:
        message = pb.ModelInferRequest.FromString(wire)
    except DecodeError:
        return None, ""
    return message.model_name, message.model_version


def _headers(context: Any) -> dict[str, str]:
    """The call's metadata as headers; binary values (-bin) are not text and stay out."""
    pairs = context.invocation_metadata() or ()
    return combined((key, value) for key, value in pairs if isinstance(value, str))


def details_of(answer: Answer) -> str:
    """The words of a failed call as gRPC carries them: past 8 KiB a client gets another error.

    On the wire a byte that is not printable ASCII takes three.
    """
    text = answer.error or f"status {answer.status}"
    return text.encode()[:MAX_DETAILS_BYTES].decode("utf-8", "ignore")
