"""A caller's connection: uvicorn's protocol, with an end to every wait and one write per answer."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from minimal_transformer.limits import SILENT_SECONDS

# In the scope of a call whose connection is lost.
CALLER_LEFT = "minimal_transformer.caller_left"
# In the scope of one whose answer holds room until it is read.
LARGE_ANSWER = "minimal_transformer.large_answer"
# What is open without any call.
DESCRIPTORS_OF_OURS = 128
# Of a request before its body.
MAX_HEAD_BYTES = 2 * 1024 * 1024
# A caller that reads less of its answer in this time holds memory for nothing.
READING_SECONDS = 10.0
SLOWEST_READING_BYTES = 64 * 1024
# What the kernel takes of an answer before its caller reads: by itself up to 4 MiB of each, which
# count as the pod's memory as ours does.
UNSENT_BYTES = 64 * 1024
UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})
# What is still to be sent on a connection that is closed has so long.
_LINGER_SECONDS = 30.0


class GatheringTransport:
    """A transport that sends what is written within one turn of the event loop at once."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        # Read for each answer; what is read once for a connection goes through __getattr__.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold the data until this turn of the loop ends."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # A reader that takes nothing would have the connection stay for ever.
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self.is_closing():
            self._transport.writelines(held)


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's, for callers that are slow, gone, too many, or would rather speak another protocol.

    It answers in one TCP segment, where uvicorn writes head and body apart; every wait for a caller
    has an end; trailers are not headers; an upgrade is not done, and the call counts.
    """

    def connection_made(self, transport: Any) -> None:
        """Start on a new connection; where there are too many, in the place of an idle one."""
        super().connection_made(GatheringTransport(transport, self.loop))  # type: ignore[arg-type]
        _bound_unsent(transport)
        self._head_bytes = 0
        self._head_deadline = 0.0
        self._unsent = 0
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._close_an_idle_one()
        self._await_data()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have the call that is not answered yet know that its caller is gone."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cast(dict[str, Any], cycle.scope)[CALLER_LEFT] = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came; then either a call is on its way, or the next bytes are due."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
            return
        cycle = self.cycle
        if self.scope is None or self.headers is not self.scope["headers"]:
            if cycle is None or cycle.response_complete or cycle.more_body:
                self._await_data()
        else:  # a message has begun whose headers are not complete
            self._head_bytes += len(data)
            self._await_rest_of_head()

    def on_headers_complete(self) -> None:
        """Start the call, unless it asks for an upgrade: then its head comes once more."""
        super().on_headers_complete()
        if self.parser.should_upgrade():
            return
        self._head_bytes = 0
        self._head_deadline = 0.0
        self.headers = []  # trailers go here, where nobody reads them

    def _should_upgrade(self) -> bool:
        """True where it is asked for, so that uvicorn starts no call and leaves it to us."""
        return True

    def pause_writing(self) -> None:
        """Watch whether the caller of a large answer reads it."""
        super().pause_writing()
        if LARGE_ANSWER not in self.cycle.scope:
            return
        self._unsent = self.transport.get_write_buffer_size()
        self.loop.call_later(READING_SECONDS, self._look_whether_it_reads)

    def _look_whether_it_reads(self) -> None:
        if not self.flow.write_paused or self.transport.is_closing():
            return
        unsent = self.transport.get_write_buffer_size()
        if self._unsent - unsent < SLOWEST_READING_BYTES:
            self.transport.abort()
            return
        self._unsent = unsent
        self.loop.call_later(READING_SECONDS, self._look_whether_it_reads)

    def _await_data(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self._patience(), self.timeout_keep_alive_handler
        )

    def _patience(self) -> float:
        """A caller that has been answered may be idle; any other is to go on with its call."""
        cycle = self.cycle
        is_idle = cycle is not None and cycle.response_complete
        return self.timeout_keep_alive if is_idle else SILENT_SECONDS

    def _await_rest_of_head(self) -> None:
        """A head has one deadline, however often a byte of it comes, and a limit."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response("The request's headers are too long.")
            return
        if not self._head_deadline:
            self._head_deadline = self.loop.time() + SILENT_SECONDS
        self.timeout_keep_alive_task = self.loop.call_at(
            self._head_deadline, self.timeout_keep_alive_handler
        )

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the message anew without its wish: the parser takes no body of one that upgrades."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("This is not a proxy.")
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                kept = b", ".join(t for t in tokens if t.lower() not in UPGRADE_HEADERS)
                lines.append(b"connection: %b" % kept)
            elif name not in UPGRADE_HEADERS:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    def _close_an_idle_one(self) -> None:
        """One that never sent anything, else one whose calls are answered."""
        others = [c for c in self.connections if isinstance(c, PatientProtocol) and c is not self]
        silent = (c for c in others if c.scope is None)
        idle = (c for c in others if c.cycle is not None and c.cycle.response_complete)
        chosen = next(silent, None) or next(idle, None)
        if chosen is not None:
            chosen.transport.close()
            self.connections.discard(chosen)


def _bound_unsent(transport: asyncio.Transport) -> None:
    """Have what a caller does not read wait here, and so at the predictor, and not in the kernel.

    What is sent and not yet acknowledged has no such bound, so that a distant caller loses nothing.
    """
    connection = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if connection is not None and option is not None:
        with contextlib.suppress(OSError):  # it is lost already, or not TCP
            connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


def connections_allowed(wanted: int) -> int:
    """At most so many that each call still finds a descriptor for its hop."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    return max(16, min(wanted, (descriptors - DESCRIPTORS_OF_OURS) // 2))
