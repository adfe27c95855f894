"""Callers and disks that would take the server down: it serves on and accounts for every call."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import grpc
import pytest
from deployment import Start
from evidence import check_every_answer_is_stored_once, gaps, metric, records, tell
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from load import Load
from processes import descendants, resident_bytes
from scripted import ScriptedPredictor
from serving import PREDICT, SAMPLE, SAMPLE_ANSWER, Transformer, new_pair, row, until

from embedded_postgres import Postgres

MIB = 1024 * 1024
# Of 8 bytes, they fill a message of 8 MiB nearly.
VALUES = 1_040_000


def test_full_temporary_folder_costs_no_process(
    small_disk: Callable[[str], Path], start: Start, transformer_uri: str, postgres: Postgres
) -> None:
    """TMPDIR is full when the counters are first written: both processes live, and deliver."""
    disk = small_disk("size=64k")
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
    server = start(transformer_uri, TMPDIR=str(disk))
    with Load(server) as load:
        load.until_answered(200)
    assert not load.failed
    check_every_answer_is_stored_once(postgres.uri, load)
    assert "ended with code" not in server.log
    assert server.stop() == 0


NESTED = {
    "255 deep": b'{"secret": "SECRET", "x": ' + b"[" * 255 + b"]" * 255 + b"}",
    "1,023 deep": b'{"secret": "SECRET", "x": ' + b"[" * 1020 + b"]" * 1020 + b"}",
    "5 MB of numbers": b'{"secret": "SECRET", "x": [%b]}' % b",".join([b"1.5"] * 1_250_000),
    "20 MB of []": b'{"secret": "SECRET", "x": [%b]}' % b",".join([b"[]"] * 7_000_000),
}


def test_bodies_that_cannot_be_redacted_cost_neither_record_nor_server(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor
) -> None:
    """Nothing of them is stored but their size; the liveness probe is answered meanwhile."""
    redacted = {"RECORD_REDACT": "$.secret,$..ssn", "PREDICTOR": scripted.address}
    server = start(database, **redacted)
    answers: list[int] = []
    done = threading.Event()

    def probe() -> None:
        while not done.is_set():
            answers.append(server.get("/").status)

    probing = threading.Thread(target=probe)
    probing.start()
    pairs = {}
    try:
        for name, body in NESTED.items():
            pairs[name] = new_pair()
            assert server.post(PREDICT, body, x_shadow_pair_id=pairs[name]).status == 200
    finally:
        done.set()
        probing.join()
    assert set(answers) == {200}
    for name, body in NESTED.items():
        found = row(postgres_uri, pairs[name])
        assert (found["request_size"], found["request_truncated"]) == (len(body), True), name
        assert (found["request_text"], found["request_raw"]) == (None, None), name
    assert gaps(postgres_uri) == 0
    assert records(server, "dropped") == 0


def test_answers_that_cannot_be_redacted_use_up_no_reserve(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor
) -> None:
    """More of them than the spool has reserves for: recording goes on, and nothing is missing."""
    limits = {"RECORD_REDACT": "$.secret", "SPOOL_MAX_BYTES": str(1 * MIB)}
    server = start(database, PREDICTOR=scripted.address, **limits)
    text = '{"secret": 1, "x": ' + "[" * 300 + "]" * 300 + "}"
    asked = json.dumps({"answer": {"body": text}}).encode()
    # 1 MiB has room for 1,310 responses of 800 bytes.
    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(lambda _: server.post(PREDICT, asked).status, range(1500)))
    assert set(answered) == {200}
    until(lambda: records(server, "written") == 1500 - records(server, "dropped"), "room for one")
    pair = new_pair()
    server.post(PREDICT, asked, x_shadow_pair_id=pair)
    assert row(postgres_uri, pair)["response_size"] == len(text)
    until(lambda: records(server, "written") == 1501 - records(server, "dropped"), "delivery")
    assert gaps(postgres_uri) == records(server, "dropped")


QUOTING = {
    "a JSON 400": {"status": "400 Bad Request", "body": '{"error": "<secret> is not a number"}'},
    "a plain 500": {
        "status": "500 Oops",
        "body": "cannot parse <secret>",
        "headers": {"content-type": "text/plain"},
    },
}


@pytest.mark.parametrize("paths", ["$.secret,$..ssn", "$..error", "$.*", ".secret", "$['secret']"])
def test_failures_that_quote_what_is_redacted_are_not_stored(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor, paths: str
) -> None:
    """With redaction on, the predictor's words are not stored; ours are."""
    server = start(database, RECORD_REDACT=paths, PREDICTOR=scripted.address)
    for name, answer in QUOTING.items():
        pair = new_pair()
        sent = json.dumps({"secret": "SECRET", "answer": answer}).encode()
        answered = server.post(PREDICT, sent, x_shadow_pair_id=pair)
        assert b"SECRET" in answered.body
        found = row(postgres_uri, pair)
        stored = [found[column] for column in ("error", "response_data", "response_raw")]
        assert "SECRET" not in str(stored), name
        assert found["status_code"] == answered.status
        assert (found["error"], found["response_size"]) == ("[redacted]", len(answered.body))
    pair = new_pair()
    answered = server.post("/v1/models/model:explain", b"{}", x_shadow_pair_id=pair)
    assert answered.status == 501
    assert row(postgres_uri, pair)["status_code"] == 501


