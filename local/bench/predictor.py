"""A predictor that answers at once, v1 and v2, so that the hop in front of it is what is measured.

Each answer holds the values of its request and is about as long. It computes nothing: with the
example in its place, KServe's own server would be the limit. A chat is streamed: `max_tokens`
events, `pause_ms` apart. Runs in minimal-transformer's environment, for its uvloop.
"""

import argparse
import asyncio
import json
import re
from typing import cast

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
MODEL = b'{"name":"model","ready":true}'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1795645771,"model":"model",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)


class Connection(asyncio.Protocol):
    """One caller's connection, kept open; what arrives before a body is whole waits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self.received = bytearray()
        self.streams: set[asyncio.Task[None]] = set()
        self.may_write = asyncio.Event()
        self.may_write.set()

    def pause_writing(self) -> None:
        self.may_write.clear()

    def resume_writing(self) -> None:
        self.may_write.set()

    def connection_lost(self, _: Exception | None) -> None:
        for task in self.streams:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.received[:end])
            length = int(found[1]) if (found := LENGTH.search(head)) else 0
            if len(self.received) < end + 4 + length:
                return
            body = bytes(self.received[end + 4 : end + 4 + length])
            del self.received[: end + 4 + length]
            if body.startswith(b'{"messages"'):
                task = asyncio.create_task(self.stream(**json.loads(body)))
                self.streams.add(task)
                task.add_done_callback(self.streams.discard)
                continue
            answer = answer_to(head, body)
            self.transport.write(HEAD % len(answer) + answer)

    async def stream(self, max_tokens: int, pause_ms: float, **_: object) -> None:
        self.transport.write(STREAM)
        for _number in range(max_tokens):
            self.write_event(TOKEN)
            if pause_ms:
                await asyncio.sleep(pause_ms / 1000)
            await self.may_write.wait()
        self.write_event(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    def write_event(self, event: bytes) -> None:
        self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))


def answer_to(head: bytes, body: bytes) -> bytes:
    """The answer's body; a GET asks whether the model is ready."""
    if head.startswith(b"GET"):
        return MODEL
    if body.startswith(b'{"values"'):
        return body.replace(b'"values"', b'"predictions"', 1)
    # An answer of v2 says whose it is.
    return b'{"model_name":"model",' + body[1:].replace(b'"inputs"', b'"outputs"', 1)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http_port", type=int, required=True)
    arguments, _ = parser.parse_known_args()
    uvloop.run(serve(arguments.http_port))
