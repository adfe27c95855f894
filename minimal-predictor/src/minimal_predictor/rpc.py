"""The gRPC side: KServe's server, which names a caller's mistake and keeps it out of the log."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc import ServicerContext, StatusCode, aio
from kserve.constants.constants import GRPC_CONTENT_DATATYPE_MAPPINGS
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer

from minimal_predictor.bad_input import BadInput, show

# FP16 has no typed contents in the protocol; it comes in raw_input_contents.
KNOWN_DATATYPES = frozenset(GRPC_CONTENT_DATATYPE_MAPPINGS) | {"FP16"}

CODE_OF_MISTAKE: Mapping[type[Exception], StatusCode] = {
    BadInput: StatusCode.INVALID_ARGUMENT,
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    ModelNotFound: StatusCode.NOT_FOUND,
    ModelNotReady: StatusCode.UNAVAILABLE,
}


class QuietGRPCServer(GRPCServer):
    """KServe's gRPC server without a log line per call, on a port of its own."""

    async def start(self, max_workers: int) -> None:
        """Serve until stopped."""
        self._server = aio.server(
            ThreadPoolExecutor(max_workers=max_workers),
            interceptors=(MistakesToStatus(),),
            options=[
                ("grpc.max_send_message_length", self._kwargs["grpc_max_send_message_length"]),
                (
                    "grpc.max_receive_message_length",
                    self._kwargs["grpc_max_receive_message_length"],
                ),
                # Otherwise a second server binds the same port and each gets some of the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        add_GRPCInferenceServiceServicer_to_server(
            NamingServicer(self._data_plane, self._model_repository_extension), self._server
        )
        self._server.add_insecure_port(f"[::]:{self._port}")
        await self._server.start()
        await self._server.wait_for_termination()


class NamingServicer(InferenceServicer):
    """KServe's servicer; a datatype that KServe cannot read is named with its position."""

    async def ModelInfer(  # noqa: N802 - the name in the protocol
        self, request: ModelInferRequest, context: ServicerContext
    ) -> ModelInferResponse:
        """The answer of the model."""
        if not request.inputs:
            raise BadInput("inputs is an empty list; send at least one tensor.")
        for i, tensor in enumerate(request.inputs):
            if tensor.datatype not in KNOWN_DATATYPES:
                known = ", ".join(sorted(KNOWN_DATATYPES))
                raise BadInput(
                    f"inputs[{i}].datatype is {show(tensor.datatype)}; send one of {known}."
                )
        return await super().ModelInfer(request, context)


class MistakesToStatus(ExceptionToStatusInterceptor):
    """A caller's mistake becomes its status without a stack trace; the rest is KServe's."""

    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: ServicerContext, method_name: str
    ) -> None:
        """Abort the call with the status that fits the exception."""
        code = CODE_OF_MISTAKE.get(type(ex))
        if code is not None:
            await context.abort(code, str(ex))
        await super().handle_exception(ex, request_or_iterator, context, method_name)
