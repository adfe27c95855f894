"""The transformer: forwards each call to the predictor and records it, whatever its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast
from urllib.parse import quote

import orjson
from kserve import InferRequest, InferResponse, Model
from kserve.errors import InvalidInput, ModelNotReady
from kserve.metrics import PREDICT_HIST_TIME, get_labels
from kserve.model import InferenceVerb
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferResponse

from minimal_transformer.exchange import (
    JSON_HEADERS,
    Answer,
    Arrival,
    Protocol,
    RawHeaders,
    Refused,
    Route,
    Stream,
)
from minimal_transformer.failures import Failed, abandoned, answer_to, is_unexpected
from minimal_transformer.limits import Limits
from minimal_transformer.predictor import Predictor, Readiness
from minimal_transformer.predictor.grpc import GrpcPredictor
from minimal_transformer.predictor.rest import RestPredictor
from minimal_transformer.predictor.streaming import StreamingPredictor
from minimal_transformer.predictor.v2 import checked_request, request_json, response_json
from minimal_transformer.recording.handler import Call, PredictionDBHandler
from minimal_transformer.settings import PredictorSettings, RecordSettings
from minimal_transformer.streaming import Streaming

log = logging.getLogger(__name__)
access_log = logging.getLogger("minimal_transformer.access_log")

# A subclass that overrides none of them costs nothing: bytes go through as they are.
HOOKS = ("__call__", "preprocess", "validate", "predict", "explain", "postprocess")
# Where KServe serves OpenAI's API; callers may leave it out for the calls of that API.
OPENAI_PREFIX = "/openai"
OPENAI_PATHS = frozenset(
    f"/v1/{name}"
    for name in (
        "audio/speech",
        "audio/transcriptions",
        "audio/translations",
        "chat/completions",
        "completions",
        "embeddings",
        "images/generations",
        "moderations",
        "rerank",
        "responses",
        "score",
    )
)
# After the grace period, cancelled calls still write their records; that takes microseconds each.
LAST_RECORDS_SECONDS = 5.0


@dataclass(slots=True)
class _Running:
    """The call that the hooks of this task work on, and the headers of its answer."""

    arrival: Arrival
    headers: RawHeaders


_running: ContextVar[_Running] = ContextVar("running")


class _Streams(Exception):
    """An answer that streams goes past postprocess to the caller."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream


