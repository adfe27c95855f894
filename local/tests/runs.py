"""Running `shadow-local` as a program, with every process that comes of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from waiting import until

from shadow_local.ports import free_port
from shadow_local.translate.document import repository

PROGRAM = Path(sys.executable).with_name("shadow-local")
# A deployment of one model, for what does not depend on how many there are.
PRIMARY_ALONE = str(repository() / "manifests" / "stages" / "primary-alone")
# The whole deployment, for what does not depend on its predictors: these start at once.
SCRIPTED = repository() / "examples" / "scripted"
# `shadow-local` whose demonstration is that one's.
_DEMO_OF_SCRIPTED = """
from shadow_local.__main__ import main
from shadow_local.cli import MODELS
MODELS["number"] = "examples/scripted"
main()
"""
OF_SCRIPTED = (sys.executable, "-c", _DEMO_OF_SCRIPTED)
SETTINGS = ("GATEWAY_PORT", "KUSTOMIZATION", "MIRROR_HOST_SUFFIX", "MIRROR_PERCENTAGE")
SETTINGS += (
    "ISTIO_EDGE",
    "REPLICAS",
    "POSTGRES_URI",
    "PREDICT_URL",
    "REQUESTS",
    "TIMES",
    "TOPOLOGY",
    "WITHOUT",
    "X_API_KEY",
)


class Run:
    """A running `shadow-local`, and every process that came of it."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        program: Sequence[str | Path] = (PROGRAM,),
        **settings: str,
    ) -> None:
        env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self.folder = folder
        self.output = folder / "output.txt"
        self.seen: set[psutil.Process] = set()
        with self.output.open("wb") as output:
            self.process = psutil.Popen(
                [*program, *words],
                env=env | settings,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line; fail when the program ended without it."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.output.read_text(), re.MULTILINE)

        until(lambda: found() is not None or self.process.poll() is not None, 400)
        match = found()
        assert match, self.output.read_text()
        self.seen |= set(self.process.children(recursive=True)) if self.is_running else set()
        return match

    def ctrl_c(self) -> None:
        """What a terminal does: SIGINT for the whole process group."""
        self.seen |= set(self.process.children(recursive=True))
        os.killpg(self.process.pid, signal.SIGINT)

    @property
    def is_running(self) -> bool:
        return bool(self.process.poll() is None)

    def ends(self) -> int:
        """Wait for the end; the exit code. Nothing that it started may be left."""
        code = int(self.process.wait(240))
        until(lambda: not self.left())
        return code

    def left(self) -> list[str]:
        """The command lines of what still runs."""
        lines = []
        for process in self.seen:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended, and is a zombie at most
                if process.is_running():
                    lines.append(" ".join(process.cmdline()))
        return lines


Start = Callable[..., Run]


def up(start: Start, folder: Path, *words: str, **settings: str) -> Run:
    """`shadow-local up` on a free port."""
    port = str(free_port())
    return start("up", "--folder", str(folder), *words, GATEWAY_PORT=port, **settings)
