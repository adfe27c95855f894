"""The hop to a predictor that speaks gRPC: the message's wire form both ways.

KServe's own client decodes and encodes each message, breaks every call with one retry and
ignores the CA bundle (facts: docs/decisions.md); a channel that passes bytes does none of it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import grpc
import orjson
from grpc import aio
from kserve.protocol.grpc.grpc_predict_v2_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
)

from minimal_transformer.exchange import JSON_HEADERS, Answer, Arrival
from minimal_transformer.failures import refusal, status_of
from minimal_transformer.predictor import (
    READY_SECONDS,
    Failing,
    UnknownModel,
    Unreachable,
    to_predictor,
)
from minimal_transformer.predictor.v2 import (
    grpc_from_rest_request,
    metadata_document,
    rest_from_grpc_response,
)
from minimal_transformer.settings import PredictorSettings

log = logging.getLogger(__name__)

SERVICE = "/inference.GRPCInferenceService"

# Headers that describe a REST body mean nothing next to a gRPC message.
_REST_ONLY = ("accept", "content-type", "content-encoding", "inference-header-content-length")


class GrpcPredictor:
    """Forwards calls to a gRPC predictor; its code reaches the caller as the same status."""

    def __init__(self, settings: PredictorSettings) -> None:
        self._settings = settings
        self._unreachable = Unreachable(settings.host)
        self._failing = Failing(settings.host, settings.quotes_errors)
        self._unknown_model = UnknownModel(settings.host, settings.model_name)
        self._channel: aio.Channel
        self._infer: Any = None
        self._ready: Any = None
        self._metadata: Any = None

    async def open(self) -> None:
        settings = self._settings
        target = str(settings.host)
        if ":" not in target:
            target = f"{target}:{443 if settings.use_tls else 80}"
        options = _options(settings)
        if settings.use_tls:
            self._channel = aio.secure_channel(target, _credentials(settings), options=options)
        else:
            self._channel = aio.insecure_channel(target, options=options)
        self._infer = self._channel.unary_unary(f"{SERVICE}/ModelInfer")
        self._ready = self._channel.unary_unary(
            f"{SERVICE}/ModelReady",
            request_serializer=ModelReadyRequest.SerializeToString,
            response_deserializer=ModelReadyResponse.FromString,
        )

        self._metadata = self._channel.unary_unary(
            f"{SERVICE}/ModelMetadata",
            request_serializer=ModelMetadataRequest.SerializeToString,
            response_deserializer=ModelMetadataResponse.FromString,
        )

    async def close(self) -> None:
        await self._channel.close()

    async def forward(self, arrival: Arrival) -> Answer:
        if arrival.route.protocol == "grpc":
            return await self._call(arrival.body, arrival)
        if arrival.route.protocol == "v1":
            return refusal(
                400, "the predictor speaks the v2 protocol only; call /v2/models/…/infer"
            )
        wire = grpc_from_rest_request(
            arrival.body,
            arrival.headers,
            self._settings.model_name,
            arrival.route.model_version,
        )
        answer = await self._call(wire, arrival)
        return rest_from_grpc_response(answer.body, wire) if answer.status == 200 else answer

    async def metadata(self, version: str) -> Answer:
        timeout = min(READY_SECONDS, self._settings.timeout_seconds)
        request = ModelMetadataRequest(name=self._settings.model_name, version=version)
        try:
            response = await self._metadata(request, timeout=timeout)
        except aio.AioRpcError as failure:
            return self._failed(failure)
        return Answer(200, orjson.dumps(metadata_document(response)), JSON_HEADERS)

    async def is_ready(self) -> bool:
        timeout = min(READY_SECONDS, self._settings.timeout_seconds)
        request = ModelReadyRequest(name=self._settings.model_name)
        try:
            response = await self._ready(request, timeout=timeout)
        except aio.AioRpcError as failure:
            self._log_state(failure)
            if failure.code() is grpc.StatusCode.NOT_FOUND:
                self._unknown_model.met()
            return False
        self._unreachable.passed()
        self._unknown_model.passed()
        return bool(response.ready)

    async def _call(self, wire: bytes, arrival: Arrival) -> Answer:
        # gRPC has no form for a text that is not ASCII, and takes a name with -bin for bytes.
        metadata = tuple(
            (name, value)
            for name, value in to_predictor(arrival.headers, self._settings).items()
            if name not in _REST_ONLY
            and value.isascii()
            and value.isprintable()
            and not name.endswith("-bin")
        )
        try:
            body = await self._infer(
                wire, timeout=self._settings.timeout_seconds, metadata=metadata
            )
        except aio.AioRpcError as failure:
            self._log_state(failure)
            answer = self._failed(failure)
            if failure.code() is not grpc.StatusCode.UNAVAILABLE:
                self._failing.saw(answer)
            return answer
        self._unreachable.passed()
        answer = Answer(200, body, [])
        self._failing.saw(answer)
        return answer

    def _log_state(self, failure: aio.AioRpcError) -> None:
        """Have the log say whether there is a predictor at all."""
        if failure.code() is grpc.StatusCode.UNAVAILABLE:
            self._unreachable.met(str(failure.details()))
        elif failure.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            self._unreachable.passed()

    def _failed(self, failure: aio.AioRpcError) -> Answer:
        """A predictor's refusal with its own words; ours, without addresses, where it is away."""
        log.debug("call to %s failed: %r", self._settings.host, failure)
        code = failure.code()
        if code is grpc.StatusCode.UNAVAILABLE:
            return refusal(503, "the predictor is unreachable")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return refusal(
                504, f"the predictor did not answer in {self._settings.timeout_seconds:g} s"
            )
        return refusal(status_of(code), failure.details() or code.name, quotes=True)


def _credentials(settings: PredictorSettings) -> grpc.ChannelCredentials:
    roots = Path(settings.ca_bundle).read_bytes() if settings.ca_bundle else None
    return grpc.ssl_channel_credentials(root_certificates=roots)


def _options(settings: PredictorSettings) -> list[tuple[str, Any]]:
    retries = settings.retries
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        # No HTTP proxy from the environment, as over REST.
        ("grpc.enable_http_proxy", 0),
    ]
    if not retries:
        return [*options, ("grpc.enable_retries", 0)]
    policy = {
        # gRPC counts the first attempt too, and caps at 5.
        "maxAttempts": retries + 1,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    return [*options, ("grpc.service_config", config)]