def test_error_texts_are_stored_when_asked_for(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor
) -> None:
    """RECORD_ERRORS=1."""
    asked = {"RECORD_REDACT": "$.secret", "RECORD_ERRORS": "1"}
    server = start(database, PREDICTOR=scripted.address, **asked)
    pair = new_pair()
    sent = json.dumps({"secret": "SECRET", "answer": QUOTING["a JSON 400"]}).encode()
    server.post(PREDICT, sent, x_shadow_pair_id=pair)
    assert row(postgres_uri, pair)["error"] == "SECRET is not a number"


@pytest.mark.parametrize("limit", [100_000, 1024])
def test_body_over_the_limit_is_413_and_recorded(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor, limit: int
) -> None:
    """Announced or in chunks; the answer names the setting, the row has the size that was said."""
    limits = {"MAX_BODY_BYTES": str(limit), "MAX_IN_FLIGHT_BYTES": str(MIB)}
    server = start(database, PREDICTOR=scripted.address, **limits)
    seen = len(scripted.seen)
    pair = new_pair()
    answered = server.post(PREDICT, bytes(limit + 1), x_shadow_pair_id=pair)
    words = f"the body is over MAX_BODY_BYTES={limit}"
    assert (answered.status, json.loads(answered.body)) == (413, {"error": words})
    found = row(postgres_uri, pair)
    assert (found["status_code"], found["error"]) == (413, words)
    assert (found["request_size"], found["request_raw"]) == (limit + 1, None)
    pair = new_pair()
    headers = {"x-shadow-pair-id": pair, "transfer-encoding": "chunked"}
    chunks = b"".join(b"1000\r\n%b\r\n" % bytes(4096) for _ in range(30)) + b"0\r\n\r\n"
    answered = server.call("POST", PREDICT, chunks, headers)
    assert answered.status == 413
    assert row(postgres_uri, pair)["status_code"] == 413
    assert len(scripted.seen) == seen
    assert server.post(PREDICT, bytes(limit)).status == 200


def test_answer_over_the_limit_is_502_and_recorded(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor
) -> None:
    """Whether or not the predictor says how long it is."""
    limit = 100_000
    limits = {"MAX_BODY_BYTES": str(limit), "MAX_IN_FLIGHT_BYTES": str(MIB)}
    server = start(database, PREDICTOR=scripted.address, **limits)
    for size, chunked, status in (
        (limit + 1, False, 502),
        (limit + 1, True, 502),
        (limit, True, 200),
        (limit, False, 200),
        (70_000, True, 200),
    ):
        pair = new_pair()
        asked = json.dumps({"answer": {"size": size, "chunked": chunked}}).encode()
        answered = server.post(PREDICT, asked, x_shadow_pair_id=pair)
        assert answered.status == status, (size, chunked)
        assert row(postgres_uri, pair)["status_code"] == status
        if status == 502:
            assert "MAX_BODY_BYTES=100000" in answered.body.decode()
        else:
            assert answered.body == bytes(size)


