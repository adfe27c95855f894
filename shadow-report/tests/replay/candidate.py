"""A candidate over real HTTP: answers like a model and records like its transformer would."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg
from aiohttp import web
from served import served

CALL = """
INSERT INTO inference_requests (record_id, request_time, recorder_id, sequence, pair_id,
    pair_source, role, inference_service, model_name, protocol, predict_url, request_headers,
    request_data, request_raw, request_size, request_sha256, request_truncated)
VALUES (%s, %s, %s, %s, %s, 'x-shadow-pair-id', %s, %s, 'model', %s, %s, %s, %s, %s, %s, %s, %s)
"""
ANSWER = """
INSERT INTO inference_responses (record_id, request_time, pair_id, response_time, status_code,
    duration_ms, response_data, response_size)
VALUES (%s, %s, %s, %s, %s, 1.5, %s, %s)
"""
PRIMARY_RECORDER, SHADOW_RECORDER = uuid.UUID(int=1), uuid.UUID(int=2)


def record(
    connection: psycopg.Connection,
    *,
    role: str,
    sequence: int,
    pair_id: str,
    body: bytes,
    time: datetime | None = None,
    service: str | None = None,
    protocol: str = "v1",
    path: str = "/v1/models/model:predict",
    headers: dict[str, str] | None = None,
    answer: bytes = b"{}",
    status: int = 200,
    as_json: bool = True,
    cut: bool = False,
) -> None:
    """One call and its answer as rows."""
    record_id = uuid.uuid4()
    time = time or datetime.now(UTC)
    connection.execute(
        CALL,
        (
            record_id,
            time,
            PRIMARY_RECORDER if role == "primary" else SHADOW_RECORDER,
            sequence,
            pair_id,
            role,
            service or ("double" if role == "primary" else "triple"),
            protocol,
            path,
            json.dumps(headers or {}),
            body.decode() if as_json else None,
            None if as_json else body,
            len(body),
            hashlib.sha256(body).digest(),
            cut,
        ),
    )
    connection.execute(
        ANSWER, (record_id, time, pair_id, datetime.now(UTC), status, answer.decode(), len(answer))
    )


def doubled(body: bytes, factor: float = 2) -> bytes:
    """What the example model answers."""
    values = json.loads(body)["values"]
    return json.dumps({"predictions": [round(float(v) * factor, 6) for v in values]}).encode()


START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def store(uri: str, calls: int, factor: float = 2, **how: object) -> None:
    """Primary calls p0, p1, … a second apart, stored in another order than they came."""
    with psycopg.connect(uri) as connection:
        for i in sorted(range(calls), key=lambda i: (i * 7919) % 101):
            body = json.dumps({"values": [f"{i}.5"]}).encode()
            fields: dict[str, object] = {
                "role": "primary",
                "time": START + timedelta(seconds=i),
                "answer": doubled(body, factor),
                "body": body,
            }
            record(connection, sequence=i + 1, pair_id=f"p{i}", **fields | how)  # type: ignore[arg-type]


@dataclass
class Candidate:
    """What arrived, in the order of arrival, and how the candidate behaves."""

    uri: str | None
    factor: float = 2
    delay_seconds: float = 0.0
    status_of: Callable[[int], int] = lambda _: 200
    is_ready: bool = True
    breaks_on: bytes | None = None
    service: str = "candidate"
    role: str = "shadow"
    arrived: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)
    kept: int = 0
    # So many of the first calls are answered once all of them have come.
    together: int = 0
    all_came: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pair_ids(self) -> list[str]:
        return [headers["x-shadow-pair-id"] for _, _, headers in self.arrived]

    async def ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.is_ready else 503)

    async def answer(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            body = await request.read()
            number = len(self.arrived) + 1
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.arrived.append((request.path, body, headers))
            status = self.status_of(number)
            if status == 0 or (self.breaks_on is not None and self.breaks_on in body):
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            if number == self.together:
                self.all_came.set()
            if number <= self.together:
                await self.all_came.wait()
            await asyncio.sleep(self.delay_seconds)
            try:
                answer = doubled(body, self.factor) if status == 200 else b'{"error": "broken"}'
            except (ValueError, KeyError, TypeError):
                status, answer = 400, b'{"error": "bad request"}'
            if self.uri is not None:
                self.keep(request.path, body, headers, status, answer)
            return web.Response(body=answer, status=status, content_type="application/json")
        finally:
            self.at_once -= 1

    def keep(
        self,
        path: str,
        body: bytes,
        headers: dict[str, str],
        status: int,
        answer: bytes,
    ) -> None:
        assert self.uri is not None
        self.kept += 1
        with psycopg.connect(self.uri) as connection:
            record(
                connection,
                role=self.role,
                sequence=self.kept,
                pair_id=headers["x-shadow-pair-id"],
                body=body,
                service=self.service,
                headers={"x-shadow-source": headers.get("x-shadow-source", "")},
                path=path,
                protocol="v1" if path.startswith("/v1") else "v2",
                answer=answer,
                status=status,
                as_json=body.startswith(b"{"),
            )


@contextmanager
def serving(candidate: Candidate, port: int = 0) -> Iterator[Candidate]:
    """The candidate behind a socket of its own, in a thread, until the block ends."""
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/{path:.*}", candidate.answer)
    application.router.add_get("/{path:.*}", candidate.ready)
    with served(application, port) as candidate.port:
        yield candidate
