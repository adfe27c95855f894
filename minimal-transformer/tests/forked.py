"""Servers as forks of one process that has imported the libraries, which is most of a start.

A fork then does what `python -m` does, in a session of its own: KServe and our packages, with
whatever they take from the command line and the environment, are imported there anew.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# Elsewhere the system's own libraries may not be used in a fork.
CAN_FORK = sys.platform == "linux"
# Each keeps nothing of the process that imported it, and starts no thread.
LIBRARIES = (
    *("aiohttp", "cloudevents.http", "fastapi.responses", "httpx", "jsonpath", "kubernetes"),
    *("numpy", "pandas", "psycopg", "pydantic_settings", "rich.console", "uvicorn", "uvloop"),
)
MAX_ORDER_BYTES = 1 << 20


class Forked:
    """A module run as `python -m` does; what it prints goes to the log.

    To those who wait for it, signal it or ask for its exit code it is a subprocess.Popen.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: IO[str],
        cwd: Path | None = None,
    ) -> None:
        self.args = command
        self.returncode: int | None = None
        order = json.dumps({"argv": command, "env": dict(env), "cwd": str(cwd or Path.cwd())})
        self._watcher, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(_orders(), [order.encode()], [theirs.fileno(), log.fileno()])
        self.pid = int.from_bytes(self._watcher.recv(8), "big")

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; subprocess.TimeoutExpired when it has not by then."""
        if self.returncode is None:
            self._watcher.settimeout(timeout)
            try:
                code = self._watcher.recv(8)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._watcher.close()
            self.returncode = int.from_bytes(code, "big", signed=True)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    command: Sequence[str], *, env: Mapping[str, str], log: IO[str], cwd: Path | None = None
) -> Forked | subprocess.Popen[bytes]:
    """A module with its arguments, started; it leads a session and prints to the log."""
    if CAN_FORK:
        return Forked(command, env=env, log=log, cwd=cwd)
    words = [sys.executable, "-m", *command]
    return subprocess.Popen(words, env=env, stdout=log, stderr=log, cwd=cwd, start_new_session=True)


def run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The exit code of such a start that ends by itself, and all that it printed as its stderr."""
    with tempfile.TemporaryFile("w+") as log:
        code = start(command, env=env, log=log, cwd=cwd).wait(120)
        log.seek(0)
        return subprocess.CompletedProcess(command, code, stderr=log.read())


@functools.cache
def _orders() -> socket.socket:
    """Where the process that forks takes orders; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            # numpy's threads would not be in its forks.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _main(orders: socket.socket) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    # Pages that no collection writes to stay shared with the forks.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers end by themselves
    while True:
        order, files, _, _ = socket.recv_fds(orders, MAX_ORDER_BYTES, 2)
        if not order:
            return
        if os.fork() == 0:
            orders.close()
            _go_on_watched(*files)
            _run(**json.loads(order))
            return
        for file in files:
            os.close(file)


def _go_on_watched(caller: int, log: int) -> None:
    """Returns in a child that leads a session; this process tells the caller of its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(log)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with socket.socket(fileno=caller) as told:
            told.send(code.to_bytes(8, "big", signed=True), socket.MSG_NOSIGNAL)
        os._exit(0)
    os.setsid()
    # Only now, so that a signal to its group finds it.
    os.write(caller, os.getpid().to_bytes(8, "big"))
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, own in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(theirs, own)
    for file in (nothing, log, caller):
        os.close(file)


def _run(argv: list[str], env: dict[str, str], cwd: str) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = argv
    sys.path[:1] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
