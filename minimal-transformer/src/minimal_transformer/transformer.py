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
from kserve import Model
from kserve.errors import ModelNotReady
from kserve.metrics import PREDICT_HIST_TIME, get_labels
from kserve.model import InferenceVerb

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
from minimal_transformer.hooks import Hooks, mistake_of, returned_by
from minimal_transformer.limits import Limits
from minimal_transformer.logs import Pace
from minimal_transformer.payloads import Headers, payload_of, result_of, sent_back, sent_on
from minimal_transformer.predictor import Predictor, Readiness
from minimal_transformer.predictor.grpc import GrpcPredictor
from minimal_transformer.predictor.passing import PassingPredictor
from minimal_transformer.predictor.rest import RestPredictor
from minimal_transformer.predictor.v2 import checked_request, request_json, response_json
from minimal_transformer.recording.handler import Call, PredictionDBHandler
from minimal_transformer.settings import (
    HookSettings,
    PredictorSettings,
    RecordSettings,
    SettingsError,
)
from minimal_transformer.streaming import Streaming

log = logging.getLogger(__name__)
access_log = logging.getLogger("minimal_transformer.access_log")

# Bytes go through as they are where nobody reads them: what a subclass overrides, or PREPROCESS and
# POSTPROCESS name, decides which of the two bodies is decoded.
_READ_REQUESTS = ("__call__", "preprocess", "validate", "predict", "explain")
_READ_ANSWERS = ("__call__", "predict", "explain", "postprocess")
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
# Of a model's name that a caller made up, in a line of the log.
NAME_CHARACTERS = 100


@dataclass(slots=True)
class _Running:
    """The call that the hooks of this task work on, and the headers of its answer."""

    arrival: Arrival
    headers: RawHeaders
    reads_answers: bool


_running: ContextVar[_Running] = ContextVar("running")


