"""A predictor that is away, fails or serves another model is logged once, and so is its return."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from delivering import NOWHERE
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ScriptedPredictor, body
from serving import INFER, PREDICT, SAMPLE, Predictor, Transformer, free_port, give_back, until

from minimal_transformer import logs
from minimal_transformer.exchange import Answer
from minimal_transformer.predictor import Failing

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
    """What is wrong and which argument to look at; a call finds out in more time than a probe."""
    tensor = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}'
    path, sent = (INFER, tensor) if "grpc" in argument else (PREDICT, SAMPLE)
    with Transformer(folder, NOWHERE, host or predictor.address, argument) as server:
        assert server.post(path, sent).status == 503
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
            " --model_name to the name that the predictor serves, or, for one without KServe's"
            " paths, PREDICTOR_READY_PATH to a path that it answers with 200."
        ) in server.log


@pytest.mark.parametrize("asked", ["rest", "grpc"])
def test_calls_of_another_model_are_logged_and_counted(
    folder: Path, predictor: Predictor, asked: str
) -> None:
    """The shadow whose name differs from the primary's gets every copy and records none: one line
    with both names, a metric for all of them, and no record.
    """
    paths = ("/v1/models/iris:predict", "/v1/models/iris:explain", "/v2/models/iris/infer")
    paths += ("/v2/models/iris/versions/2/infer",)
    with Transformer(folder, NOWHERE, predictor.address) as server:
        for path in paths:
            if asked == "rest":
                # KServe looks at a v2 body before it looks for the model.
                assert server.post(path, SAMPLE).status == (404 if ":" in path else 422)
                continue
            with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
                server.rpc(
                    "ModelInfer", pb.ModelInferRequest(model_name="iris").SerializeToString()
                )
        assert server.get("/v1/models/iris").status == 404  # asks nothing of a model
        assert server.post(PREDICT, SAMPLE).status == 200
        figures = server.get("/metrics").body.decode()
    assert "prediction_db_unknown_model_calls_total 4.0" in figures
    assert 'prediction_db_records_total{outcome="spooled"} 1.0' in figures
    assert server.log.count(" refused and not recorded") == 1
    assert (
        "WARNING minimal_transformer.transformer: a call for model 'iris' is refused"
        " and not recorded: this pod serves model 'model'. Set --model_name to the name that"
    ) in server.log


def test_a_run_of_failed_calls_is_logged_once_and_its_end_too(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """Whatever fails: a status, an answer that is cut off; a 4xx is not the predictor's failure.

    A second run within the minute adds no line.
    """
    with Transformer(folder, shared_uri, scripted.address) as server:
        for what in ("busy", "truncated", "broken"):
            assert server.post(PREDICT, body(what)).status >= 500
        for _ in range(2):
            time.sleep(1.1)  # a run is over once none has failed for a second
            assert server.post(PREDICT, body("bad request")).status == 400
            assert server.post(PREDICT, body("broken")).status == 500
    assert server.log.count(" failed ") == 1
    line = f"WARNING minimal_transformer.predictor: predictor {scripted.address} failed a call with"
    assert f"{line} 503: busy; its own log may say why." in server.log
    assert server.log.count(" answers again; calls that failed: 3.") == 1
    assert server.log.count(" answers again; ") == 1


def test_an_api_that_is_elsewhere_is_logged_once(folder: Path, predictor: Predictor) -> None:
    """A server without OpenAI's API where the prefix says: the path that was asked, and what sets
    it. KServe's own 404 for another path of its own is not one of these.
    """
    with Transformer(folder, NOWHERE, predictor.address, PASS_PATHS="/other") as server:
        for _ in range(3):
            assert server.post("/v1/chat/completions", b'{"messages": []}').status == 404
        assert server.post("/other", b"{}").status == 404
    assert server.log.count("with 404") == 1
    assert (
        f"predictor {predictor.address} answered a call at /openai/v1/chat/completions with 404"
    ) in server.log
    assert "set OPENAI_PREDICTOR_PREFIX, which is '/openai' (a plain vLLM's is empty)" in server.log


def test_what_is_redacted_is_not_logged_with_a_failure(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """A predictor's error may quote its call."""
    with Transformer(folder, shared_uri, scripted.address, RECORD_REDACT="$.secret") as server:
        assert server.post(PREDICT, body("busy")).status == 503
    assert f"predictor {scripted.address} failed a call with 503; its own" in server.log


def test_a_grpc_predictors_failures_are_logged(folder: Path, shared_uri: str) -> None:
    """With its own words; a refusal of the call is none of them."""
    tensors = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}]}'
    codes = [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL]

    def infer(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(codes.pop(0), "out of\nmemory")
        raise AssertionError

    handler = grpc.unary_unary_rpc_method_handler(infer)
    service = "inference.GRPCInferenceService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"ModelInfer": handler})]
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with Transformer(folder, shared_uri, address, "--predictor_protocol=grpc-v2") as transformer:
        statuses = [transformer.post(INFER, tensors).status for _ in range(2)]
    server.stop(None).wait()
    assert statuses == [400, 500]
    assert transformer.log.count(" failed ") == 1
    assert f"predictor {address} failed a call with 500: out of memory; its own" in transformer.log


def test_a_long_run_is_logged_again_with_its_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """So many since the last line; the last one's reason, on one line and not endless."""
    failing = Failing("model:80", quotes=True)
    failed = Answer(500, b"", [], "first")
    failing.saw(failed)
    for _ in range(40):
        failing.saw(failed)
    monkeypatch.setattr(logs, "PACE_SECONDS", 0.0)  # a minute later
    failing.saw(failed._replace(error="a\n\x1b[31m" + 300 * "b"))
    said = "predictor model:80 failed {}; its own log may say why."
    assert [record.getMessage() for record in caplog.records] == [
        said.format("a call with 500: first"),
        said.format(f"41 calls, the last with 500: a ?[31m{193 * 'b'}…"),
    ]
