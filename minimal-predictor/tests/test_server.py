"""How the process starts, logs, scales to workers and ends."""

import json
import shutil
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from served import MODULE, Predictor, hold_port, run

from minimal_predictor.server import model_server


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"FACTOR": "two"}, 'FACTOR is "two"; set it to a finite number such as 2.\n'),
        ({"FACTOR": "nan"}, 'FACTOR is "nan"; set it to a finite number such as 2.\n'),
        ({"FACTOR": "1e999"}, 'FACTOR is "1e999"; set it to a finite number such as 2.\n'),
        ({"FACTOR": ""}, 'FACTOR is ""; set it to a finite number such as 2.\n'),
        (
            {"MODEL_NAME": "a b"},
            "MODEL_NAME is \"a b\"; set it to letters, digits, '.', '_' and '-', such as model.\n",
        ),
    ],
)
def test_bad_settings_end_the_start_in_one_line(variables: dict[str, str], message: str) -> None:
    """The variable, the value and the remedy; no stack trace; not exit code 0."""
    ended = run(**variables)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", message)


@pytest.mark.parametrize("argument", ["--http_port", "--grpc_port"])
def test_a_busy_port_is_named(argument: str) -> None:
    """The argument and the number, before anything listens."""
    other = {"--http_port": "--grpc_port", "--grpc_port": "--http_port"}[argument]
    with socket.create_server(("127.0.0.1", 0)) as listener, hold_port() as held:
        busy = listener.getsockname()[1]
        ended = run(argument, str(busy), other, str(held.getsockname()[1]))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"{argument} {busy} cannot be used (Address already in use); choose another."
    )
    assert "Traceback" not in ended.stderr


def test_help_and_unknown_arguments() -> None:
    """--help tells KServe's arguments; a wrong one is not ignored, and refused by its name."""
    shown = run("--help")
    assert shown.returncode == 0
    assert "--model_name" in shown.stdout
    wrong = run("--factor", "3")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines() == [
        "usage: minimal-predictor [--help] [arguments of KServe's server]",
        "minimal-predictor: error: unrecognized arguments: --factor 3",
    ]


@pytest.mark.parametrize(
    ("arguments", "variables", "name"),
    [
        ([], {"MODEL_NAME": "tripler"}, "tripler"),
        (["--model_name", "model"], {"MODEL_NAME": "tripler"}, "model"),
    ],
)
def test_the_name_and_the_factor(
    folder: Path, arguments: list[str], variables: dict[str, str], name: str
) -> None:
    """MODEL_NAME names the model, --model_name wins over it, FACTOR multiplies."""
    with Predictor(folder, *arguments, FACTOR="-3", **variables) as predictor:
        assert predictor.client.get("/v1/models").json() == {"models": [name]}
        answer = predictor.client.post(f"/v1/models/{name}:predict", json={"values": [2]})
        assert answer.json() == {"predictions": [-6.0]}


def test_an_idle_connection_is_closed_when_the_caller_expects_it(folder: Path) -> None:
    """The argument counts; by default an idle connection outlives what a proxy would keep."""
    with (
        Predictor(folder, "--timeout-keep-alive", "1") as short,
        socket.create_connection(("127.0.0.1", short.http_port), timeout=120) as closed,
    ):
        closed.sendall(b"GET /v1/models HTTP/1.1\r\nhost: here\r\n\r\n")
        answered = b"".join(iter(lambda: closed.recv(4096), b""))
        assert answered.startswith(b"HTTP/1.1 200")
    assert model_server.parser.get_default("timeout_keep_alive") > 60 * 60


def test_two_workers_serve_as_one(folder: Path) -> None:
    """Each worker answers, refuses and stays closed as a single process does."""
    with Predictor(folder, "--workers", "2", FACTOR="3") as predictor:
        for _ in range(40):
            # A connection of its own, so that both workers get some.
            predictor.client.headers["connection"] = "close"
            assert predictor.predict({"values": ["2"]}).json() == {"predictions": [6.0]}
            assert predictor.predict(content=b'{"values": ["x"]}').status_code == 400
            unload = predictor.client.post("/v2/repository/models/model/unload")
            assert unload.status_code == 403
        asked = {"name": "a", "shape": [1], "datatype": "FP64", "contents": {"fp64_contents": [1]}}
        answer = predictor.infer_grpc(pb.ModelInferRequest(model_name="model", inputs=[asked]))
        assert list(answer.outputs[0].contents.fp64_contents) == [3.0]
        assert predictor.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_finishes_the_call_in_flight(folder: Path, workers: str) -> None:
    """A call whose body is still arriving at SIGTERM is answered; then the exit code is 0."""
    body = json.dumps({"values": list(range(200_000))}).encode()
    head = f"POST /v1/models/model:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with Predictor(folder, "--workers", workers) as predictor:
        with socket.create_connection(("127.0.0.1", predictor.http_port), timeout=120) as caller:
            caller.sendall(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
            # A worker says so once it has taken the call.
            assert caller.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            caller.sendall(body[: len(body) // 2])
            predictor.process.terminate()
            while "Shutting down" not in predictor.log:
                time.sleep(0.05)
            caller.sendall(body[len(body) // 2 :])
            answer = b"".join(iter(lambda: caller.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b",399998.0]}")
        assert predictor.process.wait(120) == 0
        assert "Traceback" not in predictor.log


def test_sigterm_answers_the_calls_that_a_model_is_working_on(folder: Path) -> None:
    """REST and gRPC calls inside a slow model's predict are answered after SIGTERM, then exit 0."""
    asked = pb.ModelInferRequest(
        model_name="slow", inputs=[{"name": "a", "shape": [0], "datatype": "FP64"}]
    )
    command = [sys.executable, str(Path(__file__).with_name("slow_model.py"))]
    with Predictor(folder, command=command) as predictor, ThreadPoolExecutor() as pool:
        rest = pool.submit(predictor.client.post, "/v1/models/slow:predict", json={"ask": "v1"})
        rpc = pool.submit(predictor.infer_grpc, asked)
        while predictor.log.count("working") < 2:
            time.sleep(0.05)
        predictor.process.terminate()
        assert rest.result().json() == {"answer": "late"}
        assert list(rpc.result().outputs[0].contents.bytes_contents) == [b"late"]
        assert predictor.process.wait(120) == 0
        assert "stopped" in predictor.log
        assert "Traceback" not in predictor.log


def test_the_command_does_the_same(folder: Path) -> None:
    """`minimal-predictor` is `python -m minimal_predictor`, workers included."""
    command = shutil.which("minimal-predictor", path=str(Path(MODULE[0]).parent))
    assert command
    with Predictor(folder, "--workers", "2", command=[command]) as predictor:
        assert predictor.predict({"values": [1]}).json() == {"predictions": [2.0]}
        assert predictor.stop() == 0
