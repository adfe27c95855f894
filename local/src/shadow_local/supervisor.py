"""Starts processes, waits until they take traffic, notices when one dies, and ends them all."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shadow_local import Explained

# Of a log, in the message that its process has ended.
LAST_LINES = 15
LAST_ERRORS = 5
# As the servers here, Envoy, Postgres and Python's traces mark what went wrong.
ERROR_LINE = re.compile(
    r"\b(ERROR|CRITICAL|FATAL|PANIC)\b|\[(error|critical)\]|^[\w.]*(Error|Exception): "
)
WARNING_LINE = re.compile(rf"\bWARN(ING)?\b|\[warning\]|{ERROR_LINE.pattern}")
READY_SECONDS = 300
# Longer than a start takes on a busy laptop: what is not ready then is more likely misconfigured.
LATE_SECONDS = 20
# Longer than an end takes without calls under way.
LATE_END_SECONDS = 5
UNKNOWN_PATH = (
    "it has no model of that name, or not KServe's paths: docs/models/other.md has other probes"
)
ANSWER_CHARACTERS = 200
# The processes are on this machine, where no proxy of the environment leads to.
_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


Progress = Callable[[str], None]


def silent(_: str) -> None:
    """Progress that nobody is told of."""


class ChildDied(Explained):
    """A child ended by itself; the message has its name, how it ended and what its log says."""

    def __init__(self, name: str, end: str) -> None:
        super().__init__(f"{name} {end}")
        self.name = name


class StopRequested(Exception):
    """Someone asked this process to end."""


@dataclass(frozen=True)
class Command:
    """A process to start: what, with which environment, where, and when it is ready."""

    name: str
    words: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    probes: tuple[str, ...] = ()  # URLs that answer 200 once it is ready
    stop_seconds: int = 30

    def __str__(self) -> str:
        """The command as a shell takes it, environment included."""
        env = " ".join(f"{k}={shlex.quote(v)}" for k, v in self.env.items() if k != "PATH")
        return f"{env} {shlex.join(self.words)}"


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
        with self.log_of(command.name).open("wb") as log:
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

    def wait_until_ready(
        self,
        command: Command,
        endless: bool = False,
        on_delay: Progress = silent,
    ) -> None:
        """Return once every probe answers 200; raises when none comes, and as `check` does.

        endless: it is started by hand, whenever that may be, and has no log here. on_delay: called
        once when it takes long, with what is waited for and why, as far as the probe and the log
        say so.
        """
        began, is_late = time.monotonic(), False
        for url in command.probes:
            while (answer := _answer(url)) != "200":
                self.check()
                waited = time.monotonic() - began
                if not endless and waited > READY_SECONDS:
                    raise Explained(
                        f"{command.name}: GET {url}: {answer}, for {READY_SECONDS} s; "
                        f"{last_words(self.log_of(command.name))}"
                    )
                if endless and not answer[:3].isdigit():
                    began = time.monotonic()  # nobody has started it yet
                elif not is_late and waited > LATE_SECONDS:
                    is_late = True
                    on_delay(self._delay(command.name, url, answer, by_hand=endless))
                time.sleep(0.1)

    def _delay(self, name: str, url: str, answer: str, *, by_hand: bool) -> str:
        """What a process that is not ready says of itself, on lines of their own."""
        is_unknown = name.endswith("-predictor") and answer.startswith("404")
        asked = f"  GET {url}: {answer}" + f"\n  {UNKNOWN_PATH}" * is_unknown
        if by_hand:
            return f"{name}, started by hand, is not ready yet:\n{asked}"
        log = self.log_of(name)
        lines = [
            f"{name} is not ready after {LATE_SECONDS} s, waiting up to {READY_SECONDS} s:",
            asked,
            f"  {log}" + " says last:" * bool(warning := _last_warning(log)),
            f"  {warning}",
        ]
        return "\n".join(line for line in lines if line.strip())

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

    def check(self) -> None:
        """Raise StopRequested once the end is asked for, ChildDied when a child has ended."""
        if self.stop_requested:
            raise StopRequested
        for name, (child, _) in self._children.items():
            if (code := child.poll()) is not None:
                raise ChildDied(name, f"{_ending(code)}; {last_words(self.log_of(name))}")

    def stop(self, name: str, on_delay: Progress = silent) -> None:
        """End one child: SIGTERM, its grace period, SIGKILL."""
        child, command = self._children.pop(name)
        child.terminate()
        self._wait(child, command, time.monotonic(), on_delay)

    def stop_all(self, order: tuple[str, ...] = (), on_delay: Progress = silent) -> None:
        """End every child, those of `order` first and the rest together; then what they started.

        on_delay: called once for each that takes long, with how long it may.
        """
        if self._watchdog is not None:
            # One that is frozen could not end before it is killed.
            os.killpg(self._watchdog.pid, signal.SIGCONT)
        for name in order:
            if name in self._children:
                self.stop(name, on_delay)
        for child, _ in self._children.values():
            child.terminate()
        began = time.monotonic()
        for child, command in self._children.values():
            self._wait(child, command, began, on_delay)
        self._children.clear()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait()
            self._watchdog = None

    def _group(self) -> int:
        """The process group of the children; its leader ends it when this process is gone."""
        if self._watchdog is None:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-m", "shadow_local.watchdog"],
                stdin=subprocess.PIPE,
                process_group=0,
            )
        return self._watchdog.pid

    def forget(self, command: Command) -> None:
        """Remove the log of an earlier run: it would pass for that of a process started by hand."""
        self.log_of(command.name).unlink(missing_ok=True)

    def log_of(self, name: str) -> Path:
        """Where a child's output goes."""
        return self.log_folder / f"{name}.log"

    def _wait(
        self,
        child: subprocess.Popen[bytes],
        command: Command,
        began: float,
        on_delay: Progress,
    ) -> None:
        """Wait for a child that is to end; kill it past its time, or when hurried."""
        is_late = False
        while child.poll() is None:
            left = began + command.stop_seconds - time.monotonic()
            if self.hurried or left < 0:
                child.kill()
                child.wait()
            elif not is_late and command.stop_seconds - left > LATE_END_SECONDS:
                is_late = True
                killed = f"it is killed in {left:.0f} s, or by one more Ctrl-C"
                on_delay(f"{command.name} takes long to end: {killed}")
            time.sleep(0.02)


