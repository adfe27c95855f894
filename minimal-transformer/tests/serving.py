"""Starts real servers as users do, talks to them over sockets and reads their rows."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import forked
import grpc
import psycopg
from psycopg.rows import dict_row

MODULE = "minimal_transformer"
SAMPLE = b'{"values": ["3.3", "62.3", "324"]}'
SAMPLE_ANSWER = b'{"predictions":[6.6,124.6,648.0]}'
PREDICT = "/v1/models/model:predict"
EXPLAIN = "/v1/models/model:explain"
INFER = "/v2/models/model/infer"
SERVICE = "/inference.GRPCInferenceService"
WAIT_SECONDS = 120.0

# For httpx.stream, which would read the machine's certificates anew at each call, in 18 ms.
TLS = ssl.create_default_context()

# What a developer's shell may hold and a test must not inherit.
_OURS = (
    *("POSTGRES_", "SHADOW_", "SPOOL_", "RECORD_", "INFERENCE_", "MODEL_", "LOG_", "ACCESS_"),
    *("SHUTDOWN_", "REQUESTS_CA_", "CURL_CA_", "KSERVE_", "PASS_", "OPENAI_", "STREAM_"),
    *("PREDICTOR_", "TEMPERATURE", "TOKENS_", "FORWARD_", "RETURN_", "PREDICT_TIMEOUT", "MAX_"),
    "PREDICTION_DB_",
)


_held: dict[int, int] = {}


def free_port() -> int:
    """A port that nothing listens on; nobody but a server that is told of it takes it.

    A socket that is bound and does not listen keeps it from being given to a connection.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = int(holder.getsockname()[1])
    _held[port] = holder.detach()
    return port


def give_back(*ports: int) -> None:
    """Let others have the ports."""
    for port in ports:
        os.close(_held.pop(port))


def environment(**variables: str) -> dict[str, str]:
    """The test's environment without our own variables, but with these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    return kept | variables


def until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {WAIT_SECONDS:g} s for {what}")


@dataclass(frozen=True)
class Answered:
    """What a REST caller received."""

    status: int
    headers: dict[str, str]
    body: bytes


class Process:
    """A server as a child process; leaving the `with` block ends it and all that it started."""

    # KServe's own default takes over without it.
    names_grpc_port = True
    runs_in: Path | None = None
    python = sys.executable
    # A program that starts the server with other rights or limits.
    started_by: tuple[str, ...] = ()

    def __init__(self, folder: Path, module: str, *arguments: str, **variables: str) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        self.log_file = folder / f"{module}-{self.http_port}.log"
        ports = ["--http_port", str(self.http_port)]
        if self.names_grpc_port:
            ports += ["--grpc_port", str(self.grpc_port)]
        command = [module, *ports, *arguments]
        env = environment(**variables)
        with self.log_file.open("w") as log:
            self.process: forked.Forked | subprocess.Popen[bytes]
            if self.python == sys.executable and not self.started_by:
                self.process = forked.start(command, env=env, log=log, cwd=self.runs_in)
            else:
                self.process = subprocess.Popen(
                    [*self.started_by, self.python, "-m", *command],
                    cwd=self.runs_in,
                    env=env,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def __enter__(self) -> Self:
        try:
            until(self._answers, f"{self.log_file.name} to answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        give_back(self.http_port, self.grpc_port)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.get("/").status == 200
        except OSError:
            return False

    @property
    def log(self) -> str:
        """What the process has logged."""
        return self.log_file.read_text()

    @property
    def grpc_address(self) -> str:
        """For a gRPC channel."""
        return f"127.0.0.1:{self.grpc_port}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_SECONDS)

    def get(self, path: str) -> Answered:
        """GET on a connection of its own."""
        return self.call("GET", path)

    def post(self, path: str, body: bytes, **headers: str) -> Answered:
        """POST on a connection of its own; underscores in header names become dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("POST", path, body, {"content-type": "application/json"} | named)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> Answered:
        """One HTTP call."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, names, response.read())
        finally:
            connection.close()

    def rpc(self, method: str, wire: bytes, **metadata: str) -> bytes:
        """A gRPC call on wire bytes; grpc.RpcError as it comes."""
        named = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        with grpc.insecure_channel(self.grpc_address) as channel:
            call = channel.unary_unary(f"{SERVICE}/{method}")
            answer: bytes = call(wire, timeout=WAIT_SECONDS, metadata=named)
            return answer


class Transformer(Process):
    """A transformer in front of a predictor, recording into a database."""

    def __init__(
        self, folder: Path, uri: str, predictor: str | None, *arguments: str, **variables: str
    ) -> None:
        self.spool = folder / f"spool-{uuid.uuid4().hex[:8]}"
        self.predictor = predictor
        self._workers = int(dict(itertools.pairwise(arguments)).get("--workers", "1"))
        where = [] if predictor is None else ["--predictor_host", predictor]
        module = variables.pop("MODULE", MODULE)
        settings = {
            "POSTGRES_URI": uri,
            "SHADOW_ROLE": "primary",
            "INFERENCE_SERVICE": "double-minimal-inference",
            "MODEL_VERSION": "7",
            "SPOOL_DIR": str(self.spool),
            # A busy machine may need it; a drained spool ends the wait.
            "SHUTDOWN_DRAIN_SECONDS": "90",
            "TMPDIR": str(folder),  # where its counters stay when it is killed
            "PYTHONPATH": str(Path(__file__).parent),
        }
        super().__init__(folder, module, *where, *arguments, **(settings | variables))

    def _answers(self) -> bool:
        """Once each of its workers does: until then lines of the start are still to be logged."""
        return super()._answers() and self.log.count("serving model ") >= self._workers


class Predictor(Process):
    """The real example model."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        super().__init__(folder, "minimal_predictor", *arguments, **({"FACTOR": "2"} | variables))

    @property
    def address(self) -> str:
        """For --predictor_host."""
        return f"127.0.0.1:{self.http_port}"


