"""Traffic as the transformers record it: calls as values, written straight into the tables."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from shadow_report.report import Report

# The fixture `compared`: records calls, compares with these settings.
Compare = Callable[..., Report]
# The fixture `command`: records calls, compares with these options, returns the JSON report.
Command = Callable[..., dict[str, Any]]

PRIMARY, SHADOW = "double-minimal-inference", "triple-minimal-inference"
RECORDERS = {"primary": uuid.UUID(int=1), "shadow": uuid.UUID(int=2)}
# Long enough ago that nothing is in flight; a few seconds more are never another minute.
START = datetime.now(UTC).replace(second=10, microsecond=0) - timedelta(hours=2)

REQUEST_COLUMNS = (
    "record_id, request_time, recorder_id, sequence, pair_id, pair_source, role, inference_service,"
    " model_name, model_version, protocol, predict_url, request_headers, request_data, request_raw,"
    " request_size, request_sha256, request_truncated, created_at"
)
RESPONSE_COLUMNS = (
    "record_id, request_time, pair_id, response_time, status_code, error, duration_ms,"
    " ttft_ms, generation, response_data, response_raw, response_size, response_truncated"
)


@dataclass(kw_only=True, slots=True)
class Call:
    """One recorded call: text bodies go to *_data, bytes to *_raw; status None: no response."""

    role: str
    pair_id: str
    answer: str | bytes | None = '{"predictions": [6.6, 124.6, 648.0]}'
    status: int | None = 200
    request: str | bytes = '{"values": ["3.3", "62.3", "324"]}'
    time: datetime = START
    recorded: datetime | None = None
    """When its rows came to the database; None is now."""
    duration_ms: float = 5.0
    service: str | None = None
    source: str = "x-shadow-pair-id"
    model_name: str = "model"
    version: str | None = "1"
    protocol: str = "v1"
    headers: dict[str, str] = field(default_factory=dict)
    recorder: uuid.UUID | None = None
    sequence: int | None = None
    cut: bool = False
    request_cut: bool = False
    unread: bool = False
    """The body was refused before it was read: there is its size, and the hash of nothing."""
    error: str | None = None
    ttft_ms: float | None = None
    generation: dict[str, object] | None = None
    """Of a generated answer: `stream_end`, `prompt_tokens`, `completion_tokens`."""


def pair(
    i: int,
    primary: dict[str, object] | None = None,
    shadow: dict[str, object] | None = None,
    **both: object,
) -> list[Call]:
    """Both calls of pair i; `both` applies to the two of them."""
    time = START + timedelta(seconds=i / 10)
    # Distinct requests: what repeats itself is worth less.
    request = f'{{"values": ["{i}.3", "62.3", "324"]}}'
    common: dict[str, object] = {"pair_id": f"pair-{i}", "time": time, "request": request} | both
    late = {"time": common["time"] + timedelta(milliseconds=2)}  # type: ignore[operator]
    return [
        Call(role="primary", **(common | (primary or {}))),  # type: ignore[arg-type]
        Call(role="shadow", **(common | late | (shadow or {}))),  # type: ignore[arg-type]
    ]


def pairs(count: int, first: int = 0, **both: object) -> list[Call]:
    """This many pairs whose sides agree."""
    return [call for i in range(first, first + count) for call in pair(i, **both)]


def record(uri: str, calls: Iterable[Call]) -> None:
    """Write the calls, numbered per recorder without a hole unless they say otherwise."""
    numbers: dict[uuid.UUID, int] = {}
    requests, responses = [], []
    for call in calls:
        recorder = call.recorder or RECORDERS[call.role]
        numbers[recorder] = call.sequence or numbers.get(recorder, 0) + 1
        record_id = os.urandom(16).hex()
        requests.append(_request_row(call, record_id, recorder, numbers[recorder]))
        if call.status is not None:
            responses.append(_response_row(call, record_id))
    with psycopg.connect(uri) as connection, connection.cursor() as cursor:
        for table, columns, rows in (
            ("inference_requests", REQUEST_COLUMNS, requests),
            ("inference_responses", RESPONSE_COLUMNS, responses),
        ):
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)


def _request_row(
    call: Call, record_id: str, recorder: uuid.UUID, sequence: int
) -> tuple[object, ...]:
    body = call.request.encode() if isinstance(call.request, str) else call.request
    data, raw = (call.request, None) if isinstance(call.request, str) else (None, call.request)
    if call.unread:
        data = raw = None
    return (
        record_id,
        call.time,
        recorder.hex,
        sequence,
        call.pair_id,
        call.source,
        call.role,
        call.service or (PRIMARY if call.role == "primary" else SHADOW),
        call.model_name,
        call.version,
        call.protocol,
        "http://predictor/v1/models/model:predict",
        json.dumps(call.headers) if call.headers else "{}",
        data,
        raw,
        len(body),
        hashlib.sha256(b"" if call.unread else body).digest(),
        call.request_cut or call.unread,
        call.recorded or datetime.now(UTC),
    )


def _response_row(call: Call, record_id: str) -> tuple[object, ...]:
    return (
        record_id,
        call.time,
        call.pair_id,
        call.time + timedelta(milliseconds=call.duration_ms),
        call.status,
        call.error or (None if call.status == 200 else "it failed"),
        call.duration_ms,
        call.ttft_ms,
        None if call.generation is None else json.dumps(call.generation),
        call.answer if isinstance(call.answer, str) else None,
        call.answer if isinstance(call.answer, bytes) else None,
        len(call.answer or ""),
        call.cut,
    )
