"""The REST inference endpoints: the body's bytes in, the answer's bytes out.

They stand in front of KServe's app, which serves every other path. KServe's own inference
routes would decode the body, lose the answer's bytes and change some statuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from minimal_transformer.exchange import Arrival
from minimal_transformer.transformer import PersistTransformer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class InferenceEndpoints:
    """An ASGI app that answers this model's inference calls and leaves the rest to KServe's app."""

    def __init__(self, kserve_app: App, model: PersistTransformer) -> None:
        self._kserve_app = kserve_app
        self._answer = model.answer
        self._routes = {r.path: r for r in model.routes() if r.protocol != "grpc"}

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
