"""What crosses the hop and what does not: headers both ways, queries, versions, odd spellings."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ScriptedPredictor, Seen
from serving import (
    INFER,
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Predictor,
    Transformer,
    new_pair,
    row,
    stored,
    until,
)


@pytest.fixture(scope="module")
def shadow(folder: Path, shared_uri: str, scripted: ScriptedPredictor) -> Iterator[Transformer]:
    """A shadow's transformer with header lists of its own, which ends a call after two seconds."""
    settings = {
        "SHADOW_ROLE": "shadow",
        "FORWARD_HEADERS": "Authorization, x-tenant*,accept",
        "RETURN_HEADERS": "set-cookie,x-model-*",
        "PREDICT_TIMEOUT_SECONDS": "2",
    }
    with Transformer(folder, shared_uri, scripted.address, **settings) as running:
        yield running


def dictated(**answer: object) -> bytes:
    """The body that dictates the predictor's answer."""
    return json.dumps({"answer": answer}).encode()


def seen_by(scripted: ScriptedPredictor, pair: str) -> Seen:
    """The request of a pair, as the predictor got it."""
    found: Seen = until(
        lambda: next(
            (s for s in scripted.seen if pair in s.headers.get("x-shadow-pair-id", "")), 0
        ),
        "the predictor's call",
    )
    return found


def raw_call(server: Transformer, head: bytes, body: bytes = SAMPLE) -> bytes:
    """What a connection of its own gets for these bytes; the head asks for its end."""
    with closing(socket.create_connection(("127.0.0.1", server.http_port), 120)) as caller:
        caller.sendall(head + b"\r\n" + body)
        got = b""
        while piece := caller.recv(65536):
            got += piece
        return got


def head_of(pair: str, *lines: bytes, path: str = PREDICT, length: int = len(SAMPLE)) -> bytes:
    first = [
        f"POST {path} HTTP/1.1".encode(),
        b"host: x",
        f"x-shadow-pair-id: {pair}".encode(),
        b"content-length: %d" % length,
    ]
    return b"".join(line + b"\r\n" for line in [*first, *lines])


CLOSE = b"connection: close"


def test_listed_headers_reach_the_predictor_and_the_caller(
    shadow: Transformer, scripted: ScriptedPredictor
) -> None:
    """Both lists replace the defaults; what describes the body and pairs the call stays on them."""
    pair = new_pair()
    headers = {"x-model-name": "m", "set-cookie": "a=b", "retry-after": "3", "server": "secret/1"}
    answered = shadow.post(
        PREDICT,
        dictated(headers=headers),
        x_shadow_pair_id=pair,
        authorization="Bearer t",
        x_tenant_id="7",
        traceparent="00-1-2-3",
        cookie="c=d",
        x_shadow="false",
    )
    assert answered.status == 200
    sent = seen_by(scripted, pair).headers
    assert sent["authorization"] == "Bearer t"
    assert sent["x-tenant-id"] == "7"
    assert sent["content-type"] == "application/json"
    assert not sent.keys() & {"traceparent", "cookie"}
    assert (answered.headers["x-model-name"], answered.headers["set-cookie"]) == ("m", "a=b")
    assert answered.headers["server"] != "secret/1"
    assert "retry-after" not in answered.headers


