"""The servers that are measured, each a real process on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PREDICTOR_PYTHON = ROOT / "minimal-predictor" / ".venv" / "bin" / "python"
TRANSFORMER_PYTHON = ROOT / "minimal-transformer" / ".venv" / "bin" / "python"
STOCK = Path(__file__).with_name("stock.py")
START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running server; `url` is its base, `spool` the folder of a recording transformer."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    spool: Path | None = None

    def cpu_seconds(self) -> float:
        """CPU time of the serving process alone, user and system, since its start."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def delivery_cpu_seconds(self) -> float:
        """CPU time of the processes that it started: a recording transformer's delivery."""
        total = 0.0
        for child in psutil.Process(self.process.pid).children(recursive=True):
            times = child.cpu_times()
            total += times.user + times.system
        return total

    def wait_until_delivered(self, seconds: float = 300) -> None:
        """Return when every record has left the spool, so that no round pays for another's."""
        deadline = time.monotonic() + seconds
        while self.spool is not None and time.monotonic() < deadline:
            if self.metric("prediction_db_oldest_unwritten_seconds") == 0:
                return
            time.sleep(0.1)
        if self.spool is not None:
            raise TimeoutError(f"{self.name} still had records on its spool after {seconds} s.")

    def metric(self, name: str) -> float:
        """The value of a metric without labels on /metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[-1])
        raise LookupError(f"{self.url}/metrics has no {name}.")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(name: str, command: list[str], **environment: str) -> Iterator[Server]:
    """A KServe server, from its start until its model is ready, and stopped at the end."""
    port = free_port()
    ports = ["--http_port", str(port), "--grpc_port", str(free_port()), "--model_name", "model"]
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.NamedTemporaryFile(prefix=f"{name}-", suffix=".log"))
        process = subprocess.Popen(
            [*command, *ports], env=os.environ | environment, stdout=log, stderr=log
        )
        spool = environment.get("SPOOL_DIR")
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(name, f"{url}/v1/models/model", process, Path(log.name))
            yield Server(name, url, process, Path(spool) if spool else None)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def predictor() -> Iterator[Server]:
    """a) The example predictor: the limit, since every call ends there."""
    command = [str(PREDICTOR_PYTHON), "-m", "minimal_predictor"]
    with running("predictor", command, FACTOR="2") as server:
        yield server


@contextmanager
def stock_transformer(predictor_url: str, protocol: str) -> Iterator[Server]:
    """b) KServe's own Model as a transformer that changes and records nothing."""
    host = predictor_url.removeprefix("http://")
    command = [str(TRANSFORMER_PYTHON), str(STOCK), "--predictor_host", host]
    command += ["--predictor_protocol", protocol]
    with running("stock", command) as server:
        yield server


@contextmanager
def recording_transformer(
    predictor_url: str, postgres_uri: str, spool: Path, **environment: str
) -> Iterator[Server]:
    """c) Ours, recording; d) the same with RECORD_SAMPLE=0, which records nothing."""
    host = predictor_url.removeprefix("http://")
    command = [str(TRANSFORMER_PYTHON), "-m", "minimal_transformer", "--predictor_host", host]
    settings = {
        "POSTGRES_URI": postgres_uri,
        "SHADOW_ROLE": "primary",
        "INFERENCE_SERVICE": "bench",
        "SPOOL_DIR": str(spool),
    }
    with running("transformer", command, **settings | environment) as server:
        yield server


def _wait_until_ready(name: str, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise RuntimeError(f"{name} was not ready at {url}; its log ends:\n{tail}")
