"""KServe's hooks around the hop, for a subclass that overrides some of them."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from contextvars import ContextVar
from typing import Any

import orjson
from kserve import InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.model import InferenceVerb
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse

from minimal_transformer.exchange import JSON_HEADERS, Answer, Arrival, RawHeaders
from minimal_transformer.failures import Failed
from minimal_transformer.predictor.bridge import checked_request


@dataclasses.dataclass(slots=True)
class _Running:
    """The call that the hooks of this task work on, and the headers of its answer."""

    arrival: Arrival
    headers: RawHeaders


_running: ContextVar[_Running] = ContextVar("running")


class HookedModel(Model):  # type: ignore[misc]
    """A KServe model whose REST payloads are the bodies' bytes."""

    @abstractmethod
    async def forward(self, arrival: Arrival) -> Answer:
        """The answer of the predictor, or of the explainer for an explain call."""

    async def run_hooks(self, arrival: Arrival) -> Answer:
        """The answer after preprocess, predict or explain, and postprocess, in KServe's order."""
        running = _Running(arrival, JSON_HEADERS)
        _running.set(running)
        payload: Any = arrival.body
        if arrival.route.protocol == "grpc":
            payload = InferRequest.from_grpc(checked_request(arrival.body))
        verb = InferenceVerb[arrival.route.verb.upper()]
        result, _ = await self(payload, dict(arrival.headers), verb)
        if arrival.route.protocol == "grpc":
            if not isinstance(result, InferResponse):
                raise InvalidInput("postprocess must return an InferResponse over gRPC")
            return Answer(200, result.to_grpc().SerializeToString(), [])
        body, headers = _encoded(result)
        return Answer(200, body, running.headers if headers is None else headers)

    def validate(self, payload: Any) -> Any:
        """KServe's checks of what a hook has decoded; bytes are the predictor's to judge."""
        return payload if isinstance(payload, bytes) else super().validate(payload)

    async def predict(
        self, payload: Any, headers: Any = None, response_headers: Any = None
    ) -> bytes | InferResponse:
        """The predictor's answer; one that is no result goes past postprocess to the caller."""
        return await self._forward_payload(payload)

    async def explain(self, payload: Any, headers: Any = None) -> bytes | InferResponse:
        """The explainer's answer; one that is no result goes past postprocess to the caller."""
        return await self._forward_payload(payload)

    async def _forward_payload(self, payload: Any) -> bytes | InferResponse:
        running = _running.get()
        arrival = running.arrival
        is_grpc = arrival.route.protocol == "grpc"
        body = payload.to_grpc().SerializeToString() if is_grpc else _encoded(payload)[0]
        answer = await self.forward(arrival._replace(body=body))
        if answer.status != 200:
            raise Failed(answer)
        running.headers = answer.headers
        if is_grpc:
            return InferResponse.from_grpc(ModelInferResponse.FromString(answer.body))
        return answer.body


def _encoded(payload: Any) -> tuple[bytes, RawHeaders | None]:
    """A hook's result as a body, and the headers that describe it unless it is bytes."""
    if isinstance(payload, bytes):
        return payload, None
    if isinstance(payload, str):
        return payload.encode(), None
    if isinstance(payload, InferRequest | InferResponse):
        payload, json_length = payload.to_rest()
        if json_length is not None:
            length = str(json_length).encode()
            binary = (b"content-type", b"application/octet-stream")
            return payload, [binary, (b"inference-header-content-length", length)]
    return orjson.dumps(payload, option=orjson.OPT_SERIALIZE_NUMPY), JSON_HEADERS
