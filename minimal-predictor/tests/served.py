"""Starts the predictor as users do and talks to it over REST and gRPC."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import httpx
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

MODULE = [sys.executable, "-m", "minimal_predictor"]


def hold_port() -> socket.socket:
    """A socket that keeps its port: only a server that is given the port gets it."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def environment(**variables: str) -> dict[str, str]:
    """The test's environment without the predictor's own variables, but with these."""
    ours = ("FACTOR", "MODEL_NAME", "KSERVE_LOGLEVEL")
    return {k: v for k, v in os.environ.items() if k not in ours} | variables


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The predictor, for starts that end by themselves."""
    return subprocess.run(
        [*MODULE, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Predictor:
    """A running predictor; leaving the `with` block ends it and everything it started."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        command: list[str] | None = None,
        wait: bool = True,
        **variables: str,
    ) -> None:
        self.waits = wait
        self._held = hold_port(), hold_port()
        self.http_port, self.grpc_port = (int(held.getsockname()[1]) for held in self._held)
        self.log_file = folder / "predictor.log"
        ports = ["--http_port", str(self.http_port), "--grpc_port", str(self.grpc_port)]
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [*(command or MODULE), *ports, *arguments],
                env=environment(**variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=120)

    def __enter__(self) -> Self:
        if self.waits:
            self.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def wait(self) -> None:
        """Return once it answers."""
        try:
            while not self._answers():
                assert self.process.poll() is None, self.log
                time.sleep(0.05)
        except BaseException:
            self._end()
            raise

    def workers(self) -> list[int]:
        """The worker processes, oldest first, as the log names them."""
        started = re.findall(r"Started (?:new )?child process \[(\d+)\]", self.log)
        dead = re.findall(r"Child process \[(\d+)\] died", self.log)
        return [int(pid) for pid in started if pid not in dead]

    def _answers(self) -> bool:
        try:
            return self.client.get("/v1/models").is_success
        except httpx.TransportError:
            return False

    def _end(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for held in self._held:
            held.close()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def predict(self, body: Any = None, content: str | bytes | None = None) -> httpx.Response:
        """POST to :predict, as JSON or as it is."""
        return self.client.post("/v1/models/model:predict", json=body, content=content)

    def infer(self, *inputs: dict[str, Any], **fields: Any) -> httpx.Response:
        """POST to the v2 route."""
        return self.client.post("/v2/models/model/infer", json={"inputs": list(inputs)} | fields)

    @contextmanager
    def stub(self) -> Iterator[Any]:
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            yield GRPCInferenceServiceStub(channel)

    def infer_grpc(self, request: ModelInferRequest) -> ModelInferResponse:
        with self.stub() as stub:
            return stub.ModelInfer(request, timeout=120)


def refused(answer: httpx.Response) -> str:
    """The message of a 400 in KServe's form."""
    assert answer.status_code == 400, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["error"]
    return str(document["error"])