def test_the_shadows_model_is_told_that_it_works_on_a_copy(
    shadow: Transformer, fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """x-shadow: true, from the role alone: a caller's own says nothing, on either side."""
    for server, expected in ((shadow, "true"), (fronting, None)):
        pair = new_pair()
        server.post(PREDICT, b"{}", x_shadow_pair_id=pair, x_shadow="maybe")
        assert seen_by(scripted, pair).headers.get("x-shadow") == expected


def test_timeout_is_a_setting(shadow: Transformer, shared_uri: str) -> None:
    """PREDICT_TIMEOUT_SECONDS rules where no argument does."""
    pair = new_pair()
    answered = shadow.post(PREDICT, dictated(pause=20), x_shadow_pair_id=pair)
    assert answered.status == 504
    assert json.loads(answered.body) == {"error": "the predictor did not answer in 2 s"}
    assert row(shared_uri, pair)["status_code"] == 504


@pytest.mark.parametrize("query", ["a=1&b=%20x", "a=1?b=2", ""])
def test_query_reaches_the_predictor(
    fronting: Transformer, scripted: ScriptedPredictor, query: str
) -> None:
    """As it came."""
    pair = new_pair()
    fronting.post(f"{PREDICT}?{query}", b"{}", x_shadow_pair_id=pair)
    asked = f"{PREDICT}?{query}" if query else PREDICT
    assert seen_by(scripted, pair).line == f"POST {asked} HTTP/1.1"


def test_header_lines_of_one_name_are_combined_and_bytes_stay(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """As RFC 9110 says; text that is not ASCII is not encoded twice."""
    pair = new_pair()
    got = raw_call(
        fronting,
        head_of(
            pair,
            b"tracestate: a=1",
            b"TraceState: b=2",
            "ce-subject: caf\u00e9".encode(),
            CLOSE,
        ),
    )
    assert b" 200 OK" in got
    headers = seen_by(scripted, pair).headers
    assert headers["tracestate"] == "a=1, b=2"
    assert headers["ce-subject"].encode("latin-1") == "caf\u00e9".encode()


def test_header_text_is_stored_as_text(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor
) -> None:
    """What is UTF-8 is read as that, anything else as Latin-1."""
    settings = {"RECORD_HEADERS": "x-city,x-old"}
    with Transformer(folder, shared_uri, scripted.address, **settings) as server:
        pair = new_pair()
        city, old = "x-city: M\u00fcnchen".encode(), "x-old: M\u00fcnchen".encode("latin-1")
        assert b" 200 OK" in raw_call(server, head_of(pair, city, old, CLOSE))
        headers = row(shared_uri, pair)["request_headers"]
        assert headers == {"x-city": "M\u00fcnchen", "x-old": "M\u00fcnchen"}


def test_metadata_of_several_hops_is_combined(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """Over gRPC too; a binary value is not text and stays here."""
    pair = new_pair()
    metadata = (
        ("x-shadow-pair-id", pair),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("ce-bin", b"\xff"),
    )
    wire = pb.ModelInferRequest(model_name="model").SerializeToString()
    with grpc.insecure_channel(fronting.grpc_address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError):
            call(wire, metadata=metadata, timeout=120)
    headers = seen_by(scripted, pair).headers
    assert headers["tracestate"] == "a=1, b=2"
    assert "ce-bin" not in headers


@pytest.mark.parametrize("length", [8191, 60_000])
def test_long_header_of_the_predictor_costs_no_answer(
    fronting: Transformer, shared_uri: str, length: int
) -> None:
    """Passed when it is listed, dropped when not; the answer stays what it is."""
    pair = new_pair()
    headers = {"ce-long": "x" * length, "x-long": "y" * length}
    answered = fronting.post(PREDICT, dictated(headers=headers), x_shadow_pair_id=pair)
    assert (answered.status, answered.body) == (200, b"{}")
    assert "x-long" not in answered.headers
    assert row(shared_uri, pair)["status_code"] == 200
    with_200 = {f"x-{n}": "z" for n in range(200)}
    assert fronting.post(PREDICT, dictated(headers=with_200)).status == 200


JAVA = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAA")
GO = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZQ==")


@pytest.mark.parametrize("upgrade", [JAVA, GO], ids=["Java's HttpClient", "a WebSocket"])
@pytest.mark.parametrize("is_split", [False, True])
def test_upgrade_is_ignored_and_the_body_counts(
    transformer: Transformer, shared_uri: str, upgrade: tuple[bytes, ...], *, is_split: bool
) -> None:
    """Java asks for h2c on each first call; the call is answered as without, and so is the next."""
    pairs = [new_pair(), new_pair()]
    first = head_of(pairs[0], *upgrade) + b"\r\n" + SAMPLE
    second = head_of(pairs[1], CLOSE) + b"\r\n" + SAMPLE
    with closing(socket.create_connection(("127.0.0.1", transformer.http_port), 120)) as caller:
        parts = [first + second] if not is_split else [first[:-7], first[-7:], second]
        for part in parts:
            caller.sendall(part)
            if is_split:
                until(lambda: True, "")
        got = b""
        while piece := caller.recv(65536):
            got += piece
    assert got.count(b"HTTP/1.1 200 OK") == got.count(SAMPLE_ANSWER) == 2
    for pair in pairs:
        assert stored(row(shared_uri, pair), "request") == SAMPLE
    assert "Unsupported upgrade" not in transformer.log


def test_upgrade_of_a_chunked_body(transformer: Transformer) -> None:
    """Chunks count too, and a CONNECT is refused."""
    chunks = b"".join(b"1\r\n" + SAMPLE[n : n + 1] + b"\r\n" for n in range(len(SAMPLE)))
    head = head_of(new_pair(), *JAVA).replace(b"content-length: 34", b"transfer-encoding: chunked")
    assert b"content-length" not in head
    with closing(socket.create_connection(("127.0.0.1", transformer.http_port), 120)) as caller:
        caller.sendall(head + b"\r\n" + chunks + b"0\r\n\r\n")
        got = b""
        while SAMPLE_ANSWER not in got:
            piece = caller.recv(65536)
            assert piece, got
            got += piece
    assert b"400 Bad Request" in raw_call(transformer, b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n", b"")


def test_trailer_is_no_header(transformer: Transformer, shared_uri: str) -> None:
    """A pair id behind the body is nobody's."""
    pair, forged = new_pair(), new_pair()
    head = head_of(pair, CLOSE).replace(b"content-length: 34", b"transfer-encoding: chunked")
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(SAMPLE), SAMPLE)
    trailer = f"x-shadow-pair-id: {forged}\r\ntracestate: a=1\r\n\r\n".encode()
    assert SAMPLE_ANSWER in raw_call(transformer, head, chunk + trailer)
    assert row(shared_uri, pair)["status_code"] == 200


@pytest.mark.parametrize("version", ["1", "2025-11-25", "a b"])
def test_version_is_forwarded_and_recorded(
    fronting: Transformer, scripted: ScriptedPredictor, shared_uri: str, version: str
) -> None:
    """/v2/models/m/versions/v/infer is a call as any other; the row says which version."""
    pair = new_pair()
    path = f"/v2/models/model/versions/{version.replace(' ', '%20')}/infer"
    assert fronting.post(path, b"{}", x_shadow_pair_id=pair).status == 200
    assert seen_by(scripted, pair).line == f"POST {path} HTTP/1.1"
    found = row(shared_uri, pair)
    assert found["predict_url"] == f"http://{fronting.predictor}{path}"
    assert (found["protocol"], found["model_version"]) == ("v2", "7")


def test_version_of_a_message_is_forwarded_and_recorded(
    fronting: Transformer, scripted: ScriptedPredictor, shared_uri: str
) -> None:
    """gRPC's model_version is the path's version towards a REST predictor."""
    pair = new_pair()
    wire = pb.ModelInferRequest(model_name="model", model_version="3").SerializeToString()
    with pytest.raises(grpc.RpcError):
        fronting.rpc("ModelInfer", wire, x_shadow_pair_id=pair)
    path = "/v2/models/model/versions/3/infer"
    assert seen_by(scripted, pair).line == f"POST {path} HTTP/1.1"
    found = row(shared_uri, pair)
    assert found["predict_url"] == f"http://{fronting.predictor}{path}"
    assert found["request_data"]["model_version"] == "3"


def test_version_over_rest_reaches_a_grpc_predictor(
    grpc_transformer: Transformer, shared_uri: str
) -> None:
    """As its message's model_version, which the example model gives back."""
    pair = new_pair()
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]}
    path = "/v2/models/model/versions/3/infer"
    sent = json.dumps({"inputs": [tensor]}).encode()
    answered = grpc_transformer.post(path, sent, x_shadow_pair_id=pair)
    assert answered.status == 200, answered.body
    assert row(shared_uri, pair)["status_code"] == 200


def test_trailing_slash_is_served(transformer: Transformer, shared_uri: str) -> None:
    """And not sent elsewhere: a redirected POST loses its body with many clients."""
    pair = new_pair()
    assert transformer.post(f"{PREDICT}/", SAMPLE, x_shadow_pair_id=pair).body == SAMPLE_ANSWER
    found = row(shared_uri, pair)
    assert found["predict_url"] == f"http://{transformer.predictor}{PREDICT}"


@pytest.mark.parametrize("name", ["my model", "mod\u00e8le", "a%b"])
def test_model_names_of_any_letters(
    folder: Path, shared_uri: str, scripted: ScriptedPredictor, name: str
) -> None:
    """Quoted on the way; ready, answered and recorded."""
    path = f"/v1/models/{quote(name)}:predict"
    with Transformer(folder, shared_uri, scripted.address, "--model_name", name) as server:
        until(lambda: server.get(f"/v1/models/{quote(name)}").status == 200, "readiness")
        pair = new_pair()
        assert server.post(path, b"{}", x_shadow_pair_id=pair).status == 200
        assert seen_by(scripted, pair).line == f"POST {path} HTTP/1.1"
        found = row(shared_uri, pair)
        assert (found["model_name"], found["status_code"]) == (name, 200)
        assert found["predict_url"] == f"http://{server.predictor}{path}"


@pytest.mark.parametrize("status", ["666 Odd", "999 Odder", "600 Over", "101 Switching Protocols"])
def test_status_that_http_does_not_have_is_502_for_caller_and_row(
    fronting: Transformer, shared_uri: str, status: str
) -> None:
    """The row says what the caller got."""
    pair = new_pair()
    answered = fronting.post(PREDICT, dictated(status=status), x_shadow_pair_id=pair)
    found = row(shared_uri, pair)
    assert answered.status == found["status_code"] == 502
    assert json.loads(answered.body)["error"] == found["error"]


@pytest.mark.parametrize("letter", ["e", "\u00e9", "\u4e2d"])
def test_long_words_of_a_failure_reach_a_grpc_caller(
    fronting: Transformer, shared_uri: str, letter: str
) -> None:
    """Cut to what gRPC carries, so that its code is that of the row."""
    message = pb.ModelInferRequest(model_name="model")
    answer = {"status": "400 Bad Request", "body": json.dumps({"error": letter * 17_000})}
    message.parameters["answer"].string_param = json.dumps(answer)
    pair = new_pair()
    with pytest.raises(grpc.RpcError) as refused:
        fronting.rpc("ModelInfer", message.SerializeToString(), x_shadow_pair_id=pair)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refused.value.details()) == {letter}
    assert row(shared_uri, pair)["status_code"] == 400


def test_metadata_is_the_predictors(
    transformer: Transformer, grpc_transformer: Transformer, predictor: Predictor
) -> None:
    """GET /v2/models/m, over either hop, and gRPC's ModelMetadata."""
    expected = predictor.get("/v2/models/model")
    assert expected.status == 200
    answered = transformer.get("/v2/models/model")
    assert (answered.status, answered.body) == (200, expected.body)
    assert json.loads(grpc_transformer.get("/v2/models/model").body)["name"] == "model"
    wire = transformer.rpc(
        "ModelMetadata", pb.ModelMetadataRequest(name="model").SerializeToString()
    )
    assert pb.ModelMetadataResponse.FromString(wire).name == "model"
    with pytest.raises(grpc.RpcError) as refused:
        transformer.rpc("ModelMetadata", pb.ModelMetadataRequest(name="other").SerializeToString())
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert transformer.get("/v2/models/other").status == 404


def test_infer_stays_a_post(transformer: Transformer) -> None:
    """Only the description is passed on."""
    assert transformer.get(INFER).status == 405
