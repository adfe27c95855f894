"""Servers that stand in for a transformer: one that records what reaches it, and broken ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True)
class Received:
    """A call as it reached a server."""

    path: str
    headers: dict[str, str]
    size: int


@dataclass
class Backend:
    """A server on 127.0.0.1; `release` lets the answers go that it holds back."""

    name: str
    port: int = 0
    calls: list[Received] = field(default_factory=list)
    release: Callable[[], object] = lambda: None

    @property
    def pair_ids(self) -> list[str]:
        return [call.headers.get("x-shadow-pair-id", "") for call in self.calls]


@contextlib.contextmanager
def answering(
    name: str, status: int = 200, hold: bool = False, seconds: float = 0
) -> Iterator[Backend]:
    """A server that records each call and answers with its own name, after so many seconds;
    `hold`: once released.
    """
    backend = Backend(name)
    released = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        backend.calls.append(Received(request.path, headers, len(body)))
        if hold:
            await released.wait()
        await asyncio.sleep(seconds)
        return web.json_response({"from": name}, status=status)

    async def serve(listener: socket.socket, ended: asyncio.Event) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        loop = asyncio.get_running_loop()
        backend.release = lambda: loop.call_soon_threadsafe(released.set)
        await ended.wait()
        await _accept_no_more(listener)
        await runner.cleanup()

    with _in_thread(serve, backend):
        yield backend


@contextlib.contextmanager
def resetting() -> Iterator[Backend]:
    """A server that resets each connection once the first bytes are there."""
    backend = Backend("resetting")

    open_connections: set[asyncio.Transport] = set()

    class Reset(asyncio.Protocol):
        transport: asyncio.Transport

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            self.transport = transport
            open_connections.add(transport)

        def data_received(self, data: bytes) -> None:
            self.transport.abort()

        def connection_lost(self, error: Exception | None) -> None:
            open_connections.discard(self.transport)

    async def serve(listener: socket.socket, ended: asyncio.Event) -> None:
        server = await asyncio.get_running_loop().create_server(Reset, sock=listener)
        await ended.wait()
        await _accept_no_more(listener)
        server.close()
        for connection in open_connections:
            connection.abort()

    with _in_thread(serve, backend):
        yield backend


@contextlib.contextmanager
def stuck() -> Iterator[Backend]:
    """A server that takes connections and never reads from them."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield Backend("stuck", listener.getsockname()[1])


@contextlib.contextmanager
def unreachable() -> Iterator[Backend]:
    """A port whose connections are never completed: its queue is full and nobody empties it."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(8):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        yield Backend("unreachable", address[1])


@contextlib.contextmanager
def refusing() -> Iterator[Backend]:
    """A port that refuses connections: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Backend("refusing", bound.getsockname()[1])


@contextlib.contextmanager
def _in_thread(
    serve: Callable[[socket.socket, asyncio.Event], Coroutine[None, None, None]], backend: Backend
) -> Iterator[None]:
    """Run a server's coroutine in a loop of its own until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    backend.port = listener.getsockname()[1]
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(listener, ended),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.run_until_complete(_some_turns())
        loop.close()


async def _accept_no_more(listener: socket.socket) -> None:
    """Leave new connections alone, and let those already accepted become whole, so that they can be
    closed: a server of asyncio that is closed in between leaks them."""
    asyncio.get_running_loop().remove_reader(listener)
    await _some_turns()


async def _some_turns() -> None:
    """Let the loop finish what it has begun: to make a connection or to end one."""
    for _ in range(10):
        await asyncio.sleep(0)
