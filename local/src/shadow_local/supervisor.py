"""Starts the children, notices when one dies, and ends them all."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from shadow_local.processes import Command

LAST_LINES = 15


class ChildDied(Exception):
    """A child ended by itself; the message has its name, how it ended and its last log lines."""


class StopRequested(Exception):
    """Someone asked this process to end."""


class Supervisor:
    """Children in a process group of their own, which ends with this process in any case."""

    def __init__(self, log_folder: Path) -> None:
        self.log_folder = log_folder
        log_folder.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, tuple[subprocess.Popen[bytes], Command]] = {}
        self._watchdog: subprocess.Popen[bytes] | None = None
        self.stop_requested = False
        self.hurried = False

    def start(self, command: Command) -> int:
        """Start a child and return its process id; its output goes to a log of its name."""
        group = self._group()
        with self.log(command.name).open("wb") as log:
            child = subprocess.Popen(
                command.words,
                env=dict(command.env),
                cwd=command.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=group,
            )
        self._children[command.name] = (child, command)
        return child.pid

    def run(self, words: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a program to its end, its output here; its exit code. Raises as `check` does."""
        program = subprocess.Popen(words, env=env, process_group=self._group())
        try:
            while program.poll() is None:
                self.check()
                time.sleep(0.05)
        finally:
            program.kill()
            program.wait()
        return program.returncode

    def _group(self) -> int:
        """The process group of the children; its leader ends it when this process is gone."""
        if self._watchdog is None:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-m", "shadow_local.watchdog"],
                stdin=subprocess.PIPE,
                process_group=0,
            )
        return self._watchdog.pid

    def log(self, name: str) -> Path:
        """Where a child's output goes."""
        return self.log_folder / f"{name}.log"

    def check(self) -> None:
        """Raise StopRequested once the end is asked for, ChildDied when a child has ended."""
        if self.stop_requested:
            raise StopRequested
        for name, (child, _) in self._children.items():
            if (code := child.poll()) is not None:
                raise ChildDied(
                    f"{name} {_ending(code)}; {self.log(name)} ends:\n{self._tail(name)}"
                )

    def stop(self, name: str) -> None:
        """End one child: SIGTERM, its grace period, SIGKILL."""
        child, command = self._children.pop(name)
        child.terminate()
        self._wait(child, time.monotonic() + command.stop_seconds)

    def stop_all(self, order: tuple[str, ...] = ()) -> None:
        """End every child, those of `order` first and the rest together; then what they started."""
        for name in order:
            if name in self._children:
                self.stop(name)
        for child, _ in self._children.values():
            child.terminate()
        began = time.monotonic()
        for child, command in self._children.values():
            self._wait(child, began + command.stop_seconds)
        self._children.clear()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None

    def _wait(self, child: subprocess.Popen[bytes], deadline: float) -> None:
        """Wait for a child that was told to end; kill it past the deadline, or when hurried."""
        while child.poll() is None:
            if self.hurried or time.monotonic() > deadline:
                child.kill()
                child.wait()
            time.sleep(0.02)

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) or "  (nothing)"


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
