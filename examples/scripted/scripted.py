"""A predictor that does what a call's body says. Plain sockets, no HTTP library.

{"do": "hang"} names an answer of SCRIPT, or one of hang, reset, "slow 2". {"answer": {"status":
"666 Odd", "headers": {"x-a": "b"}, "body": "text", "pause": 0.5}} dictates one; "size": n and
"chunked": true make it long and of unknown length, and "shadow_answer" is for the shadow alone,
which the header x-shadow tells it that it is. v2 tensors come back as they are. Try it:

    make install PROJECT=examples/scripted && make up KUSTOMIZATION=examples/scripted
    curl "$PREDICT_URL" -d '{"answer": {"body": "{}"}, "shadow_answer": {"status": "500 Oops"}}'
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, BinaryIO

ANSWER = b'{"predictions": [1.50, 2E2]}'
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Seen:
    """A request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(
    status: str = "200 OK", body: bytes = ANSWER, type_: str = "application/json", more: str = ""
) -> bytes:
    """A whole HTTP answer."""
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {type_}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


SCRIPT: dict[str, bytes] = {
    "answer": answer(),
    "bad request": answer("400 Bad Request", b'{"error": "values[1] is not a number"}'),
    "not found": answer("404 Not Found", b'{"error": "no such model"}'),
    "busy": answer("503 Service Unavailable", b'{"error": "busy"}', more="retry-after: 7\r\n"),
    "broken": answer("500 Internal Server Error", b"<h1>Oops</h1>", "text/html"),
    "created": answer("201 Created"),
    "empty error": answer("500 Internal Server Error", b"", "text/plain"),
    "redirect": answer("302 Found", b"", more="location: http://10.9.8.7/secret\r\n"),
    "text": answer(body=b"plain \xff\x00 bytes", type_="application/x-custom"),
    "charset": answer(type_="application/json; charset=utf-8"),
    "nan": answer(body=b'{"predictions": [NaN, Infinity]}'),
    "gzip": answer(body=b"\x1f\x8b\x08\x00fake", more="content-encoding: gzip\r\n"),
    "chatty": answer(more="set-cookie: a=b\r\nserver: secret/1\r\nx-internal: 10.0.0.1\r\n"),
    "truncated": answer()[:-5],
    "garbage": b"this is not HTTP\r\n\r\n",
    "silent": b"",
    "chunked": CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "half chunk": CHUNKED + b"9\r\nabc",
}
CLOSING = {"truncated", "garbage", "silent", "half chunk"}


@dataclass
class ScriptedPredictor:
    """Listens until the `with` block ends; `seen` holds every request in the order of arrival."""

    port: int = 0
    host: str = "127.0.0.1"
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    ready: bool = True
    ready_asked: int = 0
    # Where it knows nothing when it is asked.
    not_found: tuple[str, ...] = ()
    # Close the connection instead of answering so many of the next calls.
    drop_next: int = 0

    def __enter__(self) -> ScriptedPredictor:
        self._listener = socket.create_server((self.host, self.port), backlog=512)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.release = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # close() alone lets the accept go on
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        """End every open connection, as a predictor does with idle ones."""
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while (seen := _read(stream)) is not None:
                    if not self._answer(connection, seen):
                        return
            except OSError:
                return

    def _answer(self, connection: socket.socket, seen: Seen) -> bool:
        """Answer one request; False when the connection is to be closed."""
        if seen.line.startswith("GET"):
            self.ready_asked += 1
            state = b'{"ready": true}' if self.ready else b'{"error": "not ready"}'
            status = "200 OK" if self.ready else "503 Service Unavailable"
            if seen.line.split()[1].startswith(self.not_found):
                status = "404 Not Found"
            connection.sendall(answer(status, state))
            return True
        self.seen.append(seen)
        if self.drop_next > 0:
            self.drop_next -= 1
            return False
        # Once: of the largest bodies this is all of the predictor's work.
        document = _document(seen.body)
        dictated = _dictated(document, seen.headers.get("x-shadow") == "true")
        if dictated is not None:
            time.sleep(float(dictated.get("pause", 0)))
            connection.sendall(_answer_of(dictated))
            return True
        what = _wanted(document)
        if what == "hang":
            self.release.wait(30)
            return False
        if what == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if what.startswith("slow "):
            time.sleep(float(what.removeprefix("slow ")))
            what = "answer"
        tensors = _tensors(document) if what == "answer" else None
        if tensors is not None:
            connection.sendall(answer(body=json.dumps({"outputs": tensors}).encode()))
        else:
            connection.sendall(SCRIPT[what])
        return what not in CLOSING


def body(what: str) -> bytes:
    """The body that makes the predictor do it."""
    return json.dumps({"do": what}).encode()


def _document(sent: bytes) -> Any:
    """The body as JSON; None where it is not."""
    try:
        return json.loads(sent)
    except (ValueError, RecursionError):
        return None


def _dictated(document: Any, is_shadow: bool) -> dict[str, Any] | None:
    """What the body says that the answer is to be."""
    try:
        script = document if "answer" in document else document["parameters"]
        wanted = script["answer"]
        if is_shadow:
            wanted = script.get("shadow_answer", wanted)
        answer: dict[str, Any] = json.loads(wanted) if isinstance(wanted, str) else wanted
        if "body" in answer:  # it may quote the call
            answer["body"] = str(answer["body"]).replace("<secret>", str(document.get("secret")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return answer


def _tensors(document: Any) -> list[object] | None:
    """The tensors of a v2 request that says nothing else: it gets them back, in JSON alone."""
    try:
        inputs: list[object] = document["inputs"]
        return inputs if inputs and "do" not in document.get("parameters", {}) else None
    except (KeyError, TypeError, AttributeError):
        return None


def _answer_of(dictated: dict[str, Any]) -> bytes:
    sent = str(dictated.get("body", "{}")).encode()
    if "size" in dictated:
        sent = bytes(int(dictated["size"]))
    headers = {"content-type": "application/json", "content-length": str(len(sent))}
    if dictated.get("chunked"):
        del headers["content-length"]
        headers["transfer-encoding"] = "chunked"
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent)
    headers |= dictated.get("headers", {})
    lines = [f"HTTP/1.1 {dictated.get('status', '200 OK')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + sent


def _wanted(document: Any) -> str:
    try:
        return str(document["do"] if "do" in document else document["parameters"]["do"])
    except (KeyError, TypeError):
        return "answer"


def _read(stream: BinaryIO) -> Seen | None:
    line = stream.readline().decode("latin-1").strip()
    if not line:
        return None
    headers: dict[str, str] = {}
    while head := stream.readline().decode("latin-1").strip():
        name, _, value = head.partition(":")
        headers[name.lower()] = value.strip()
    length = int(headers.get("content-length", 0))
    if headers.get("transfer-encoding") == "chunked":
        sent = b""
        while size := int(stream.readline(), 16):
            sent += stream.read(size)
            stream.readline()
        stream.readline()
        return Seen(line, headers, sent)
    return Seen(line, headers, stream.read(length))


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http_port", type=int, default=8080)
    arguments, _ = parser.parse_known_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ScriptedPredictor(host="0.0.0.0", port=arguments.http_port):  # noqa: S104  a pod's
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
