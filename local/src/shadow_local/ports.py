"""TCP ports of this machine: is one free, and which one to take."""

from __future__ import annotations

import errno
import random
import socket

# Below Linux's and macOS's ephemeral ranges, so that no outgoing connection takes one meanwhile.
LOWEST, HIGHEST = 20_000, 32_000


class PortBusy(Exception):
    """Something else listens there; the message says who wanted which port and what to do."""


def is_free(port: int) -> bool:
    """Could a server listen on this port now, on every address?"""
    # A server on 127.0.0.1 alone does not stop one on 0.0.0.0 everywhere, so both are tried.
    return all(_binds(host, port) for host in ("127.0.0.1", "0.0.0.0"))  # noqa: S104


def free_port(preferred: int | None = None) -> int:
    """The preferred port when it is free, else any free one outside the ephemeral range."""
    if preferred is not None and is_free(preferred):
        return preferred
    while True:
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311
        if is_free(port):
            return port


def demand(port: int, who: str, variable: str) -> int:
    """The port itself, when it is free; PortBusy otherwise."""
    if not is_free(port):
        raise PortBusy(
            f"Port {port} ({who}) is in use; stop what listens there or set {variable} to another."
        )
    return port


def _binds(host: str, port: int) -> bool:
    with socket.socket() as listener:
        # As servers do: connections of the last run in TIME_WAIT do not keep a port busy.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
