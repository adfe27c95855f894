"""PredictionDBHandler: a call becomes two rows on the spool, and that costs no answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson
from prometheus_client import REGISTRY

from minimal_transformer import metrics
from minimal_transformer.exchange import Answer, Arrival, RawHeaders, Route
from minimal_transformer.logs import Episode
from minimal_transformer.metrics import Counters, RecordMetrics
from minimal_transformer.recording import rows
from minimal_transformer.recording.ids import is_sampled, new_record_id, pair_of
from minimal_transformer.recording.redaction import REDACTED, Redaction
from minimal_transformer.recording.rows import (
    NO_BODY,
    StoredBody,
    size_alone,
    storable,
    stored_body,
)
from minimal_transformer.recording.stream import (
    BUDGET_BYTES,
    Assembly,
    Budget,
    Streamed,
)
from minimal_transformer.recording.tokens import TokenClock, token_counts
from minimal_transformer.settings import RecordSettings
from minimal_transformer.spool import format as spool_format
from minimal_transformer.spool.format import Kind, Pieces, now_us
from minimal_transformer.spool.owner import RESPONSE_RESERVE, GroupCommit, Spool, Unsynced

logger = logging.getLogger("minimal_transformer.recording")

MAX_ERROR_CHARACTERS = 2000
SHORT_ERROR_CHARACTERS = 120  # of at most 4 bytes each: with it a row fits in a response's reserve
_NAME_CHARACTERS = 2048

# Larger bodies are recorded in a thread: hashing, parsing and writing them takes milliseconds, for
# which no other call should wait.
_LIGHT_BYTES = 256 * 1024
_LIGHT_MESSAGE_BYTES = 64 * 1024
_LIGHT_REDACTED_BYTES = 8 * 1024
# From a body's arrival at the thread to the end of its redaction, the wait for others included.
REDACTION_SECONDS = 1.0
# Of what a stream said, on the event loop.
STREAM_REDACTION_SECONDS = 0.1

T = TypeVar("T")


class Call(NamedTuple):
    """A call whose request row is on the spool; it wants exactly one response row."""

    record_bytes: bytes  # the record id, UUIDv7
    request_time_us: int  # since the epoch; the same in both rows
    started_ns: int  # time.perf_counter_ns() on arrival
    pair_id: str
    route: Route

    @property
    def response_bytes(self) -> int:
        """The room that its response row takes at least on the spool."""
        return RESPONSE_RESERVE + len(self.pair_id.encode())

    @property
    def record_id(self) -> uuid.UUID:
        return uuid.UUID(bytes=self.record_bytes)


class PredictionDBHandler:
    """Records calls so that no failure of recording changes, delays or fails an answer.

    One object per serving process, of which there are `processes` that share what is kept of
    streams: `open()` there, `close()` at its end. It can be pickled to a worker before that. Each
    process numbers the calls that it chooses to record and puts them on the spool in that order: a
    number that is not in the tables is a lost record.
    """

    metrics: RecordMetrics

    def __init__(
        self,
        settings: RecordSettings,
        counters_folder: Path | None = None,
        *,
        processes: int = 1,
    ) -> None:
        self._settings = settings
        self._processes = processes
        self.counters_folder = counters_folder or metrics.new_folder()
        # Who was given a folder shares the one of another process, which removes it.
        self._claims_folder = counters_folder is None
        self._is_open = False
        self.fsyncs = settings.spool_fsync
        # Read for each call.
        self._share = settings.record_sample
        self._max_body_bytes = settings.max_body_bytes
        self._listed = settings.record_headers
        self._keeps_raw = settings.record_stream_raw
        self._stream_budget = Budget(BUDGET_BYTES // processes)
        self._redaction = Redaction(settings.redacted_paths)
        self._records_errors = settings.record_errors or not self._redaction
        self._light_bytes = _LIGHT_REDACTED_BYTES if self._redaction else _LIGHT_BYTES
        self._light_message_bytes = min(self._light_bytes, _LIGHT_MESSAGE_BYTES)
        self._process = rows.text_fields(
            settings.shadow_role, settings.inference_service, settings.model_version
        )

    def __reduce__(self) -> tuple[Callable[[], PredictionDBHandler], tuple[()]]:
        folder, processes = self.counters_folder, self._processes
        return partial(PredictionDBHandler, self._settings, folder, processes=processes), ()

    def open(self) -> None:
        """Make this process a recorder: with an id, a numbering and spool files of its own."""
        if self._is_open:
            return
        self._is_open = True
        self.claim_counters()
        settings = self._settings
        self._recorder_id = uuid.uuid4().bytes
        self._seed = spool_format.seed_of(self._recorder_id)
        self._spool = Spool(
            settings.spool_folder, settings.spool_max_bytes, self._recorder_id, self.fsyncs
        )
        self._sequence = 0
        # Numbering and appending are one step, so that the spool has the order of the numbers, also
        # of the calls that are recorded in the thread.
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "large-bodies")
        self._counters = Counters(self.counters_folder)
        self._dropping = Episode(logger, "Calls are recorded again; %d were dropped.")
        self._unreadable = Episode(
            logger, "Streams are read again; %d had events that were recorded as bytes."
        )
        self._starving = Episode(logger, "Streamed answers are recorded whole again; %d were cut.")
        self._group_commit = GroupCommit(self._take_unsynced)
        self.metrics = RecordMetrics(self._counters, settings.spool_folder)
        _publish(self.metrics)

    def close(self) -> None:
        """Leave the spool files to delivery; late calls are still recorded, in a new file."""
        if self._is_open:
            with self._lock:
                self._spool.close()

    def claim_counters(self) -> None:
        """Keep the counters' folder until this process ends; the first call alone does it."""
        if self._claims_folder:
            self._claims_folder = False
            metrics.claim(self.counters_folder)

    def is_heavy(self, route: Route, body: bytes) -> bool:
        """Whether recording this body takes milliseconds, so that it wants the thread."""
        is_plain = route.request_json is None
        return len(body) > (self._light_bytes if is_plain else self._light_message_bytes)

    async def in_thread(self, record: Callable[[float], T]) -> T:
        """What `record` returns for a deadline, done off the event loop.

        Being cancelled does not end it: a call whose rows nobody has would keep its reserve for
        ever. The caller looks at task.cancelling() where it matters.
        """
        deadline = time.monotonic() + REDACTION_SECONDS
        work = asyncio.get_running_loop().run_in_executor(self._thread, record, deadline)
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        return work.result()

    def record_request(self, arrival: Arrival, deadline: float = math.inf) -> Call | None:
        """Put a call's request row on the spool; None when not sampled, or dropped and counted.

        Never raises and never waits for Postgres. A body that is not redacted by `deadline` (of
        time.monotonic()) is not stored.
        """
        if not self._is_open:
            self.open()
        is_numbered = False
        try:
            pair_id, source = pair_of(arrival.headers)
            if not is_sampled(pair_id, self._share):
                return None
            route = arrival.route
            time_us = now_us()
            call = Call(new_record_id(time_us), time_us, time.perf_counter_ns(), pair_id, route)
            if arrival.refused is None:
                stored = self._stored(arrival.body, route.request_json, deadline)
            else:
                stored = size_alone(arrival.refused.size)
            listed = rows.listed_headers(arrival.headers, self._listed)
            pair, encoded_route = rows.text_fields(pair_id, source), _route_fields(route)
            with self._lock:
                self._sequence += 1
                is_numbered = True
                row = rows.encode_request(
                    record_id=call.record_bytes,
                    request_time_us=time_us,
                    recorder_id=self._recorder_id,
                    sequence=self._sequence,
                    pair=pair,
                    process=self._process,
                    route=encoded_route,
                    headers=listed,
                    body=stored,
                )
                frame = spool_format.encode_frame(Kind.REQUEST, time_us, row, self._seed)
                self._spool.append_request(frame, call.response_bytes)
                self._counters.add(metrics.SPOOLED)
                if self._dropping.count:
                    self._dropping.passed()
        except Exception as error:
            self._drop(error, is_numbered)
            return None
        return call

    def record_response(
        self,
        call: Call | None,
        answer: Answer,
        streamed: Streamed | None = None,
        deadline: float = math.inf,
    ) -> None:
        """Put a call's response row on the spool, without its body where that has no room.

        Nothing for None. Every call that record_request() returned wants exactly one: room is kept
        for it until then. A body that was streamed is in `streamed` alone. Never raises and never
        waits for Postgres; `deadline` as there.
        """
        if call is None:
            return
        has_room = True
        try:
            duration_ms = (time.perf_counter_ns() - call.started_ns) / 1e6
            time_us = now_us()
            error = answer.error
            if error is not None:
                error = REDACTED if self._hides(answer) else storable(error, MAX_ERROR_CHARACTERS)
            if streamed is None:
                stored = self._stored_answer(call.route, answer, deadline)
                generation = self._generation(call.route, answer)
            else:
                stored = self._stored_stream(streamed)
                generation = rows.generation_fields(streamed.ttft_ms, streamed.figures)

            def frame(stored: StoredBody, error: str | None) -> Pieces:
                row = rows.encode_response(
                    record_id=call.record_bytes,
                    request_time_us=call.request_time_us,
                    pair_id=call.pair_id.encode(),
                    response_time_us=time_us,
                    status_code=answer.status,
                    duration_ms=duration_ms,
                    error=error,
                    body=stored,
                    generation=generation,
                )
                return spool_format.encode_frame(Kind.RESPONSE, time_us, row, self._seed)

            whole = frame(stored, error)
            with self._lock:
                has_room = False
                self._spool.append_response(
                    whole,
                    call.response_bytes,
                    lambda: frame(
                        stored.without_content(), error and error[:SHORT_ERROR_CHARACTERS]
                    ),
                )
        except Exception as fault:
            if has_room:
                with self._lock:
                    self._spool.release_response(call.response_bytes)
            self._drop(fault, is_numbered=True)

    def count_unknown_model(self) -> None:
        """Count a call that no row will tell of: it asked for a model that is not served here."""
        self._counters.add(metrics.UNKNOWN_MODEL)

    def assembly(self, call: Call, headers: RawHeaders) -> Assembly:
        """What reads the streamed answer to a call, with these headers, as it passes."""
        is_plain = all(name != b"content-encoding" for name, _ in headers)
        return Assembly(
            self._stream_budget,
            self._max_body_bytes,
            TokenClock(call.started_ns),
            keeps_raw=self._keeps_raw,
            is_read=is_plain and call.route.protocol == "openai",
        )

    async def durable(self) -> None:
        """With SPOOL_FSYNC=1, returns when all recorded so far is on the disk; else at once.

        The sync runs in a thread and many calls share one. Await it before answering. Never raises.
        """
        try:
            if self.fsyncs and self._is_open:
                await self._group_commit.wait()
        except Exception:
            logger.exception("the spool could not be synced to the disk")

    def _stored_stream(self, streamed: Streamed) -> StoredBody:
        """How to store a stream: its size is the caller's, its JSON is ours.

        With values to redact, bytes that were not read are not stored: nobody can search them.
        """
        self._counters.add(metrics.STREAM_READ, streamed.read)
        self._counters.add(metrics.STREAM_UNREAD, streamed.unread)
        if streamed.unread:
            self._unreadable.hit(
                "A stream had events that are not those of an OpenAI answer; they went to the"
                " caller as they came and are recorded as bytes."
            )
        elif self._unreadable.count:
            self._unreadable.passed()
        if streamed.starved:
            kept_mib = BUDGET_BYTES // self._processes >> 20
            self._starving.hit(
                "Streamed answers are recorded cut: those that are under way are kept up to"
                f" {kept_mib} MiB. Lower RECORD_MAX_BODY_BYTES or MAX_STREAMS."
            )
        elif self._starving.count:
            self._starving.passed()
        data, raw, truncated = streamed.data, streamed.raw, streamed.truncated
        if data is not None and self._redaction:
            data = self._redaction.clean(data, time.monotonic() + STREAM_REDACTION_SECONDS)
            truncated |= data is None
        if raw is not None and self._redaction:
            raw, truncated = None, True
        return StoredBody(data, raw, min(streamed.size, rows.MAX_SIZE), truncated, hashed=None)

    def _generation(self, route: Route, answer: Answer) -> bytes:
        """The columns of a generated answer that came in one piece: its `usage`, where it has one.

        A body that is stored cut is not read for it.
        """
        if route.protocol != "openai" or answer.status != 200:
            return rows.NOT_GENERATED
        counts: dict[str, int] = {}
        if len(answer.body) <= self._max_body_bytes:
            with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
                counts = token_counts(orjson.loads(answer.body).get("usage"))
        return rows.generation_fields(None, counts)

    def _hides(self, answer: Answer) -> bool:
        """Whether the words of a failed call may repeat what is redacted elsewhere."""
        return self._redaction.hides_errors or (answer.quotes and not self._records_errors)

    def _stored_answer(self, route: Route, answer: Answer, deadline: float) -> StoredBody:
        if route.response_json is not None and answer.status != 200:
            return NO_BODY  # no message: the caller gets the code and its details
        if answer.error is not None and answer.quotes and not self._records_errors:
            return size_alone(len(answer.body))
        return self._stored(answer.body, route.response_json, deadline)

    def _stored(
        self, body: bytes, json_form_of: Callable[[bytes], bytes | None] | None, deadline: float
    ) -> StoredBody:
        """The body as it is stored; by its size alone where something about it fails.

        A call's rows outrank its bodies: nothing that a body holds may cost them.
        """
        try:
            # Of a longer one, the JSON form would not be stored.
            if json_form_of is None or len(body) > self._max_body_bytes:
                json_form = None
            else:
                json_form = json_form_of(body)
            return stored_body(body, json_form, self._max_body_bytes, self._redaction, deadline)
        except Exception:
            logger.exception("a body of %d bytes is recorded by its size alone", len(body))
            return size_alone(len(body))

    def _drop(self, error: Exception, is_numbered: bool) -> None:
        """Count a lost record; its number stays unused, so that the tables show the hole."""
        with self._lock:
            if not is_numbered:
                self._sequence += 1
            self._counters.add(metrics.DROPPED)
            self._dropping.hit(
                f"Calls are answered but not recorded: {type(error).__name__}: {error}. Free space"
                f" in {self._settings.spool_folder}, raise SPOOL_MAX_BYTES or make it writable."
            )

    def _take_unsynced(self) -> Unsynced:
        with self._lock:
            return self._spool.take_unsynced()


@lru_cache(maxsize=256)
def _route_fields(route: Route) -> bytes:
    names = (route.model_name, route.protocol, route.predict_url)
    return rows.text_fields(*(storable(name, _NAME_CHARACTERS) for name in names))


_published: list[RecordMetrics] = []


def _publish(figures: RecordMetrics) -> None:
    """Have /metrics show these figures, in the place of an earlier recorder's of this process."""
    while _published:
        REGISTRY.unregister(_published.pop())
    REGISTRY.register(figures)
    _published.append(figures)
