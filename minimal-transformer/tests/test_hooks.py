"""Your own preprocess and postprocess: they see what KServe's see, the tables what callers see."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from hooked import Hooked
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ANSWER, ScriptedPredictor
from serving import (
    EXPLAIN,
    INFER,
    PREDICT,
    Predictor,
    Transformer,
    new_pair,
    row,
    stored,
)

from minimal_transformer.hooks import Hooks
from minimal_transformer.server import serve
from minimal_transformer.settings import HookSettings, SettingsError


@pytest.fixture(scope="module")
def hooked(
    folder: Path, shared_uri: str, predictor: Predictor, scripted: ScriptedPredictor
) -> Iterator[Transformer]:
    """tests/hooked.py in front of the example model, in two workers: hooks must cross a spawn."""
    arguments = ["--workers", "2"]
    variables = {"MODULE": "hooked", "EXPLAINER_HOST": scripted.address}
    with Transformer(folder, shared_uri, predictor.address, *arguments, **variables) as running:
        yield running


@pytest.fixture(scope="module", params=["rest", "grpc"])
def named(
    request: pytest.FixtureRequest, folder: Path, shared_uri: str, predictor: Predictor
) -> Iterator[Transformer]:
    """The image's own entry point with functions in settings, in front of either protocol."""
    hooks = {"PREPROCESS": "named:tokenize", "POSTPROCESS": "named:Counted"}
    address, arguments = predictor.address, ["--workers", "2"]
    if request.param == "grpc":
        address, arguments = predictor.grpc_address, ["--predictor_protocol", "grpc-v2"]
    with Transformer(folder, shared_uri, address, *arguments, PASS_PATHS="/any", **hooks) as one:
        yield one


def text_message(*texts: bytes, raw: bool) -> pb.ModelInferRequest:
    """A gRPC request with texts."""
    message = pb.ModelInferRequest(model_name="model")
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    if raw:
        packed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        message.raw_input_contents.append(packed)
    else:
        tensor.contents.bytes_contents.extend(texts)
    return message


