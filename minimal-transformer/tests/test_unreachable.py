"""A predictor that is away or serves another model is told of once, and so is its return."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from delivering import NOWHERE
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ScriptedPredictor, body
from serving import PREDICT, SAMPLE, Predictor, Transformer, free_port, give_back, until

MODEL = "/v1/models/model"


def test_lost_rest_predictor_is_told_once_and_its_return_too(folder: Path, shared_uri: str) -> None:
    """By calls and by probes alike, twice over: two lines each."""
    port = free_port()
    with Transformer(folder, shared_uri, f"127.0.0.1:{port}") as server:
        for times in (1, 2):
            for _ in range(3):
                assert server.post(PREDICT, SAMPLE).status == 503
                assert server.get(MODEL).status == 503
            assert server.log.count(" is unreachable ") == times
            with ScriptedPredictor(port) as predictor:
                until(
                    lambda: (
                        server.post(PREDICT, body("answer")).status == 200
                        and server.log.count(" answers again; ") == times  # noqa: B023
                    ),
                    "the good news",
                )
                predictor.close_connections()
    assert (
        f"predictor 127.0.0.1:{port} is unreachable (refused), calls are answered 503;"
        " check --predictor_host and that the predictor runs."
    ) in server.log
    give_back(port)


def test_lost_grpc_predictor_is_told_once_and_its_return_too(folder: Path, shared_uri: str) -> None:
    """The probes alone, as where no call comes to a pod that is not ready."""
    port = free_port()
    ready = pb.ModelReadyRequest(name="model").SerializeToString()
    arguments = ["--predictor_protocol", "grpc-v2"]
    with Transformer(folder, shared_uri, f"127.0.0.1:{port}", *arguments) as server:
        for _ in range(3):
            assert server.get(MODEL).status == 503
        assert server.log.count(f"127.0.0.1:{port} is unreachable (refused)") == 1
        with Predictor(folder, "--grpc_port", str(port)):
            until(lambda: server.rpc("ModelReady", ready) and "again" in server.log, "the news")
    assert server.log.count(f"127.0.0.1:{port} answers again; ") == 1
    give_back(port)


@pytest.mark.parametrize(
    ("host", "argument", "reason"),
    [
        ("no-such-host.invalid:80", "--predictor_protocol=v1", "no such host"),
        ("no-such-host.invalid:80", "--predictor_protocol=grpc-v2", "no such host"),
        ("", "--predictor_use_ssl=true", "no TLS"),
    ],
)
def test_reason_and_remedy_are_named(
    folder: Path, predictor: Predictor, host: str, argument: str, reason: str
) -> None:
    """What is wrong and which argument to look at."""
    with Transformer(folder, NOWHERE, host or predictor.address, argument) as server:
        assert server.get(MODEL).status == 503
        assert server.log.count(f"is unreachable ({reason}), ") == 1
        assert "check --predictor_" in server.log


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
def test_unknown_model_is_told_once(folder: Path, predictor: Predictor, protocol: str) -> None:
    """A pod that never gets ready says why: the name, where it is unknown, what to set."""
    address = predictor.grpc_address if protocol == "grpc-v2" else predictor.address
    arguments = [f"--predictor_protocol={protocol}", "--model_name=other"]
    with Transformer(folder, NOWHERE, address, *arguments) as server:
        for _ in range(2):
            time.sleep(1.1)  # a probe asks anew after a second
            assert server.get("/v1/models/other").status == 503
        assert server.log.count("does not know") == 1
        assert (
            f"predictor {address} does not know model 'other', so this pod is not ready; set"
            " --model_name to the name that the predictor serves."
        ) in server.log
