"""The processes of a running server, as the kernel lists them, and the signals they get."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from serving import Process, until

DELIVERY = "minimal_transformer.delivery"


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, children first."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, level = [], [pid]
    while level := [child for parent in level for child in parents.get(parent, [])]:
        found += level
    return found


def send(number: signal.Signals, pids: list[int]) -> None:
    """The signal to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def delivery_pid(server: Process) -> int:
    """The one delivery process of a transformer, once it runs."""

    def running() -> int | None:
        for pid in descendants(server.process.pid):
            with suppress(OSError):
                if DELIVERY in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    return pid
        return None

    pid: int = until(running, "a delivery process")
    return pid


def kill_pod(server: Process) -> None:
    """SIGKILL the server and all that it started, as when a container is killed."""
    send(signal.SIGKILL, [server.process.pid, *descendants(server.process.pid)])
    server.process.wait()


def resident_bytes(pid: int) -> int:
    """Memory that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def mount(*words: str) -> None:
    """mount(8) as root."""
    subprocess.run(["mount", *words], check=True, capture_output=True)


def unmount(path: Path) -> None:
    """umount(8), also while processes use it."""
    subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)


def fill(file: Path) -> None:
    """Take all the room of the file's disk, whoever else writes there meanwhile."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(64 * 1024))