class PersistTransformer(Model):  # type: ignore[misc]
    """Answers with what the predictor answers, and records both sides of every call.

    Override preprocess and postprocess as in any KServe transformer. Over REST they get the
    body's bytes (decode with orjson.loads) and may return bytes or anything that JSON can hold;
    over gRPC they get an InferRequest and an InferResponse.
    """

    def __init__(self, name: str, records: RecordSettings, predictor: PredictorSettings) -> None:
        super().__init__(name)
        self.handler = PredictionDBHandler(records)
        self._predictor_settings = replace(predictor, is_shadow=records.shadow_role == "shadow")
        self.logs_calls = False
        self._assemble()

    def _assemble(self) -> None:
        """Make the parts that belong to one process and open in it; nothing is opened here."""
        self._predictor = _hop(self._predictor_settings)
        self._explainer: Predictor | None = None
        self._streaming = _streaming_hop(self._predictor_settings)
        self._readiness = Readiness(self._ask_predictor)
        self._in_flight = 0
        self._passes_through = False
        self._observe_seconds: Any = None
        settings = self._predictor_settings
        self.limits = Limits(settings.max_body_bytes, settings.max_in_flight_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """Workers are spawned from a pickle: it leaves out what each process makes for itself."""
        made = (
            *("_predictor", "_explainer", "_streaming", "_readiness"),
            *("_observe_seconds", "limits"),
        )
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._assemble()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Everything a process needs to answer calls, open on the running loop."""
        if self.explainer_host:
            self._explainer = _hop(
                replace(self._predictor_settings, host=self.explainer_host, protocol="v1")
            )
        own = [getattr(type(self), hook) is getattr(PersistTransformer, hook) for hook in HOOKS]
        self._passes_through = all(own) and not self.enable_latency_logging
        self._observe_seconds = PREDICT_HIST_TIME.labels(**get_labels(self.name)).observe
        self.handler.open()
        own_hops = (self._predictor, self._explainer, self._streaming)
        hops = [hop for hop in own_hops if hop is not None]
        for hop in hops:
            await hop.open()
        # A full collection would walk all that kserve imports while every call waits.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._until_idle(), LAST_RECORDS_SECONDS)
            for hop in hops:
                await hop.close()
            # The hops' last answers are recorded by now; a later one opens a new file.
            self.handler.close()

    async def _until_idle(self) -> None:
        while self._in_flight:  # noqa: ASYNC110  an event would cost every call
            await asyncio.sleep(0.02)

    @property
    def patience_seconds(self) -> float:
        """How long a stream's predictor may be silent, and its caller read nothing."""
        return self._predictor_settings.timeout_seconds

    def routes(self) -> list[Route]:
        """The inference endpoints of this model."""
        settings, name = self._predictor_settings, quote(self.name, safe="")
        v1, explain = f"/v1/models/{name}:predict", f"/v1/models/{name}:explain"
        explainer = replace(settings, host=self.explainer_host or settings.host)
        return [
            Route("v1", "predict", v1, self.name, settings.base_url + v1),
            Route("v1", "explain", explain, self.name, explainer.base_url + explain),
            self.v2_route("v2"),
            self.v2_route("grpc"),
        ]

    def passed_route(self, path: str) -> Route | None:
        """The route of a posted path that goes to the predictor as it comes.

        None for every other one. KServe's model repository stays closed, whatever PASS_PATHS says.
        """
        settings = self._predictor_settings
        passing = settings.passing
        protocol: Protocol = "openai"
        if path.startswith(f"{OPENAI_PREFIX}/v1/"):
            target = passing.openai_predictor_prefix + path.removeprefix(OPENAI_PREFIX)
        elif path in OPENAI_PATHS:
            target = passing.openai_predictor_prefix + path
        elif passing.passes(path) and not path.startswith("/v2/repository/"):
            protocol, target = "other", path
        else:
            return None
        return Route(protocol, "predict", target, self.name, settings.base_url + target)

    async def listed_models(self, path: str) -> Answer | None:
        """The predictor's answer to OpenAI's question for its models; None without one.

        At /v1/models, KServe's own list is in it: each client reads its own key.
        """
        if self._streaming is None:
            return None
        prefix = self._predictor_settings.passing.openai_predictor_prefix
        answer = await self._streaming.get(prefix + path.removeprefix(OPENAI_PREFIX))
        if path.startswith(OPENAI_PREFIX):
            return answer
        try:
            listed = orjson.loads(answer.body)
            if answer.status != 200 or not isinstance(listed["data"], list):
                return None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        return answer._replace(body=orjson.dumps({"models": [self.name], **listed}))

    def v2_route(self, protocol: Literal["v2", "grpc"], version: str = "") -> Route:
        """The endpoint of v2, over REST or gRPC, for the version that the caller names, if any."""
        settings = self._predictor_settings
        path = f"/v2/models/{quote(self.name, safe='')}"
        path += f"/versions/{quote(version, safe='')}/infer" if version else "/infer"
        if settings.protocol == "grpc-v2":
            url = f"grpc://{settings.host}/inference.GRPCInferenceService/ModelInfer"
        else:
            url = settings.base_url + path
        route = Route(protocol, "predict", path, self.name, url, model_version=version)
        if protocol == "v2":
            return route
        return route._replace(request_json=request_json, response_json=response_json)

    async def metadata(self, version: str = "") -> Answer:
        """What the predictor says about its model, in v2's form; a failure as calls have it."""
        if self._predictor is None:
            return answer_to(NotImplementedError("Could not find predictor_host."))
        return await self._predictor.metadata(version)

    async def healthy(self) -> bool:
        """Whether the readiness probes pass: the model here and the predictor, never Postgres."""
        return bool(self.ready) and await self._readiness.is_ready()

    async def _ask_predictor(self) -> bool:
        return True if self._predictor is None else await self._predictor.is_ready()

    async def answer(self, arrival: Arrival) -> Answer | Streaming:
        """The answer that the caller gets; both are on the spool when it returns. Never raises.

        The one seam of recording: REST and gRPC, success and failure pass here. What streams is
        recorded at its end: enter it.
        """
        started = time.perf_counter() if self.logs_calls else 0.0
        handler = self.handler
        self._in_flight += 1
        if handler.is_heavy(arrival.route, arrival.body):
            call = await handler.in_thread(partial(handler.record_request, arrival))
            if (task := asyncio.current_task()) and task.cancelling():
                arrival = arrival._replace(refused=Refused(0, asyncio.CancelledError()))
        else:
            call = handler.record_request(arrival)
        try:
            answer = await self._run(arrival)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            # A call that is cancelled at shutdown has an answer too.
            if is_unexpected(failure):
                log.exception("call to %s failed", arrival.route.path)
            answer = answer_to(failure)
        if isinstance(answer, Stream):
            self._in_flight -= 1
            return self._streamed(arrival, call, answer, started)
        stored = abandoned(answer) if arrival.has_left() else answer
        if handler.is_heavy(arrival.route, answer.body):
            record = partial(handler.record_response, call, stored, None)
            await handler.in_thread(record)
        else:
            handler.record_response(call, stored)
        self._in_flight -= 1
        if handler.fsyncs:
            await handler.durable()
        if self.logs_calls:
            _log_call(arrival, call, answer.status, started)
        return answer

    async def whole_answer(self, arrival: Arrival) -> Answer:
        """The answer to a call of v2, which never streams."""
        return cast(Answer, await self.answer(arrival))

    def _streamed(
        self, arrival: Arrival, call: Call | None, stream: Stream, started: float
    ) -> Streaming:
        """The stream, in flight until its end."""
        self._in_flight += 1
        arrival = arrival._replace(body=b"")  # a prompt may be megabytes

        def at_end() -> None:
            self._in_flight -= 1
            if self.logs_calls:
                _log_call(arrival, call, stream.status, started)

        return Streaming(stream, self.handler, call, at_end)

    async def _run(self, arrival: Arrival) -> Answer | Stream:
        if arrival.refused is not None:
            raise arrival.refused.reason
        if not self.ready:
            raise ModelNotReady(self.name)
        if arrival.route.protocol == "grpc":
            checked_request(arrival.body)
        if not self._passes_through:
            return await self._run_hooks(arrival)
        started = time.perf_counter()
        try:
            return await self._forward(arrival)
        finally:
            self._observe_seconds(time.perf_counter() - started)

    async def _forward(self, arrival: Arrival) -> Answer | Stream:
        """The predictor's answer, or the explainer's; 501 where none is configured."""
        explains = arrival.route.verb == "explain"
        hop = self._explainer if explains else self._predictor
        if arrival.route.protocol in ("openai", "other"):
            hop = self._streaming
            if hop is None and self._predictor is not None:
                raise NotImplementedError("only predictors that speak REST get such calls")
        if hop is None:
            missing = "explainer_host" if explains else "predictor_host"
            raise NotImplementedError(f"Could not find {missing}.")
        return await hop.forward(arrival)

    async def _run_hooks(self, arrival: Arrival) -> Answer | Stream:
        """The answer after preprocess, predict or explain, and postprocess, in KServe's order.

        What streams does not pass postprocess.
        """
        running = _Running(arrival, JSON_HEADERS)
        _running.set(running)
        payload: Any = arrival.body
        if arrival.route.protocol == "grpc":
            payload = InferRequest.from_grpc(checked_request(arrival.body))
        verb = InferenceVerb[arrival.route.verb.upper()]
        try:
            result, _ = await self(payload, dict(arrival.headers), verb)
        except _Streams as streams:
            return streams.stream
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
        """The predictor's answer; one that is not a result goes past postprocess to the caller."""
        return await self._forward_payload(payload)

    async def explain(self, payload: Any, headers: Any = None) -> bytes | InferResponse:
        """The explainer's answer; one that is not a result goes past postprocess to the caller."""
        return await self._forward_payload(payload)

    async def _forward_payload(self, payload: Any) -> bytes | InferResponse:
        running = _running.get()
        arrival = running.arrival
        is_grpc = arrival.route.protocol == "grpc"
        body = payload.to_grpc().SerializeToString() if is_grpc else _encoded(payload)[0]
        answer = await self._forward(arrival._replace(body=body))
        if isinstance(answer, Stream):
            raise _Streams(answer)
        if answer.status != 200:
            raise Failed(answer)
        running.headers = answer.headers
        if is_grpc:
            return InferResponse.from_grpc(ModelInferResponse.FromString(answer.body))
        return answer.body


def _hop(settings: PredictorSettings) -> Predictor | None:
    """A hop in the predictor's protocol, not yet open; None where no predictor is named."""
    if settings.host is None:
        return None
    return GrpcPredictor(settings) if settings.protocol == "grpc-v2" else RestPredictor(settings)


def _streaming_hop(settings: PredictorSettings) -> StreamingPredictor | None:
    """The hop for calls that are passed on as they come; these have no form in gRPC."""
    if settings.host is None or settings.protocol == "grpc-v2":
        return None
    return StreamingPredictor(settings)


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


def _log_call(arrival: Arrival, call: Call | None, status: int, started: float) -> None:
    """ACCESS_LOG=1: what was called, its pair id, its status and how long it took.

    A call that was not recorded has the pair id that it came with, or none.
    """
    took_ms = (time.perf_counter() - started) * 1000
    headers = arrival.headers
    pair_id = headers.get("x-shadow-pair-id") or headers.get("x-request-id") or "none"
    if call is not None:
        pair_id = call.pair_id
    access_log.info(
        "%s %s pair=%s status=%d ms=%.2f",
        arrival.route.protocol,
        arrival.route.path,
        pair_id,
        status,
        took_ms,
        extra={"pair_id": pair_id, "status": status, "duration_ms": round(took_ms, 3)},
    )
