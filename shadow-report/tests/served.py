"""An application of aiohttp behind a real socket, next to a test that waits."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


@contextmanager
def held_port() -> Iterator[int]:
    """A port that refuses connections, and that only a server which is told of it takes."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def served(application: web.Application, port: int = 0) -> Iterator[int]:
    """The application on a port of its own, in a thread, until the block ends."""
    loop, started, stopping = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    ports: list[int] = []

    async def serve() -> None:
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ports.append(runner.addresses[0][1])
        started.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(60)
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(60)
        loop.close()