class Storyteller(Predictor):
    """The real example that generates."""

    runs_in = Path(__file__).parents[2] / "examples" / "generative"

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        Process.__init__(self, folder, "model", *arguments, **variables)


def new_pair() -> str:
    """A pair id that no other call has."""
    return str(uuid.uuid4())


_JOINED = """
    SELECT q.*, a.request_time AS answer_request_time, a.response_time, a.status_code, a.error,
           a.duration_ms, a.response_data::text, a.response_raw, a.response_size,
           a.response_truncated, a.ttft_ms, a.generation, q.request_data::text AS request_text
    FROM inference_requests q
    LEFT JOIN inference_responses a USING (record_id, request_time, pair_id)
"""


def rows(uri: str, pair_id: str, count: int = 1) -> list[dict[str, Any]]:
    """The rows of a pair id, once there are so many and each has its response."""

    def complete() -> list[dict[str, Any]] | None:
        found = connection.execute(f"{_JOINED} WHERE pair_id = %s", [pair_id]).fetchall()
        assert len(found) <= count, found
        done = len(found) == count and all(row["status_code"] is not None for row in found)
        return found if done else None

    # One session for all looks: a new one reads the catalogue of every partition anew.
    with psycopg.connect(uri, row_factory=dict_row, autocommit=True) as connection:
        result: list[dict[str, Any]] = until(complete, f"{count} rows of pair {pair_id}")
    return result


def request_row(uri: str, pair_id: str) -> dict[str, Any] | None:
    """The row of a pair id as soon as there is one, with or without its response."""
    with psycopg.connect(uri, row_factory=dict_row) as connection:
        return connection.execute(f"{_JOINED} WHERE pair_id = %s", [pair_id]).fetchone()


def row(uri: str, pair_id: str) -> dict[str, Any]:
    """The one row of a pair id."""
    return rows(uri, pair_id)[0]


def counts(uri: str) -> tuple[int, int, int]:
    """Request rows, response rows and gaps."""
    with psycopg.connect(uri) as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM inference_requests),"
            " (SELECT count(*) FROM inference_responses), (SELECT count(*) FROM inference_gaps)"
        ).fetchone()
    assert found is not None
    return found


def check_row(
    found: dict[str, Any],
    *,
    protocol: str,
    predict_url: str,
    sent: bytes,
    status: int = 200,
    received: bytes | None,
    error: str | None = None,
) -> None:
    """Every column of a call that is the same for all protocols."""
    assert found["record_id"].version == 7
    assert found["answer_request_time"] == found["request_time"] <= found["response_time"]
    assert found["sequence"] >= 1
    assert found["pair_source"] == "x-shadow-pair-id"
    assert found["role"] == "primary"
    assert found["inference_service"] == "double-minimal-inference"
    assert found["model_name"] == "model"
    assert found["model_version"] == "7"
    assert found["protocol"] == protocol
    assert found["predict_url"] == predict_url
    assert found["request_size"] == len(sent)
    assert bytes(found["request_sha256"]) == sha256(sent).digest()
    assert found["request_truncated"] is False
    assert found["status_code"] == status
    assert found["error"] == error
    assert found["duration_ms"] > 0
    assert found["response_truncated"] is False
    if protocol != "grpc":
        assert stored(found, "request") == sent
        assert stored(found, "response") == received
    if received is not None:
        assert found["response_size"] == len(received)


def stored(found: dict[str, Any], side: str) -> bytes | None:
    """The body that a row holds, byte for byte."""
    text = found["request_text" if side == "request" else "response_data"]
    if text is not None:
        return str(text).encode()
    raw = found[f"{side}_raw"]
    return None if raw is None else bytes(raw)
