"""Servers that stand in for a transformer: one that records what reaches it, and broken ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
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
def answering(name: str, status: int = 200, hold: bool = False) -> Iterator[Backend]:
    """A server that records each call and answers with its own name; `hold`: once released."""
    backend = Backend(name)
    released = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        backend.calls.append(Received(request.path, headers, len(body)))
        if hold:
            await released.wait()
        return web.json_response({"from": name}, status=status)

    async def serve(ready: Callable[[int], None]) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        loop = asyncio.get_running_loop()
        backend.release = lambda: loop.call_soon_threadsafe(released.set)
        ready(runner.addresses[0][1])
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    with _in_thread(serve, backend):
        yield backend


@contextlib.contextmanager
def resetting() -> Iterator[Backend]:
    """A server that resets each connection once the first bytes are there."""
    backend = Backend("resetting")

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            await reader.read(1)
        finally:
            writer.transport.abort()

    async def serve(ready: Callable[[int], None]) -> None:
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        ready(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

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
    serve: Callable[[Callable[[int], None]], object], backend: Backend
) -> Iterator[None]:
    """Run a server's coroutine in a loop of its own until the block ends."""
    loop = asyncio.new_event_loop()
    listening = threading.Event()

    def ready(port: int) -> None:
        backend.port = port
        listening.set()

    task = loop.create_task(serve(ready))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    assert listening.wait(30)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.run_until_complete(_end_all(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end_all(tasks: set[asyncio.Task[object]]) -> None:
    """End what connections left running; their transports close in the turn after."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
