"""A thousand streams at once: under the pod's memory limit, each with its exact record."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from processes import descendants
from serving import Transformer, counts, until
from streaming import DONE, HEAD, event

COUNT = 1000
EVENTS = 20
LARGE = event("z" * 100_000)
SMALL = event("word ")
LONG = event("z" * 15_000)
# The limit of manifests/inference for the whole pod.
POD_BYTES = 768 * 2**20
# Of a stream that is held back: what the kernel has of it on both sides of the server.
KERNEL_BYTES = 128 * 1024


class Engine:
    """Streams the same events to every caller, as fast as each of them reads.

    Once it was told to `hold_back`, the last event of each stream waits for `finish`.
    """

    def __init__(self, chosen: bytes) -> None:
        self._event = chosen
        self._loop = asyncio.new_event_loop()
        self._may_finish = asyncio.Event()
        self._may_finish.set()
        self.served = 0
        self.sent_bytes = 0

    def __enter__(self) -> Engine:
        started = threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=2 * COUNT)
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            async with server:
                await server.serve_forever()

        self._serving = self._loop.create_task(serve())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        started.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def hold_back(self) -> None:
        """From now on no stream comes to its end before `finish`."""
        self._loop.call_soon_threadsafe(self._may_finish.clear)

    def finish(self) -> None:
        """Let every stream come to its end."""
        self._loop.call_soon_threadsafe(self._may_finish.set)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                # So that what was sent has left for the transformer, and does not wait here.
                writer.transport.set_write_buffer_limits(0)
                sending = writer.get_extra_info("socket")
                sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
                await reader.readexactly(
                    int(re.findall(rb"content-length: (\d+)", head, re.IGNORECASE)[0])
                )
                writer.write(HEAD)
                for number in range(EVENTS):
                    if number == EVENTS - 1:
                        await self._may_finish.wait()
                    writer.write(b"%x\r\n%s\r\n" % (len(self._event), self._event))
                    await writer.drain()
                    self.sent_bytes += len(self._event)
                writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(DONE), DONE))
                await writer.drain()
                self.served += 1
        writer.close()


@pytest.fixture
def crowd(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_uri: str
) -> Iterator[tuple[Transformer, Engine]]:
    with (
        Engine(request.param) as engine,
        Transformer(tmp_path, postgres_uri, engine.address) as transformer,
    ):
        yield transformer, engine


def peak_bytes(transformer: Transformer) -> int:
    """The most memory that the server and its delivery have had at any time."""
    pids = [transformer.process.pid, *descendants(transformer.process.pid)]
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024 for text in statuses)


async def call(transformer: Transformer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A streamed call of which nothing is read yet; its buffers here are small."""
    caller = socket.socket()
    caller.setblocking(False)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
    address = ("127.0.0.1", transformer.http_port)
    await asyncio.get_running_loop().sock_connect(caller, address)
    reader, writer = await asyncio.open_connection(sock=caller, limit=1024)
    body = b"{}"
    writer.write(
        b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
    )
    await writer.drain()
    return reader, writer


def ends(uri: str) -> dict[str, int]:
    """How many streams ended how."""
    query = "SELECT generation->>'stream_end', count(*) FROM inference_responses GROUP BY 1"
    with psycopg.connect(uri) as connection:
        return dict(connection.execute(query.encode()).fetchall())


@pytest.mark.parametrize("crowd", [SMALL], indirect=True)
def test_a_thousand_readers(crowd: tuple[Transformer, Engine], postgres_uri: str) -> None:
    """All get all, and every row has the text, its chunks and its end."""
    transformer, engine = crowd

    async def read_all() -> list[bytes]:
        opened = await asyncio.gather(*(call(transformer) for _ in range(COUNT)))
        got = await asyncio.gather(*(reader.read(-1) for reader, _ in opened))
        for _, writer in opened:
            writer.close()
        return got

    answers = asyncio.run(read_all())
    until(lambda: engine.served == COUNT, "the engine's count of what it sent to its end")
    assert all(answer.count(b"word ") == EVENTS for answer in answers)
    assert all(answer.endswith(b"0\r\n\r\n") for answer in answers)
    assert peak_bytes(transformer) < POD_BYTES
    assert transformer.stop() == 0
    assert counts(postgres_uri) == (COUNT, COUNT, 0)
    assert ends(postgres_uri) == {"done": COUNT}
    with psycopg.connect(postgres_uri) as connection:
        told = connection.execute(
            "SELECT DISTINCT response_data #>> '{choices,0,message,content}', generation->>'chunks'"
            " FROM inference_responses"
        ).fetchall()
    assert told == [("word " * EVENTS, str(EVENTS))]


