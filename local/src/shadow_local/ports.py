"""TCP ports of this machine: whether one is free, and which one to use."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import random
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shadow_local import Explained

# The system takes ports of its ephemeral range for outgoing connections and keeps each for a minute
# after one: no server can listen there meanwhile, whatever it sets. Linux's range begins here.
EPHEMERAL = 32_768
LOWEST, HIGHEST = 20_000, 32_000
# Claimed, but perhaps not bound yet, so that the system still calls them free.
_claimed: set[int] = set()


class PortBusy(Explained):
    """Something else listens there; the message says which part wanted which port."""


def is_free(port: int) -> bool:
    """Could a server listen on this port now, on every address?"""
    # A server on 127.0.0.1 alone does not stop one on 0.0.0.0 everywhere, so both are tried.
    return all(_binding_error(host, port) == 0 for host in ("127.0.0.1", "0.0.0.0"))  # noqa: S104


def free_port(preferred: int | None = None) -> int:
    """The preferred port when it is free and will be again for a server that is restarted, else any
    other outside the ephemeral range; each only once, whichever run of this checkout asks."""
    port = preferred if preferred and preferred < EPHEMERAL else _any_port()
    while port in _claimed or not is_free(port) or not _is_locked_for_us(port):
        port = _any_port()
    _claimed.add(port)
    return port


def _any_port() -> int:
    return random.randint(LOWEST, HIGHEST)  # noqa: S311


def _is_locked_for_us(port: int) -> bool:
    """Is the port ours among the runs of this checkout?

    Another run may have claimed it seconds before its server binds it. Byte N of one file stands
    for port N: who has its lock has the port, and the lock ends with its process.
    """
    file = _locks()
    if file is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # POSIX lets a system raise either
        return False
    return True


@functools.cache
def _locks() -> int | None:
    """The file's descriptor, never closed: closing any of a file's ends all of its locks.

    It is in the virtual environment, as outside the checkout nothing is written; None where this
    user may not write there.
    """
    with suppress(OSError):
        return os.open(Path(sys.prefix) / "shadow-local-ports", os.O_RDWR | os.O_CREAT, 0o644)
    return None


def claim(port: int, who: str, variable: str) -> int:
    """The port itself, for a server on 127.0.0.1 alone, when it is free; PortBusy otherwise."""
    error = _binding_error("127.0.0.1", port)
    if error == errno.EACCES:
        raise PortBusy(f"Port {port} ({who}) needs root; set {variable} to one above 1023.")
    # macOS lets it be bound next to someone on every address, who would no longer be reached.
    if _is_answered(port):
        raise PortBusy(
            f"Port {port} ({who}) is in use; stop what listens there or set {variable} to another."
        )
    if error:
        raise PortBusy(
            f"Port {port} ({who}) is an outgoing connection's, or was within the last minute; set "
            f"{variable} to one below {EPHEMERAL}, where the system takes none for those."
        )
    _claimed.add(port)
    return port


def check_lost(ports: Iterable[int], who: str, variable: str) -> None:
    """PortBusy when something else has one of the ports of a server that has ended."""
    for port in ports:
        if not is_free(port):
            raise PortBusy(
                f"Port {port} ({who}) was taken by something else meanwhile; stop what listens "
                f"there or set {variable} to another, which the models' ports follow."
            )


def _is_answered(port: int) -> bool:
    """Does someone listen there on 127.0.0.1?"""
    with socket.socket() as caller:
        caller.settimeout(1)  # its queue may be full
        return caller.connect_ex(("127.0.0.1", port)) != errno.ECONNREFUSED


def _binding_error(host: str, port: int) -> int:
    """0 when a server could listen there, else the system's error number."""
    with socket.socket() as listener:
        # As servers do: connections of the last run in TIME_WAIT do not keep a port busy.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            return error.errno or errno.EADDRINUSE
    return 0