def text_body(*texts: bytes) -> tuple[bytes, str]:
    """A v2 body with texts in binary form, which asks for the same; and where its JSON ends."""
    packed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)]}
    tensor["parameters"] = {"binary_data_size": len(packed)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + packed, str(len(head))


def logged_since(server: Transformer, length: int) -> list[str]:
    """What the serving processes have logged since the log was so long; not what delivery has."""
    return [line for line in server.log[length:].splitlines() if ".delivery" not in line]


def test_hooks_change_the_call_and_the_record_shows_the_caller(
    hooked: Transformer, shared_uri: str
) -> None:
    """The request as it was sent, the answer as it was received."""
    pair, sent = new_pair(), b'{"values": [1, 2]}'
    answered = hooked.post(PREDICT, sent, x_shadow_pair_id=pair)
    assert (answered.status, json.loads(answered.body)) == (
        200,
        {"predictions": [4.0, 6.0], "note": "hooked"},
    )
    assert answered.headers["content-type"] == "application/json"
    found = row(shared_uri, pair)
    assert (stored(found, "request"), stored(found, "response")) == (sent, answered.body)


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_hooks_work_over_grpc(hooked: Transformer, shared_uri: str, raw: bool) -> None:
    """They get KServe's InferRequest and InferResponse; who sends raw tensors gets raw ones."""
    pair = new_pair()
    message = pb.ModelInferRequest(model_name="model")
    tensor = message.inputs.add(name="a", datatype="FP32", shape=[2])
    if raw:
        message.raw_input_contents.append(np.array([1, 2], "<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend([1, 2])
    wire = hooked.rpc("ModelInfer", message.SerializeToString(), x_shadow_pair_id=pair)
    answer = pb.ModelInferResponse.FromString(wire)
    [output] = answer.outputs
    contents = output.contents
    values = list(contents.fp32_contents or contents.fp64_contents)
    if answer.raw_output_contents:
        kind = "<f4" if output.datatype == "FP32" else "<f8"
        values = np.frombuffer(answer.raw_output_contents[0], kind).tolist()
    assert values == [4.0, 6.0]
    assert bytes(row(shared_uri, pair)["response_raw"]) == wire


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_hooks_work_over_v2(hooked: Transformer, shared_uri: str, binary: bool) -> None:
    """The same InferRequest over REST; the answer has the form that the caller asked for."""
    pair = new_pair()
    tensor = {"name": "a", "datatype": "FP64", "shape": [2]}
    headers = {"x_shadow_pair_id": pair}
    if binary:
        raw = np.array([1, 2], "<f8").tobytes()
        tensor["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        headers["inference_header_content_length"] = str(len(head))
        sent = head.encode() + raw
    else:
        sent = json.dumps({"inputs": [tensor | {"data": [1, 2]}]}).encode()
    answered = hooked.post(INFER, sent, **headers)
    assert answered.status == 200, answered.body
    if binary:
        length = int(answered.headers["inference-header-content-length"])
        values = np.frombuffer(answered.body[length:], "<f8").tolist()
    else:
        values = json.loads(answered.body)["outputs"][0]["data"]
    assert values == [4.0, 6.0]
    found = row(shared_uri, pair)
    assert (stored(found, "request"), stored(found, "response")) == (sent, answered.body)


def test_a_v1_call_may_go_to_v2(hooked: Transformer, shared_uri: str) -> None:
    """A feature look-up that returns an InferRequest, as KServe's own transformers do."""
    pair, sent = new_pair(), b'{"customer": "bob"}'
    answered = hooked.post(PREDICT, sent, x_shadow_pair_id=pair)
    assert json.loads(answered.body) == {"predictions": [6.0, 8.0]}, hooked.log
    found = row(shared_uri, pair)
    assert (stored(found, "request"), found["protocol"]) == (sent, "v1")


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (b"{}", 400, "values is missing"),
        (b'{"values": "bug"}', 500, 'TypeError : can only concatenate str (not "int") to str'),
        (b'{"customer": "nobody"}', 500, "KeyError : 'nobody'"),
        (
            b'{"values": "nothing"}',
            500,
            "HookMistake : preprocess returned NoneType; return a JSON value, an InferRequest or b",
        ),
        (b'{"values": []}', 400, None),
        (b'{"values": [1', 400, "the body is not JSON: "),
        (b"\xff", 400, "the body is not JSON: "),
    ],
    ids=["refusal", "bug", "unknown", "nothing", "predictor's refusal", "cut", "bytes"],
)
def test_failures_around_hooks_are_recorded(
    hooked: Transformer, shared_uri: str, sent: bytes, status: int, error: str | None
) -> None:
    """KServe's statuses for a hook's exceptions; the predictor's own refusal stays its own."""
    pair, logged = new_pair(), len(hooked.log)
    answered = hooked.post(PREDICT, sent, x_shadow_pair_id=pair)
    message = json.loads(answered.body)["error"]
    assert (answered.status, message.startswith(error or message)) == (status, True), message
    found = row(shared_uri, pair)
    assert (found["status_code"], found["error"]) == (status, message)
    lines = logged_since(hooked, logged)
    if status == 500:
        [line] = [line for line in lines if " a hook failed at " in line]
        assert "/v1/models/model:predict, its caller gets 500: " in line
        assert message.split(" : ")[1] in line
        assert ("HookMistake" in line) != ("(hooked.py, line " in line)
    else:
        assert lines == []


def test_a_v2_body_that_is_not_one_is_the_callers_mistake(
    hooked: Transformer, shared_uri: str
) -> None:
    """400 over REST, INVALID_ARGUMENT over gRPC; no line in the log."""
    pair, logged = new_pair(), len(hooked.log)
    answered = hooked.post(INFER, b'{"inputs": [{"name": "a"}]}', x_shadow_pair_id=pair)
    assert (answered.status, answered.body) == (400, b'{"error":"the request has no \'shape\'"}')
    assert row(shared_uri, pair)["status_code"] == 400
    with pytest.raises(grpc.RpcError) as failure:
        hooked.rpc("ModelInfer", b"\xff")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert logged_since(hooked, logged) == []


def test_explain_goes_to_the_explainer(
    hooked: Transformer, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """Its own host, its own path, recorded as a call to :explain."""
    pair = new_pair()
    answered = hooked.post(EXPLAIN, b'{"values": [1]}', x_shadow_pair_id=pair, authorization="x")
    assert answered.status == 200
    assert json.loads(answered.body) == json.loads(ANSWER) | {"note": "hooked"}
    assert "authorization" not in answered.headers
    seen = next(s for s in scripted.seen if s.headers.get("x-shadow-pair-id") == pair)
    assert seen.line == f"POST {EXPLAIN} HTTP/1.1"
    assert json.loads(seen.body) == {"values": [2]}
    found = row(shared_uri, pair)
    assert found["predict_url"] == f"http://{scripted.address}{EXPLAIN}"
    assert (found["protocol"], found["status_code"]) == ("v1", 200)


def test_named_functions_are_hooks(named: Transformer, shared_uri: str) -> None:
    """PREPROCESS and POSTPROCESS alone make a tokenizer of the image, for callers of v1."""
    pair, sent = new_pair(), b'{"text": "a good day"}'
    answered = named.post(PREDICT, sent, x_shadow_pair_id=pair)
    found = row(shared_uri, pair)
    if "grpc-v2" in named.process.args:
        assert (answered.status, found["status_code"]) == (400, 400)
        return
    assert json.loads(answered.body) == {"predictions": [2.0, 4.0, 6.0], "words": "3"}
    assert (stored(found, "request"), stored(found, "response")) == (sent, answered.body)


@pytest.mark.parametrize("form", ["json", "binary"])
def test_named_functions_get_text_over_v2(named: Transformer, shared_uri: str, form: str) -> None:
    """Text is a str over REST, also in binary form; tensors go on in either form."""
    pair = new_pair()
    headers = {"x_shadow_pair_id": pair, "x_form": form}
    if form == "binary":
        sent, headers["inference_header_content_length"] = text_body(b"a good day")
    else:
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a good day"]}
        sent = json.dumps({"id": "mine", "inputs": [tensor]}).encode()
    answered = named.post(INFER, sent, **headers)
    assert answered.status == 200, answered.body + named.log.encode()
    if form == "binary":
        length = int(answered.headers["inference-header-content-length"])
        assert np.frombuffer(answered.body[length:], "<f8").tolist() == [2, 4, 6]
    else:
        answer = json.loads(answered.body)
        assert (answer["id"], answer["outputs"][0]["data"]) == ("mine", [2, 4, 6])
    assert stored(row(shared_uri, pair), "request") == sent


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_named_functions_get_text_over_grpc(named: Transformer, raw: bool) -> None:
    """The same function; raw tensors have values too, which KServe itself leaves empty."""
    wire = named.rpc("ModelInfer", text_message(b"a good day", raw=raw).SerializeToString())
    answer = pb.ModelInferResponse.FromString(wire)
    [output] = answer.outputs
    if answer.raw_output_contents:
        assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == [2, 4, 6]
    else:
        assert list(output.contents.fp64_contents) == [2, 4, 6]


def test_a_mistake_over_grpc_is_the_callers_500(named: Transformer, shared_uri: str) -> None:
    """INTERNAL with its words, recorded with status 500, and one log line that says where."""
    pair, logged = new_pair(), len(named.log)
    message = text_message(b"a bad day", raw=True).SerializeToString()
    with pytest.raises(grpc.RpcError) as failure:
        named.rpc("ModelInfer", message, x_shadow_pair_id=pair)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    found = row(shared_uri, pair)
    assert (found["status_code"], found["error"]) == (500, "KeyError : 'bad'")
    lines = logged_since(named, logged)
    [line] = [line for line in lines if " a hook failed at " in line]
    assert "in tokenize; named.py, line " in line
    assert "in numbers" in line


def test_what_is_redacted_is_not_in_the_log(
    folder: Path, shared_uri: str, predictor: Predictor
) -> None:
    """A mistake's words may quote the call: with RECORD_REDACT its kind and place are logged."""
    settings = {"MODULE": "hooked", "RECORD_REDACT": "$.customer"}
    with Transformer(folder, shared_uri, predictor.address, **settings) as running:
        pair = new_pair()
        answered = running.post(PREDICT, b'{"customer": "s3cret"}', x_shadow_pair_id=pair)
        assert (answered.status, b"s3cret" in answered.body) == (500, True)
        found = row(shared_uri, pair)
        assert "s3cret" not in str(found)
        assert "gets 500: KeyError (hooked.py, line " in running.log
        assert "s3cret" not in running.log


def test_what_is_not_json_stays_bytes(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """A posted image goes through a hook as the bytes that it is, and is recorded as it came."""
    hooks = {"PREPROCESS": "named:tokenize", "PASS_PATHS": "/any"}
    with Transformer(folder, shared_uri, scripted.address, **hooks) as running:
        for path in (PREDICT, "/any/picture"):
            pair, sent = new_pair(), b"\x89png\xff"
            typed = {"content_type": "image/png", "x_shadow_pair_id": pair}
            assert running.post(path, sent, **typed).body == ANSWER
            seen = next(s for s in scripted.seen if s.headers.get("x-shadow-pair-id") == pair)
            assert (seen.body, seen.headers["content-type"]) == (sent.upper(), "image/png")
            assert stored(row(shared_uri, pair), "request") == sent


def test_an_answer_that_json_cannot_hold_is_a_mistake(
    folder: Path, shared_uri: str, predictor: Predictor
) -> None:
    """Postprocess alone: the predictor gets the caller's bytes as they came."""
    hooks = {"POSTPROCESS": "named:postprocess"}
    with Transformer(folder, shared_uri, predictor.address, **hooks) as running:
        answered = running.post(PREDICT, b'{"values": [1]}')
        assert answered.status == 500
        reason = "HookMistake : postprocess returned what JSON cannot hold: "
        assert json.loads(answered.body)["error"].startswith(reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("named", "PREPROCESS is 'named'; write package.module:function."),
        (
            "nowhere:f",
            "cannot be loaded (ModuleNotFoundError: No module named 'nowhere'); have it where",
        ),
        ("named:gone", "has no attribute 'gone'"),
        ("named:NOT_A_FUNCTION", "PREPROCESS is 'named:NOT_A_FUNCTION', a int; name a function."),
        ("named:of_one", "PREPROCESS is 'named:of_one'; have it take two arguments, the payload"),
    ],
)
def test_a_hook_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """One line with the variable, its value and what to do."""
    monkeypatch.setenv("PREPROCESS", name)
    with pytest.raises(SettingsError) as failure:
        Hooks.of(HookSettings.from_environment())
    assert reason in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_hook_that_cannot_be_used_stops_the_start(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before a port is taken; so does one of which there are two."""
    monkeypatch.setenv("POSTGRES_URI", "postgresql://u@h/d")
    monkeypatch.setenv("SHADOW_ROLE", "shadow")
    monkeypatch.setenv("SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("PREPROCESS", "named:tokenize")
    assert serve(Hooked, ["--configure_logging", "false"]) == 2
    reason = "PREPROCESS is 'named:tokenize', and Hooked has a preprocess of its own; unset it, or"
    assert capfd.readouterr().err.startswith(reason)
