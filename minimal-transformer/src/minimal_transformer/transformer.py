"""The transformer: forwards each call to the predictor and records it, whatever its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from kserve.errors import ModelNotReady
from kserve.metrics import PREDICT_HIST_TIME, get_labels

from minimal_transformer.access_log import log_call
from minimal_transformer.exchange import Answer, Arrival, Route
from minimal_transformer.failures import answer_to, is_unexpected
from minimal_transformer.hooks import HookedModel
from minimal_transformer.predictor import Predictor
from minimal_transformer.predictor.bridge import checked_request
from minimal_transformer.predictor.connect import connect
from minimal_transformer.predictor.readiness import Readiness
from minimal_transformer.predictor.settings import PredictorSettings
from minimal_transformer.recording import Recording
from minimal_transformer.settings import RecordSettings

log = logging.getLogger(__name__)

# A subclass that overrides none of them costs nothing: bytes go straight through.
HOOKS = ("__call__", "preprocess", "validate", "predict", "explain", "postprocess")
# After the grace period, cancelled calls still write their records; that takes microseconds each.
LAST_RECORDS_SECONDS = 5.0


class PersistTransformer(HookedModel):
    """Answers with what the predictor answers, and records both sides of every call.

    Override preprocess and postprocess as in any KServe transformer. Over REST they get the
    body's bytes (decode with orjson.loads) and may return bytes or anything that JSON can hold;
    over gRPC they get an InferRequest and an InferResponse.
    """

    def __init__(self, name: str, records: RecordSettings, predictor: PredictorSettings) -> None:
        super().__init__(name)
        self._recording = Recording(records)
        self._predictor_settings = predictor
        self.logs_calls = False
        self._assemble()

    def _assemble(self) -> None:
        """Make the parts that belong to one process and open in it; nothing is opened here."""
        self._predictor: Predictor | None = connect(self._predictor_settings)
        self._explainer: Predictor | None = None
        self._readiness = Readiness(self._ask_predictor)
        self._in_flight = 0
        self._passes_through = False
        self._observe_seconds: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Workers are spawned from a pickle: it leaves out what each process makes for itself."""
        made = ("_predictor", "_explainer", "_readiness", "_observe_seconds")
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._assemble()

    @property
    def recording(self) -> Recording:
        """Where this process's records go; the main process also starts delivery with it."""
        return self._recording

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Everything a process needs to answer calls, open on the running loop."""
        if self.explainer_host:
            settings = dataclasses.replace(self._predictor_settings, host=self.explainer_host)
            self._explainer = connect(dataclasses.replace(settings, protocol="v1"))
        own = [getattr(type(self), hook) is getattr(PersistTransformer, hook) for hook in HOOKS]
        self._passes_through = all(own) and not self.enable_latency_logging
        self._observe_seconds = PREDICT_HIST_TIME.labels(**get_labels(self.name)).observe
        self._recording.open()
        hops = [hop for hop in (self._predictor, self._explainer) if hop is not None]
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
            self._recording.close()

    async def _until_idle(self) -> None:
        while self._in_flight:  # noqa: ASYNC110  an event would cost every call
            await asyncio.sleep(0.02)

    def routes(self) -> list[Route]:
        """The inference endpoints of this model."""
        base = self._predictor_settings.base_url
        explain = f"{self._explain_base()}{self._path('v1', 'explain')}"
        grpc_url = (
            f"grpc://{self._predictor_settings.host}/inference.GRPCInferenceService/ModelInfer"
        )
        v2 = self._path("v2", "infer")
        speaks_grpc = self._predictor_settings.protocol == "grpc-v2"
        v2_url = grpc_url if speaks_grpc else base + v2
        v1 = self._path("v1", "predict")
        return [
            Route("v1", "predict", v1, base + v1),
            Route("v1", "explain", self._path("v1", "explain"), explain),
            Route("v2", "predict", v2, v2_url),
            Route("grpc", "predict", v2, v2_url),
        ]

    def _path(self, protocol: str, action: str) -> str:
        if protocol == "v1":
            return f"/v1/models/{self.name}:{action}"
        return f"/v2/models/{self.name}/{action}"

    def _explain_base(self) -> str:
        host = self.explainer_host or self._predictor_settings.host
        return dataclasses.replace(self._predictor_settings, host=host).base_url

    async def healthy(self) -> bool:
        """Whether the readiness probes pass: the model here and the predictor, never Postgres."""
        return bool(self.ready) and await self._readiness.is_ready()

    async def _ask_predictor(self) -> bool:
        return True if self._predictor is None else await self._predictor.is_ready()

    async def answer(self, arrival: Arrival) -> Answer:
        """The answer that the caller gets; both are on the spool when it returns. Never raises.

        The one seam of recording: REST and gRPC, success and failure pass here.
        """
        started = time.perf_counter() if self.logs_calls else 0.0
        call = self._recording.arrived(arrival, self.name)
        self._in_flight += 1
        try:
            answer = await self._run(arrival)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as failure:
            # A call that is cancelled at shutdown has an answer too.
            if is_unexpected(failure):
                log.exception("call to %s failed", arrival.route.path)
            answer = answer_to(failure)
        finally:
            self._in_flight -= 1
        self._recording.answered(call, arrival, answer)
        if self._recording.fsyncs:
            await self._recording.durable()
        if self.logs_calls:
            log_call(arrival, call, answer, started)
        return answer

    async def _run(self, arrival: Arrival) -> Answer:
        if not self.ready:
            raise ModelNotReady(self.name)
        if arrival.route.protocol == "grpc":
            checked_request(arrival.body)
        if not self._passes_through:
            return await self.run_hooks(arrival)
        started = time.perf_counter()
        try:
            return await self.forward(arrival)
        finally:
            self._observe_seconds(time.perf_counter() - started)

    async def forward(self, arrival: Arrival) -> Answer:
        """The predictor's answer, or the explainer's; 501 where none is configured."""
        explains = arrival.route.verb == "explain"
        hop = self._explainer if explains else self._predictor
        if hop is None:
            missing = "explainer_host" if explains else "predictor_host"
            raise NotImplementedError(f"Could not find {missing}.")
        return await hop.forward(arrival)