class _Streams(Exception):
    """An answer that streams goes past postprocess to the caller."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream


class PersistTransformer(Model):  # type: ignore[misc]
    """Answers with what the predictor answers, and records both sides of every call.

    Override preprocess and postprocess as in any KServe transformer: they get a dict from callers
    of v1, and an InferRequest and InferResponse from those of v2, over REST and gRPC.
    """

    def __init__(self, name: str, records: RecordSettings, predictor: PredictorSettings) -> None:
        super().__init__(name)
        self.handler = PredictionDBHandler(records, processes=predictor.serving_processes)
        # An error may quote the call, and what is redacted never leaves the process.
        self._quotes_errors = records.record_errors or not records.record_redact
        self._predictor_settings = replace(
            predictor,
            is_shadow=records.shadow_role == "shadow",
            quotes_errors=self._quotes_errors,
        )
        self._hook_settings: HookSettings | None = None
        self._hooks = Hooks()
        self.logs_calls = False
        self._assemble()

    def use_hooks(self, settings: HookSettings) -> None:
        """Have the named functions run where this class has no preprocess or postprocess itself."""
        for name in ("preprocess", "postprocess"):
            if getattr(settings, name) and self._overrides(name):
                raise SettingsError(
                    f"{name.upper()} is {getattr(settings, name)!r}, and {type(self).__name__} has"
                    f" a {name} of its own; unset it, or remove that."
                )
        self._hook_settings = settings
        self._hooks = Hooks.of(settings)

    def _overrides(self, *names: str) -> bool:
        return any(
            getattr(type(self), name) is not getattr(PersistTransformer, name) for name in names
        )

    def _assemble(self) -> None:
        """Make the parts that belong to one process and open in it; nothing is opened here."""
        self._predictor = _hop(self._predictor_settings)
        self._explainer: Predictor | None = None
        self._passing = _passing_hop(self._predictor_settings)
        self._readiness = Readiness(self._ask_predictor)
        self._unknown_models = Pace()
        self._in_flight = 0
        self._passes_through = False
        self._reads_requests = self._reads_answers = False
        self._observe_seconds: Any = None
        settings = self._predictor_settings
        self.limits = Limits(settings.max_body_bytes, settings.max_in_flight_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """Workers are spawned from a pickle: it leaves out what each process makes for itself."""
        made = (
            *("_predictor", "_explainer", "_passing", "_readiness"),
            *("_observe_seconds", "limits", "_hooks", "_unknown_models"),
        )
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hooks = Hooks.of(self._hook_settings) if self._hook_settings else Hooks()
        self._assemble()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Everything a process needs to answer calls, open on the running loop."""
        if self.explainer_host:
            self._explainer = _hop(
                replace(self._predictor_settings, host=self.explainer_host, protocol="v1")
            )
        self._reads_requests = self._hooks.preprocess is not None or self._overrides(
            *_READ_REQUESTS
        )
        self._reads_answers = self._hooks.postprocess is not None or self._overrides(*_READ_ANSWERS)
        self._passes_through = not (
            self._reads_requests or self._reads_answers or self.enable_latency_logging
        )
        # Of v1's two, the one to predict.
        self._routes_by_protocol = {route.protocol: route for route in reversed(self.routes())}
        self._observe_seconds = PREDICT_HIST_TIME.labels(**get_labels(self.name)).observe
        self.handler.open()
        own_hops = (self._predictor, self._explainer, self._passing)
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
        return self._predictor_settings.stream_idle_seconds

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
        if self._passing is None:
            return None
        prefix = self._predictor_settings.passing.openai_predictor_prefix
        answer = await self._passing.get(prefix + path.removeprefix(OPENAI_PREFIX))
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

    def asked_for(self, name: str) -> None:
        """A call was for this model, which is not served here: KServe refuses it, and as it reaches
        no model there is no row of it. The log and a metric are its only trace.
        """
        self.handler.count_unknown_model()
        if not (calls := self._unknown_models.hit()):
            return
        shown = name if len(name) <= NAME_CHARACTERS else f"{name[:NAME_CHARACTERS]}…"
        log.warning(
            "%s refused and not recorded: this pod serves model %r. Set --model_name to the"
            " name that callers use, the same for the primary and the shadow.",
            f"a call for model {shown!r} is"
            if calls == 1
            else f"{calls} calls, the last for model {shown!r}, are",
            self.name,
        )

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
            hop = self._passing
            if hop is None and self._predictor is not None:
                raise NotImplementedError("only predictors that speak REST get such calls")
        if hop is None:
            missing = "explainer_host" if explains else "predictor_host"
            raise NotImplementedError(f"Could not find {missing}.")
        return await hop.forward(arrival)

    async def _run_hooks(self, arrival: Arrival) -> Answer | Stream:
        """The answer after preprocess, predict or explain, and postprocess, in KServe's order.

        What streams does not pass postprocess. A hook's mistake is a 500 and one line in the log.
        """
        running = _Running(arrival, JSON_HEADERS, self._reads_answers)
        _running.set(running)
        payload = payload_of(arrival) if self._reads_requests else arrival.body
        verb = InferenceVerb[arrival.route.verb.upper()]
        try:
            result, _ = await self(payload, dict(arrival.headers), verb)
            return sent_back(result, arrival, running.headers)
        except _Streams as streams:
            return streams.stream
        except Exception as failure:
            if not is_unexpected(failure):
                raise
            mistake = mistake_of(failure, quotes=self._quotes_errors)
            log.error("a hook failed at %s, its caller gets 500: %s", arrival.route.path, mistake)
            raise Failed(answer_to(failure)) from None

    async def preprocess(self, payload: Any, headers: Headers | None = None) -> Any:
        """What PREPROCESS makes of a call; the call itself where it is not set."""
        hook = self._hooks.preprocess
        return payload if hook is None else await returned_by(hook, payload, headers or {})

    async def postprocess(
        self, result: Any, headers: Headers | None = None, response_headers: Any = None
    ) -> Any:
        """What POSTPROCESS makes of an answer; the answer itself where it is not set."""
        hook = self._hooks.postprocess
        return result if hook is None else await returned_by(hook, result, headers or {})

    def validate(self, payload: Any) -> Any:
        """KServe's checks of what a hook has decoded; bytes are the predictor's to judge."""
        return super().validate(payload) if isinstance(payload, dict) else payload

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """The predictor's answer; one that is not a result goes past postprocess to the caller."""
        return await self._forward_payload(payload)

    async def explain(self, payload: Any, headers: Any = None) -> Any:
        """The explainer's answer; one that is not a result goes past postprocess to the caller."""
        return await self._forward_payload(payload)

    async def _forward_payload(self, payload: Any) -> Any:
        running = _running.get()
        asked = sent_on(payload, running.arrival, self._routes_by_protocol)
        answer = await self._forward(asked)
        if isinstance(answer, Stream):
            raise _Streams(answer)
        if answer.status != 200:
            raise Failed(answer)
        running.headers = answer.headers
        if not running.reads_answers:
            return answer.body
        return result_of(answer, asked.route.protocol)


def _hop(settings: PredictorSettings) -> Predictor | None:
    """A hop in the predictor's protocol, not yet open; None where no predictor is named."""
    if settings.host is None:
        return None
    return GrpcPredictor(settings) if settings.protocol == "grpc-v2" else RestPredictor(settings)


def _passing_hop(settings: PredictorSettings) -> PassingPredictor | None:
    """The hop for calls that are passed on as they come; these have no form in gRPC."""
    if settings.host is None or settings.protocol == "grpc-v2":
        return None
    return PassingPredictor(settings)


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
