"""A predictor whose streams a test writes down: pieces to send, things to wait for, a cut."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from scripted import CHUNKED, Seen, _read, answer

HEAD = CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n")
# The predictor's death in the middle: its kernel resets the connection.
CUT = object()
# Its orderly end without the last chunk.
CLOSE = object()
Step = bytes | Callable[[], object] | object


def event(content: str | None, index: int = 0, **more: object) -> bytes:
    """An event of a chat completion."""
    delta = {} if content is None else {"content": content}
    return as_event({"choices": [{"index": index, "delta": delta, "finish_reason": None} | more]})


def as_event(found: object) -> bytes:
    """An object as an event of a chat completion."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "model"}
    return (
        b"data: "
        + json.dumps(head | found if isinstance(found, dict) else found).encode()
        + b"\n\n"
    )


DONE = b"data: [DONE]\n\n"


@dataclass
class StreamingPredictor:
    """Answers a call whose body has {"do": name} with the script of that name; else as unary."""

    scripts: dict[str, Iterable[Step]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)  # a reader closed on us
    sent_bytes: int = 0

    def __enter__(self) -> StreamingPredictor:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while (seen := _read(stream)) is not None:
                    if not self._answer(connection, seen):
                        return
            except OSError:
                self.gone.set()

    def _answer(self, connection: socket.socket, seen: Seen) -> bool:
        if seen.line.startswith("GET"):
            models = b'{"object": "list", "data": [{"id": "model", "object": "model"}]}'
            connection.sendall(
                answer(body=models if seen.line.split()[1].endswith("models") else b"{}")
            )
            return True
        self.seen.append(seen)
        name = _script_of(seen.body)
        if name not in self.scripts:
            connection.sendall(
                answer(body=b'{"echo": ' + json.dumps(seen.body.decode("latin-1")).encode() + b"}")
            )
            return True
        connection.sendall(HEAD)
        for step in self.scripts[name]:
            if isinstance(step, bytes):
                connection.sendall(b"%x\r\n" % len(step) + step + b"\r\n")
                self.sent_bytes += len(step)
            elif step is CUT:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            elif step is CLOSE:
                return False
            elif callable(step):
                step()
        connection.sendall(b"0\r\n\r\n")
        return True


def _script_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["do"])
    except (ValueError, KeyError, TypeError):
        return ""
