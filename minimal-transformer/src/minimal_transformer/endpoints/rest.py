"""The REST inference endpoints: the body's bytes in, the answer's bytes out.

They stand in front of KServe's app, which serves every other path. KServe's own inference
routes would decode the body, lose the answer's bytes and change some statuses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from minimal_transformer.exchange import Answer, Arrival
from minimal_transformer.transformer import PersistTransformer

access_log = logging.getLogger("minimal_transformer.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class InferenceEndpoints:
    """An ASGI app that answers this model's inference calls and leaves the rest to KServe's app."""

    def __init__(self, kserve_app: App, model: PersistTransformer, log_calls: bool = False) -> None:
        self._kserve_app = kserve_app
        self._answer = model.answer
        self._routes = {r.path: r for r in model.routes() if r.protocol != "grpc"}
        self._log_calls = log_calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._kserve_app(scope, receive, send)
        route = self._routes.get(scope["path"])
        if route is None:
            return await self._kserve_app(scope, receive, send)
        body = await _body(receive)
        if body is None:
            return None  # The caller left before it had sent the call.
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        arrival = Arrival(route, body, headers)
        if self._log_calls:
            answer = await self._logged(arrival)
        else:
            answer = await self._answer(arrival)
        length = (b"content-length", b"%d" % len(answer.body))
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [*answer.headers, length],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})
        return None

    async def _logged(self, arrival: Arrival) -> Answer:
        started = time.perf_counter()
        answer = await self._answer(arrival)
        log_call(arrival, answer, started)
        return answer


def log_call(arrival: Arrival, answer: Answer, started: float) -> None:
    """One line for one call: what was asked for, its pair id, its status and how long it took."""
    took_ms = (time.perf_counter() - started) * 1000
    headers = arrival.headers
    pair_id = headers.get("x-shadow-pair-id") or headers.get("x-request-id") or "generated"
    route = arrival.route
    access_log.info(
        "%s %s pair=%s status=%d ms=%.2f",
        route.protocol,
        route.path,
        pair_id,
        answer.status,
        took_ms,
        extra={"pair_id": pair_id, "status": answer.status, "duration_ms": round(took_ms, 3)},
    )


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None when the caller left before its end."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message["body"])
    chunks = []
    while message["type"] == "http.request":
        chunks.append(message["body"])
        if not message.get("more_body"):
            return b"".join(chunks)
        message = await receive()
    return None
