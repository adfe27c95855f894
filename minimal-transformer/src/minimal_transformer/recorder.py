"""One process that records: its id, its numbering, its spool files."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from prometheus_client import REGISTRY

from minimal_transformer import counters as slots
from minimal_transformer import rows, segment
from minimal_transformer.body import NO_BODY, StoredBody, stored_body
from minimal_transformer.counters import Counters
from minimal_transformer.durability import GroupCommit
from minimal_transformer.episode import Episode
from minimal_transformer.headers import listed_headers
from minimal_transformer.metrics import RecordMetrics
from minimal_transformer.pairing import pair_of
from minimal_transformer.record import Call, new_record_id, now_us
from minimal_transformer.redaction import REDACTED, Step
from minimal_transformer.sampling import is_sampled
from minimal_transformer.segment import Kind
from minimal_transformer.settings import RecordSettings
from minimal_transformer.spool import Spool
from minimal_transformer.text import storable

logger = logging.getLogger("minimal_transformer.recording")

_ERROR_CHARACTERS = 2000
SHORT_ERROR_CHARACTERS = 120  # of at most 4 bytes each: with it a row fits in a response's reserve
_NAME_CHARACTERS = 2048

Route = tuple[str, str, str]  # model_name, protocol, predict_url


class Recorder:
    """Numbers the calls it chooses to record, and puts them on the spool in that order."""

    def __init__(self, settings: RecordSettings, counters_folder: Path) -> None:
        self.recorder_id = uuid.uuid4().bytes
        self._folder = settings.spool_folder
        # Read for each call.
        self._share = settings.record_sample
        self._max_body_bytes = settings.max_body_bytes
        self._listed = settings.record_headers
        self._paths = settings.redacted_paths
        self._errors_are_redacted = (Step("error"),) in self._paths
        self._process = rows.text_fields(
            settings.shadow_role, settings.inference_service, settings.model_version
        )
        self._seed = segment.seed_of(self.recorder_id)
        self._spool = Spool(
            settings.spool_folder, settings.spool_max_bytes, self.recorder_id, settings.spool_fsync
        )
        self._sequence = 0
        # Numbering and appending are one step, so that the spool has the order of the numbers.
        self._lock = threading.Lock()
        self._counters = Counters(counters_folder)
        self._dropping = Episode(logger, "Calls are recorded again; %d were dropped.")
        self.group_commit = GroupCommit(self._take_unsynced)
        self.metrics = RecordMetrics(self._counters, settings.spool_folder)
        _publish(self.metrics)

    def close(self) -> None:
        """Leave the spool files to delivery; a later record opens a new one."""
        with self._lock:
            self._spool.close()

    def record_request(
        self, body: bytes, headers: Mapping[str, str], route: Route, data: bytes | None
    ) -> Call | None:
        """The call, once its request row is on the spool; None when unsampled or dropped."""
        try:
            pair_id, source = pair_of(headers)
            if not is_sampled(pair_id, self._share):
                return None
        except Exception as error:
            self._drop(error, numbered=False)
            return None
        numbered = False
        try:
            time_us = now_us()
            call = Call(new_record_id(time_us), time_us, time.perf_counter_ns(), pair_id)
            stored = stored_body(body, data, self._max_body_bytes, self._paths)
            listed = listed_headers(headers, self._listed)
            pair, encoded_route = rows.text_fields(pair_id, source), _route_fields(route)
            with self._lock:
                self._sequence += 1
                numbered = True
                row = rows.encode_request(
                    record_id=call.record_bytes,
                    request_time_us=time_us,
                    recorder_id=self.recorder_id,
                    sequence=self._sequence,
                    pair=pair,
                    process=self._process,
                    route=encoded_route,
                    headers=listed,
                    body=stored,
                )
                frame = segment.encode_frame(Kind.REQUEST, time_us, row, self._seed)
                self._spool.append_request(frame)
        except Exception as error:
            self._drop(error, numbered)
            return None
        self._counters.add(slots.SPOOLED)
        if self._dropping.count:
            self._dropping.passed()
        return call

    def record_response(
        self,
        call: Call,
        status_code: int,
        body: bytes | None,
        error: str | None,
        data: bytes | None,
    ) -> None:
        """Put the call's response row on the spool, without its body where that has no room."""
        try:
            duration_ms = (time.perf_counter_ns() - call.started_ns) / 1e6
            time_us = now_us()
            if error is not None:
                error = storable(error, _ERROR_CHARACTERS)
                error = REDACTED if self._errors_are_redacted else error

            def frame(stored: StoredBody, error: str | None) -> segment.Pieces:
                row = rows.encode_response(
                    record_id=call.record_bytes,
                    request_time_us=call.request_time_us,
                    response_time_us=time_us,
                    status_code=status_code,
                    duration_ms=duration_ms,
                    error=error,
                    body=stored,
                )
                return segment.encode_frame(Kind.RESPONSE, time_us, row, self._seed)

            stored = stored_body(body, data, self._max_body_bytes, self._paths)
            whole = frame(stored, error)
            with self._lock:
                self._spool.append_response(
                    whole,
                    lambda: frame(
                        _without_content(stored), error and error[:SHORT_ERROR_CHARACTERS]
                    ),
                )
        except Exception as fault:
            self._drop(fault, numbered=True)

    def _drop(self, error: Exception, numbered: bool) -> None:
        """Count a lost record; its number stays unused, so that the tables show the hole."""
        with self._lock:
            if not numbered:
                self._sequence += 1
            self._counters.add(slots.DROPPED)
            self._dropping.hit(
                f"Calls are answered but not recorded: {type(error).__name__}: {error}. Free space"
                f" in {self._folder}, raise SPOOL_MAX_BYTES or make it writable."
            )

    def _take_unsynced(self) -> list[int]:
        with self._lock:
            return self._spool.take_unsynced()


@lru_cache(maxsize=256)
def _route_fields(route: Route) -> bytes:
    return rows.text_fields(*(storable(part, _NAME_CHARACTERS) for part in route))


def _without_content(stored: StoredBody) -> StoredBody:
    if stored.size is None:
        return NO_BODY
    return StoredBody(None, None, stored.size, truncated=True, hashed=None)


_published: list[RecordMetrics] = []


def _publish(metrics: RecordMetrics) -> None:
    """Have /metrics show these figures, in the place of an earlier recorder's of this process."""
    while _published:
        REGISTRY.unregister(_published.pop())
    REGISTRY.register(metrics)
    _published.append(metrics)
