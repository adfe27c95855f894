"""The servers that are measured, each a real process on a port of its own."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from shadow_local.ports import free_port
from shadow_local.supervisor import Command, Supervisor
from shadow_local.translate.document import repository

PREDICTOR = Path(__file__).with_name("predictor.py")
PROXY = Path(__file__).with_name("proxy.py")
STOCK = Path(__file__).with_name("stock.py")


@dataclass(frozen=True)
class Checkout:
    """A copy of this repository in which the transformer and the report are installed."""

    name: str
    root: Path

    @property
    def transformer_python(self) -> str:
        return str(self.root / "minimal-transformer" / ".venv" / "bin" / "python")

    @property
    def report(self) -> str:
        return str(self.root / "shadow-report" / ".venv" / "bin" / "shadow-report")


HERE = Checkout("this", repository())


@dataclass(frozen=True)
class Server:
    """A running server; `url` is its base, `spool` the folder of a recording transformer."""

    name: str
    url: str
    pid: int
    spool: Path | None = None

    def cpu_seconds(self) -> float:
        """CPU time of the serving process alone, user and system, since its start."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def delivery_cpu_seconds(self) -> float:
        """CPU time of the processes that it started: a recording transformer's delivery."""
        total = 0.0
        for child in psutil.Process(self.pid).children(recursive=True):
            times = child.cpu_times()
            total += times.user + times.system
        return total

    def wait_until_delivered(self, seconds: float = 300) -> None:
        """Return when every record has left the spool, so that no round pays for another's."""
        deadline = time.monotonic() + seconds
        while self.spool is not None and time.monotonic() < deadline:
            if self._metric("prediction_db_oldest_unwritten_seconds") == 0:
                return
            time.sleep(0.1)
        if self.spool is not None:
            raise TimeoutError(f"{self.name} still had records on its spool after {seconds} s.")

    def _metric(self, name: str) -> float:
        """The value of a metric without labels on /metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[-1])
        raise LookupError(f"{self.url}/metrics has no {name}.")


class Servers:
    """Starts servers, with their logs in a folder; each is stopped when its block ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = Supervisor(folder / "logs")

    @contextmanager
    def predictor(self) -> Iterator[Server]:
        """The scripted predictor: the limit, since every call ends there."""
        with self._running("predictor", [HERE.transformer_python, str(PREDICTOR)], {}) as server:
            yield server

    @contextmanager
    def stock(self, predictor: Server, protocol: str) -> Iterator[Server]:
        """KServe's own Model as a transformer that changes and records nothing."""
        words = [HERE.transformer_python, str(STOCK), "--predictor_protocol", protocol]
        words += ["--predictor_host", predictor.url.removeprefix("http://")]
        with self._running("stock", words, {}) as server:
            yield server

    @contextmanager
    def recording(
        self,
        predictor: Server,
        postgres_uri: str,
        spool: str,
        checkout: Checkout = HERE,
        **env: str,
    ) -> Iterator[Server]:
        """Ours, recording on a spool of that name; with RECORD_SAMPLE=0 it records nothing."""
        words = [checkout.transformer_python, "-m", "minimal_transformer"]
        words += ["--predictor_host", predictor.url.removeprefix("http://")]
        settings = {
            "POSTGRES_URI": postgres_uri,
            "SHADOW_ROLE": "primary",
            "INFERENCE_SERVICE": "bench",
            "SPOOL_DIR": str(self.folder / spool),
        }
        with self._running("transformer", words, settings | env) as server:
            yield server

    @contextmanager
    def proxy(self, predictor: Server) -> Iterator[Server]:
        """A plain proxy that streams: the least that a hop in Python costs."""
        words = [HERE.transformer_python, str(PROXY), "--predictor_url", predictor.url]
        with self._running("proxy", words, {}) as server:
            yield server

    @contextmanager
    def _running(self, name: str, words: list[str], env: dict[str, str]) -> Iterator[Server]:
        """From its start until its model is ready, and stopped at the end."""
        port, grpc_port = free_port(), free_port()
        url, name = f"http://127.0.0.1:{port}", f"{name}-{port}"
        words += ["--model_name", "model", "--http_port", str(port), "--grpc_port", str(grpc_port)]
        probes = (f"{url}/v1/models/model",)
        command = Command(name, tuple(words), os.environ | env, self.folder, probes, 60)
        pid = self.supervisor.start(command)
        try:
            self.supervisor.wait_until_ready(command)
            spool = env.get("SPOOL_DIR")
            yield Server(name, url, pid, Path(spool) if spool else None)
        finally:
            self.supervisor.stop(name)