@pytest.mark.parametrize("crowd", [LONG], indirect=True)
def test_a_thousand_long_answers(crowd: tuple[Transformer, Engine], postgres_uri: str) -> None:
    """Three times what may be kept of all: each is passed on whole, and recorded as far as it goes.

    What is kept of a stream is its beginning, as JSON that parses; its size is the true one.
    """
    transformer, engine = crowd
    size = EVENTS * len(LONG) + len(DONE)

    async def read_all() -> list[int]:
        engine.hold_back()
        # All are open when each of them has come this far: that much is to be kept at one time.
        barrier, far = asyncio.Barrier(COUNT), (EVENTS - 1) * len(LONG)
        opened = [await call(transformer) for _ in range(COUNT)]

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
            count = 0
            while count < far:
                piece = await reader.read(2**16)
                assert piece, "it ended before its last event"
                count += len(piece)
            await barrier.wait()
            engine.finish()
            while piece := await reader.read(2**16):
                count += len(piece)
            writer.close()
            return count

        return await asyncio.gather(*(read(*one) for one in opened))

    received = asyncio.run(read_all())
    assert min(received) > size  # with heads and the lengths of chunks
    until(lambda: engine.served == COUNT, "the engine's count of what it sent to its end")
    peak = peak_bytes(transformer)
    assert peak < POD_BYTES, f"{peak / 2**20:.0f} MiB"
    assert transformer.stop() == 0
    assert counts(postgres_uri) == (COUNT, COUNT, 0)
    assert ends(postgres_uri) == {"done": COUNT}
    with psycopg.connect(postgres_uri) as connection:
        told = connection.execute(
            "SELECT min(response_size), max(response_size), min(generation->>'chunks'),"
            " count(*) FILTER (WHERE response_truncated),"
            " min(length(response_data #>> '{choices,0,message,content}'))"
            " FROM inference_responses"
        ).fetchone()
    assert told is not None
    assert told[:3] == (size, size, str(EVENTS))
    assert told[3] > 0  # there was more than may be kept, or nothing was shown
    assert told[4] > 0
    assert "Traceback" not in transformer.log
    print(f"peak {peak / 2**20:.0f} MiB; {told[3]} cut, the shortest to {told[4]} characters")


@pytest.mark.parametrize("crowd", [LARGE], indirect=True)
def test_a_thousand_readers_that_do_not_read(
    crowd: tuple[Transformer, Engine], postgres_uri: str
) -> None:
    """Two gigabytes wait at the predictor, not here; when the callers leave, all is let go.

    What the kernel holds for the server counts as the pod's memory, not as any process's own.
    """
    transformer, engine = crowd

    async def stall() -> int:
        opened = await asyncio.gather(*(call(transformer) for _ in range(COUNT)))
        for reader, _ in opened:
            await reader.readuntil(b"\r\n\r\n")  # the head: each is under way
        state, before = (0, 0), None
        while state != before:  # until the predictor gets rid of no more
            await asyncio.sleep(2)
            state, before = (peak_bytes(transformer), engine.sent_bytes), state
        peak, _ = state
        for _, writer in opened:
            writer.transport.abort()
        return peak

    peak = asyncio.run(stall())
    assert engine.served < COUNT
    held = engine.sent_bytes / COUNT
    assert peak + COUNT * KERNEL_BYTES < POD_BYTES, f"{peak / 2**20:.0f} MiB"
    assert held < 4 * KERNEL_BYTES, f"{held / 1024:.0f} KiB of each have left the predictor"
    until(lambda: ends(postgres_uri) == {"left": COUNT}, "every stream's row")
    assert transformer.stop() == 0
    assert counts(postgres_uri) == (COUNT, COUNT, 0)
    assert "Traceback" not in transformer.log
    print(f"peak {peak / 2**20:.0f} MiB; {held / 1024:.0f} KiB of each have left the predictor")