def last_words(log: Path) -> str:
    """A log's name and, below it, its last lines; before them its last errors, where those stand
    further up: what a server logs as it ends hides why it does."""
    lines = log.read_text(errors="replace").splitlines() or ["(nothing)"]
    above, shown = lines[:-LAST_LINES], lines[-LAST_LINES:]
    if errors := [line for line in above if ERROR_LINE.search(line)][-LAST_ERRORS:]:
        shown = [*errors, "...", *shown]
    return f"{log} ends:\n" + "\n".join(f"  {line}" for line in shown)


def _last_warning(log: Path) -> str:
    """The last line in which something is wrong; empty when there is none."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if WARNING_LINE.search(line)), "")


def _opened(url: str) -> Any:
    """The response to a GET, whatever its status."""
    try:
        return _without_proxy.open(url, timeout=5)
    except urllib.error.HTTPError as error:
        return error


def _answer(url: str) -> str:
    """What a GET is answered: 200, another status with its body, or what went wrong."""
    try:
        with _opened(url) as response:
            if response.status == 200:
                return "200"
            body = response.read(ANSWER_CHARACTERS).decode(errors="replace")
            return f"{response.status} {' '.join(body.split())}".rstrip()
    except (OSError, http.client.HTTPException) as error:
        # No HTTP: someone else took the port; then our own server ends, and says so.
        return str(getattr(error, "reason", error))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