def test_64_callers_with_the_largest_body_stay_within_the_pods_memory(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor
) -> None:
    """768 MiB for both processes, by the defaults; each is answered, or told that there is no room
    or, on a machine that is that slow, that it was too slow. Some try again, until eight are
    answered. Small calls are answered meanwhile.
    """
    server = start(database, PREDICTOR=scripted.address)
    body = bytes(64 * MIB)
    peak = 0
    done = threading.Event()
    small: list[int] = []
    answered: list[int] = []

    def call(_: int) -> None:
        answered.append(server.post(PREDICT, body).status)
        while answered.count(200) < 8:
            answered.append(server.post(PREDICT, body).status)

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            pids = [server.process.pid, *descendants(server.process.pid)]
            peak = max(peak, sum(map(resident_bytes, pids)))
            small.append(server.post(PREDICT, b"{}").status)
            done.wait(0.05)  # the cores are for the callers

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(call, range(64)))
    finally:
        done.set()
        watching.join()
    tell(peak_mib=peak // MIB, ok=answered.count(200), refused=answered.count(503))
    assert set(answered) <= {200, 408, 503}
    assert answered.count(200) >= 8
    assert set(small) == {200}
    assert peak < 768 * MIB
    calls = len(answered) + len(small)
    until(lambda: records(server, "written") == calls, "all rows")
    assert gaps(postgres_uri) == 0


class Constant(ThreadingHTTPServer):
    """A predictor that looks into no body, and whose answer is always the same."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.address = f"127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Constant

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def constant() -> Iterator[Constant]:
    """One that answers 8 MiB of tensors, as JSON."""
    numbers = b",".join([b"%d" % int.from_bytes(b"\x81" * 8, "little", signed=True)] * VALUES)
    tensor = b'{"name":"x","datatype":"INT64","shape":[%d],"data":[%b]}' % (VALUES, numbers)
    with Constant(b'{"model_name":"model","outputs":[%b]}' % tensor) as running:
        yield running


def test_64_grpc_callers_with_the_largest_message_stay_within_the_pods_memory(
    start: Start, database: str, postgres_uri: str, constant: Constant
) -> None:
    """8 MiB of raw tensors each, which become JSON for a predictor without binary ones, and so do
    those that it answers.
    """
    server = start(database, "--predictor_protocol", "v2", PREDICTOR=constant.address)
    message = pb.ModelInferRequest(model_name="model")
    message.inputs.add(name="x", datatype="INT64", shape=[VALUES])
    message.raw_input_contents.append(b"\x81" * 8 * VALUES)
    wire = message.SerializeToString()
    assert 8_300_000 < len(wire) < 8 * MIB
    done = threading.Event()
    peaks = [0]

    def watch() -> None:
        while not done.is_set():
            pids = [server.process.pid, *descendants(server.process.pid)]
            peaks.append(sum(map(resident_bytes, pids)))
            done.wait(0.05)

    def call(_: int) -> grpc.StatusCode:
        try:
            server.rpc("ModelInfer", wire)
        except grpc.RpcError as failure:
            return failure.code()
        return grpc.StatusCode.OK

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(64) as pool:
            codes = list(pool.map(call, range(64)))
    finally:
        done.set()
        watching.join()
    refused = codes.count(grpc.StatusCode.UNAVAILABLE)
    tell(peak_mib=max(peaks) // MIB, refused=refused, codes=Counter(code.name for code in codes))
    assert max(peaks) < 768 * MIB
    assert refused < 64
    until(lambda: records(server, "written") == 64, "all rows")
    assert gaps(postgres_uri) == 0


def test_slow_bodies_keep_no_room_that_others_want(
    start: Start, database: str, postgres_uri: str, scripted: ScriptedPredictor
) -> None:
    """Callers that announce much and send little are cut off as soon as somebody waits."""
    limits = {"MAX_BODY_BYTES": str(MIB), "MAX_IN_FLIGHT_BYTES": str(2 * MIB)}
    server = start(database, PREDICTOR=scripted.address, **limits)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {MIB}\r\n\r\n".encode()
    with ExitStack() as slow:
        callers = []
        for _ in range(4):
            caller = socket.create_connection(("127.0.0.1", server.http_port), 120)
            slow.enter_context(closing(caller))
            caller.sendall(head + b"x")
            callers.append(caller)
        assert server.post(PREDICT, bytes(MIB)).status == 200
        got = callers[0].recv(65536)
        assert got.startswith(b"HTTP/1.1 408 "), got
    assert server.post(PREDICT, SAMPLE).status == 200


class FewDescriptors(Transformer):
    """May open 160 files, and no more."""

    started_by = ("prlimit", "--nofile=160:160")


@pytest.fixture
def cramped(
    tmp_path: Path, predictor: object, transformer_uri: str, spool: Path
) -> Iterator[Transformer]:
    """A transformer with few descriptors and small segments."""
    settings = {"SPOOL_DIR": str(spool), "SPOOL_MAX_BYTES": str(2 * MIB)}
    address = predictor.address  # type: ignore[attr-defined]
    with FewDescriptors(tmp_path, transformer_uri, address, **settings) as running:
        yield running


def test_silent_connections_take_no_callers_place(cramped: Transformer, postgres: Postgres) -> None:
    """More than there are descriptors: callers are served and recorded."""
    with ExitStack() as silent:
        for _ in range(300):
            connection = socket.create_connection(("127.0.0.1", cramped.http_port), 120)
            silent.enter_context(closing(connection))
        pairs = [new_pair() for _ in range(70)]
        for pair in pairs:
            body = SAMPLE[:-1] + b', "more": "' + b"x" * 10_000 + b'"}'
            answered = cramped.post(PREDICT, body, x_shadow_pair_id=pair)
            assert answered.status in (200, 400), answered
    for pair in pairs:
        assert row(postgres.uri, pair)["status_code"] in (200, 400)
    assert records(cramped, "dropped") == 0


def test_soft_limit_of_descriptors_is_raised(transformer: Transformer) -> None:
    """The usual soft limit is 1,024; the server takes what it may."""
    soft, hard = resource.prlimit(transformer.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard or soft >= 65_536


def test_hostile_callers_fill_no_log(start: Start, database: str) -> None:
    """A thousand requests that are not HTTP: a few lines, the last of which says so."""
    server = start(database)
    began = time.monotonic()
    for _ in range(300):
        with closing(socket.create_connection(("127.0.0.1", server.http_port), 120)) as caller:
            caller.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
            caller.recv(1000)
    minutes = 1 + int((time.monotonic() - began) / 60)
    assert 10 <= server.log.count("Invalid HTTP request received.") <= 10 * minutes
    assert "more of these in 60 s are left out" in server.log
    assert server.post(PREDICT, SAMPLE).body == SAMPLE_ANSWER


def test_head_that_never_ends_is_refused(transformer: Transformer) -> None:
    """Headers have a limit; nothing of them is kept beyond it."""
    with closing(socket.create_connection(("127.0.0.1", transformer.http_port), 60)) as caller:
        caller.sendall(f"POST {PREDICT} HTTP/1.1\r\n".encode())
        got = b""
        try:
            for number in range(4096):
                caller.sendall(f"x-{number}: {'y' * 1000}\r\n".encode())
        except OSError:
            pass
        else:
            got = caller.recv(65536)
            assert b" 400 " in got
    assert transformer.post(PREDICT, SAMPLE).body == SAMPLE_ANSWER
    assert metric(transformer, "spool_bytes") >= 0
