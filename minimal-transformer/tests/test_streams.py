"""Streams whose predictor or caller misbehaves: what reaches the caller, and what is recorded."""

from __future__ import annotations

import functools
import http.client
import itertools
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import httpx
import psutil
import pytest
from serving import (
    MODULE,
    TLS,
    WAIT_SECONDS,
    Transformer,
    environment,
    new_pair,
    request_row,
    row,
    stored,
    until,
)
from streaming import CLOSE, CUT, DONE, StreamingPredictor, as_event, event

URL = "/openai/v1/chat/completions"
Script = list[Any]


@pytest.fixture(scope="module")
def hasty(folder: Path, shared_uri: str, streaming: StreamingPredictor) -> Iterator[Transformer]:
    """A transformer that waits 3 s, for those tests alone that wait for it to give up."""
    arguments = ["--predictor_request_timeout_seconds", "3"]
    with Transformer(folder, shared_uri, streaming.address, *arguments) as running:
        yield running


class Caller:
    """A streamed call; `pieces` gives the bytes as they come."""

    def __init__(self, transformer: Transformer, name: str, path: str = URL) -> None:
        self.pair = new_pair()
        self.url = f"http://127.0.0.1:{transformer.http_port}{path}"
        self.name = name

    def all(self) -> bytes:
        """All that comes, also of a stream that is cut off."""
        with self.open() as pieces:
            return b"".join(_until_cut(pieces))

    def open(self) -> Any:
        return _Opened(self)


class _Opened:
    def __init__(self, caller: Caller) -> None:
        headers = {"x-shadow-pair-id": caller.pair}
        sent = {"do": caller.name, "values": [1]}
        self._stream = httpx.stream(
            "POST", caller.url, json=sent, headers=headers, timeout=WAIT_SECONDS, verify=TLS
        )

    def __enter__(self) -> Iterator[bytes]:
        self.response = self._stream.__enter__()
        return self.response.iter_raw()

    def __exit__(self, *exc: Any) -> None:
        self._stream.__exit__(*exc)


def _until_cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except httpx.RemoteProtocolError:
        yield b"<cut>"


def bytes_of(script: Script) -> bytes:
    return b"".join(step for step in script if isinstance(step, bytes))


def said(found: dict[str, Any]) -> str:
    """The first choice's text."""
    text: str = json.loads(found["response_data"])["choices"][0]["message"]["content"]
    return text


def idle(transformer: Transformer) -> None:
    """Nothing is in flight any more: a stop is at once, with every record written."""
    assert transformer.stop() == 0
    assert "Traceback" not in transformer.log
    assert "ASGI" not in transformer.log


WHOLE = [event("A"), event(" lamp", finish_reason="stop"), DONE]
MALFORMED: dict[str, Script] = {
    "byte by byte": [bytes([byte]) for byte in bytes_of(WHOLE)],
    "carriage returns": [bytes_of(WHOLE).replace(b"\n", b"\r\n")],
    "old carriage returns": [bytes_of(WHOLE).replace(b"\n", b"\r")],
    "comments": [b": hello\n\n", *WHOLE[:1], b":\n\n", *WHOLE[1:]],
    "other fields": [b"event: x\nid: 7\nretry: 5\n" + WHOLE[0], *WHOLE[1:]],
    "several at once": [bytes_of(WHOLE)],
    "two data lines": [WHOLE[0].replace(b', "object"', b',\ndata: "object"'), *WHOLE[1:]],
    "no space": [piece.replace(b"data: ", b"data:") for piece in WHOLE],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_every_way_to_write_events_is_read(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str, name: str
) -> None:
    """However they are cut and written; the caller gets the bytes that the predictor sent."""
    streaming.scripts[name] = MALFORMED[name]
    caller = Caller(passing, name)
    assert caller.all() == bytes_of(MALFORMED[name])
    found = row(shared_uri, caller.pair)
    assert said(found) == "A lamp"
    assert found["generation"] == {"stream_end": "done", "chunks": 2}
    assert (found["response_raw"], found["error"]) == (None, None)
    assert found["response_size"] == len(bytes_of(MALFORMED[name]))


UNREAD: dict[str, tuple[Script, str | None, str]] = {
    "not JSON": ([WHOLE[0], b"data: {oops\n\n", *WHOLE[1:]], "A lamp", "done"),
    "an unknown shape": ([*WHOLE[:2], b'data: {"x": 1}\n\n', DONE], "A lamp", "done"),
    "not UTF-8": ([WHOLE[0], b"data: \xff\n\n", *WHOLE[1:]], "A lamp", "done"),
    "a list": ([*WHOLE[:2], b"data: [1]\n\n", DONE], "A lamp", "done"),
    "a choice too far": ([*WHOLE[:2], event("x", 128), DONE], "A lamp", "done"),
    "no event at all": ([b"\x00\x01\xff" * 10], None, "no_done"),
    "no end": (WHOLE[:2], "A lamp", "no_done"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_cannot_be_read_is_recorded_as_bytes(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str, name: str
) -> None:
    """It goes on as it came, and costs the rest of the answer nothing."""
    script, text, end = UNREAD[name]
    streaming.scripts[name] = script
    before = metric(passing, "unread")
    caller = Caller(passing, name)
    assert caller.all() == bytes_of(script)
    found = row(shared_uri, caller.pair)
    assert found["generation"]["stream_end"] == end
    assert found["status_code"] == 200
    assert found["error"] is None
    unread = [step for step in script if isinstance(step, bytes) and step not in (*WHOLE, DONE)]
    assert metric(passing, "unread") == before + len(unread)
    assert bytes(found["response_raw"] or b"") == b"".join(unread)
    if text is None:
        assert found["response_data"] is None
    else:
        assert said(found) == text


def metric(transformer: Transformer, outcome: str) -> float:
    text = transformer.get("/metrics").body.decode()
    found = re.search(rf'prediction_db_stream_events_total{{outcome="{outcome}"}} (\S+)', text)
    assert found is not None, text
    return float(found[1])


@pytest.mark.parametrize("cut", [CUT, CLOSE], ids=["reset", "closed"])
def test_a_stream_that_is_cut_off_has_no_end(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str, cut: object
) -> None:
    """The caller gets what came and no clean end; the row says what was missing."""
    sent = threading.Event()
    streaming.scripts["cut"] = [event("A"), event(" la"), sent.wait, cut]
    caller = Caller(passing, "cut")
    got = b""
    with caller.open() as pieces:
        for piece in _until_cut(pieces):
            got += piece
            if got == event("A") + event(" la"):
                sent.set()
    assert got == event("A") + event(" la") + b"<cut>"
    found = row(shared_uri, caller.pair)
    assert found["status_code"] == 200
    assert found["error"] == "the predictor's answer was cut off after 2 chunks"
    assert found["generation"] == {"stream_end": "cut", "chunks": 2}
    assert said(found) == "A la"
    assert "ASGI" not in passing.log


def test_a_silent_predictor_is_given_up(
    hasty: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """The timeout is how long nothing may come, not how long a stream may take."""
    over = threading.Event()
    streaming.scripts["silent"] = [event("A"), lambda: over.wait(120)]
    caller = Caller(hasty, "silent")
    assert caller.all() == event("A") + b"<cut>"
    over.set()
    found = row(shared_uri, caller.pair)
    assert found["error"] == "the predictor sent nothing for 3 s after 1 chunks"
    assert found["generation"]["stream_end"] == "cut"


def test_a_stream_may_take_longer_than_the_timeout(
    hasty: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Four seconds under a timeout of three: each silence is far shorter."""
    pause = functools.partial(time.sleep, 0.4)
    steps = [step for number in range(10) for step in (event(str(number)), pause)]
    streaming.scripts["healthy"] = [*steps, DONE]
    caller = Caller(hasty, "healthy")
    assert caller.all() == bytes_of([*steps, DONE])
    found = row(shared_uri, caller.pair)
    assert (said(found), found["error"]) == ("0123456789", None)


def test_a_stream_has_an_idle_timeout_of_its_own(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """A first token may take as long as any call; what has begun may not be silent for so long."""
    over = threading.Event()
    streaming.scripts["thinks"] = [
        *(lambda: time.sleep(4), event("A"), event(" la"), event("mp")),
        lambda: over.wait(120),
    ]
    with Transformer(
        tmp_path, shared_uri, streaming.address, STREAM_IDLE_TIMEOUT_SECONDS="3"
    ) as transformer:
        caller = Caller(transformer, "thinks")
        assert caller.all() == event("A") + event(" la") + event("mp") + b"<cut>"
        over.set()
        found = row(shared_uri, caller.pair)
        assert found["error"] == "the predictor sent nothing for 3 s after 3 chunks"
        assert found["generation"] == {"stream_end": "cut", "chunks": 3}
        assert transformer.post(URL, b"{}").status == 200  # the hop's next call has its own time
        idle(transformer)


def test_a_slow_reader_gets_everything(
    hasty: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """It takes longer than the timeout, in small pieces, and is waited for: it does read."""
    script = [event("y" * 1000) for _ in range(2000)]
    streaming.scripts["slowly"] = [*script, DONE]
    pair, body = new_pair(), b'{"do": "slowly"}'
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        caller.connect(("127.0.0.1", hasty.http_port))
        caller.sendall(
            f"POST {URL} HTTP/1.1\r\nhost: x\r\nx-shadow-pair-id: {pair}\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = http.client.HTTPResponse(caller)
        answer.begin()
        got = bytearray()
        for pause in itertools.chain([0.25] * 24, itertools.repeat(0)):
            if not (piece := answer.read(32 * 1024)):
                break
            got += piece
            time.sleep(pause)
    assert got == bytes_of([*script, DONE])
    found = row(shared_uri, pair)
    assert found["generation"] == {"stream_end": "done", "chunks": 2000}
    assert found["duration_ms"] > 3000  # longer than the timeout, or nothing was shown


def test_an_event_goes_on_while_the_next_one_is_awaited(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """No clock: the predictor waits until the caller has the one before."""
    seen = [threading.Event() for _ in range(5)]
    steps = [step for number, one in enumerate(seen) for step in (event(str(number)), one.wait)]
    streaming.scripts["one by one"] = [*steps, DONE]
    caller = Caller(passing, "one by one")
    with caller.open() as pieces:
        for number, one in enumerate(seen):
            assert next(pieces) == event(str(number))
            one.set()
        assert b"".join(pieces) == DONE
    found = row(shared_uri, caller.pair)
    assert said(found) == "01234"
    assert 0 < found["ttft_ms"] < found["duration_ms"]


def test_an_engine_stops_when_its_caller_leaves(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """The predictor's connection is closed at once; the row has what came until then."""
    streaming.gone.clear()
    streaming.scripts["endless"] = (event("x") for _ in iter(int, 1))
    caller = Caller(passing, "endless")
    with caller.open() as pieces:
        assert next(pieces).startswith(event("x"))
    assert streaming.gone.wait(WAIT_SECONDS)
    found = row(shared_uri, caller.pair)
    assert found["generation"]["stream_end"] == "left"
    assert re.fullmatch(r"the caller left after \d+ chunks", found["error"])
    assert set(said(found)) == {"x"}


def test_a_caller_may_leave_with_the_last_event(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """OpenAI's client does not wait for the connection's end: it had everything."""
    over = threading.Event()
    streaming.scripts["leaves early"] = [*WHOLE, lambda: over.wait(120)]
    caller = Caller(passing, "leaves early")
    got = b""
    with caller.open() as pieces:
        while not got.endswith(DONE):
            got += next(pieces)
    found = row(shared_uri, caller.pair)
    over.set()
    assert (found["generation"]["stream_end"], found["error"]) == ("done", None)


def test_an_engines_error_in_the_stream_is_the_rows(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """vLLM answers 200 and sends its error as an event."""
    error = as_event({"error": {"message": "out of memory", "code": 500}})
    streaming.scripts["error"] = [event("A"), error, DONE]
    caller = Caller(passing, "error")
    assert caller.all() == bytes_of([event("A"), error, DONE])
    found = row(shared_uri, caller.pair)
    assert (found["status_code"], found["error"]) == (200, "out of memory")
    assert found["generation"]["stream_end"] == "done"


def test_first_output_is_what_the_first_token_is_measured_by(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Engines that send a role at once would look instant; a call of a tool counts."""
    role = as_event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    streaming.scripts["role alone"] = [role, event(None, finish_reason="stop"), DONE]
    caller = Caller(passing, "role alone")
    caller.all()
    found = row(shared_uri, caller.pair)
    assert (found["ttft_ms"], found["generation"]["chunks"]) == (None, 0)


def test_ten_thousand_chunks(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """All reach the caller in their order, and the text is theirs."""
    script = [event(f"{number} ") for number in range(10_000)]
    streaming.scripts["long"] = [*script, DONE]
    caller = Caller(passing, "long")
    assert caller.all() == bytes_of([*script, DONE])
    found = row(shared_uri, caller.pair)
    assert said(found) == "".join(f"{number} " for number in range(10_000))
    assert found["generation"]["chunks"] == 10_000


def test_chunks_of_a_megabyte(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """They pass whole; what is recorded of them is cut at the cap, with the true size."""
    script = [event("x" * 2**20) for _ in range(4)]
    streaming.scripts["large"] = [event("A"), *script, DONE]
    caller = Caller(passing, "large")
    assert caller.all() == bytes_of([event("A"), *script, DONE])
    found = row(shared_uri, caller.pair)
    assert found["response_truncated"] is True
    assert found["response_size"] == len(bytes_of([event("A"), *script, DONE]))
    assert said(found) == "A"
    kept = len(found["response_data"]) + len(found["response_raw"])
    assert 2**19 < kept <= 2**20


def test_a_long_answer_is_recorded_cut_and_is_json(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Its beginning, assembled, with the true size."""
    script = [event("word " * 2000) for _ in range(300)]
    streaming.scripts["too long"] = [*script, event(None, finish_reason="stop"), DONE]
    caller = Caller(passing, "too long")
    size = len(caller.all())
    found = row(shared_uri, caller.pair)
    assert (found["response_truncated"], found["response_size"]) == (True, size)
    assert 2**19 < len(said(found)) <= 2**20
    assert ("word " * 600_000).startswith(said(found))
    assert json.loads(found["response_data"])["choices"][0]["finish_reason"] == "stop"
    assert found["generation"] == {"stream_end": "done", "chunks": 300}


def test_a_reader_that_does_not_read_holds_the_predictor_back(
    hasty: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """What it does not take waits at the predictor, and it is given up in the end."""
    streaming.gone.clear()
    streaming.scripts["held"] = (event("y" * 1000) for _ in range(100_000))
    before = streaming.sent_bytes
    pair = new_pair()
    body = b'{"do": "held"}'
    with socket.create_connection(("127.0.0.1", hasty.http_port)) as caller:
        caller.sendall(
            f"POST {URL} HTTP/1.1\r\nhost: x\r\nx-shadow-pair-id: {pair}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert streaming.gone.wait(WAIT_SECONDS)
        # Of a hundred megabytes, what the predictor's and the caller's own kernels hold.
        assert streaming.sent_bytes - before < 12 * 2**20
        found = row(shared_uri, pair)
    assert found["generation"]["stream_end"] == "left"
    assert found["error"].startswith("the caller left after")


def test_too_many_calls_at_once_are_refused(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """With a status and the setting's name; the calls before them go on."""
    over = threading.Event()
    streaming.scripts["waits"] = [event("A"), over.wait, DONE]
    with Transformer(tmp_path, shared_uri, streaming.address, MAX_STREAMS="2") as transformer:
        callers = [Caller(transformer, "waits").open() for _ in range(2)]
        pieces = [caller.__enter__() for caller in callers]
        assert [next(piece) for piece in pieces] == [event("A")] * 2
        pair = new_pair()
        refused = transformer.post(URL, b'{"do": "waits"}', x_shadow_pair_id=pair)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert b"MAX_STREAMS" in refused.body
        assert row(shared_uri, pair)["status_code"] == 503
        over.set()
        assert [b"".join(piece) for piece in pieces] == [DONE] * 2
        for caller in callers:
            caller.__exit__(None, None, None)
        # A caller may have its end before the place is free.
        until(lambda: transformer.post(URL, b"{}").status == 200, "a place")
        idle(transformer)


def test_a_stop_cuts_what_outlives_its_grace(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """SIGTERM: the stream has its grace; then it is cut, and its row says so."""
    over = threading.Event()
    streaming.scripts["outlives"] = [event("A"), lambda: over.wait(120)]
    with Transformer(
        tmp_path, shared_uri, streaming.address, SHUTDOWN_GRACE_SECONDS="1"
    ) as transformer:
        caller = Caller(transformer, "outlives")
        with caller.open() as pieces:
            assert next(pieces) == event("A")
            transformer.process.send_signal(signal.SIGTERM)
            assert b"".join(_until_cut(pieces)) == b"<cut>"
        assert transformer.process.wait(WAIT_SECONDS) == 0
        assert "Traceback" not in transformer.log
    over.set()
    found = row(shared_uri, caller.pair)
    assert found["generation"]["stream_end"] == "stopped"
    assert found["error"] == "the server stopped after 1 chunks"


def test_a_stop_waits_for_streams_that_end(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Within the grace they are whole."""
    over = threading.Event()
    streaming.scripts["ends"] = [event("A"), over.wait, DONE]
    with Transformer(tmp_path, shared_uri, streaming.address) as transformer:
        caller = Caller(transformer, "ends")
        with caller.open() as pieces:
            assert next(pieces) == event("A")
            transformer.process.send_signal(signal.SIGTERM)
            over.set()
            assert b"".join(_until_cut(pieces)) == DONE
        assert transformer.process.wait(WAIT_SECONDS) == 0
    assert row(shared_uri, caller.pair)["generation"]["stream_end"] == "done"


def test_a_killed_transformer_leaves_the_request(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """kill -9 in the middle: the call is known, and that it has no answer; no number is missing."""
    over = threading.Event()
    streaming.scripts["killed"] = [event("A"), lambda: over.wait(120)]
    spool = tmp_path / "spool"
    with Transformer(tmp_path, shared_uri, streaming.address, SPOOL_DIR=str(spool)) as transformer:
        caller = Caller(transformer, "killed")
        with caller.open() as pieces:
            assert next(pieces) == event("A")
            for process in [transformer.process.pid, *_children(transformer)]:
                psutil.Process(process).kill()
            assert b"".join(_until_broken(pieces)) == b"<cut>"
    over.set()
    with Transformer(tmp_path, shared_uri, streaming.address, SPOOL_DIR=str(spool)):
        found = until(lambda: request_row(shared_uri, caller.pair), "the request's row")
    assert found["status_code"] is None


def _until_broken(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except httpx.HTTPError:
        yield b"<cut>"


def _children(transformer: Transformer) -> list[int]:
    children = psutil.Process(transformer.process.pid).children(recursive=True)
    return [child.pid for child in children]


SECRET = "4711-0815"


def test_nothing_that_is_redacted_is_stored_of_a_stream(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Contents, arguments, cut streams, events that are not read: not in a column, file or log."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}
    pieces = [f'{{"pin": "{SECRET[:4]}', f'{SECRET[4:]}"}}']
    arguments = [
        as_event({"choices": [{"index": 0, "delta": {"tool_calls": [part]}}]})
        for part in (
            call,
            *({"index": 0, "function": {"arguments": piece}} for piece in pieces),
        )
    ]
    texts = [event(SECRET[:4]), event(SECRET[4:])]
    streaming.scripts["secret"] = [*texts, *arguments, f"data: {SECRET}\n\n".encode(), DONE]
    streaming.scripts["cut secret"] = [*texts, CLOSE]
    spool = tmp_path / "spool"
    with Transformer(
        tmp_path,
        shared_uri,
        streaming.address,
        SPOOL_DIR=str(spool),
        RECORD_REDACT="$..content,$..arguments",
    ) as transformer:
        callers = [Caller(transformer, name) for name in ("secret", "cut secret")]
        assert SECRET[:4].encode() in callers[0].all()
        callers[1].all()
        found = [row(shared_uri, caller.pair) for caller in callers]
        assert SECRET not in transformer.log
    message = json.loads(found[0]["response_data"])["choices"][0]["message"]
    assert message["content"] == "[redacted]"
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": "[redacted]"}
    assert said(found[1]) == "[redacted]"
    assert [one["response_raw"] for one in found] == [None, None]
    assert [one["response_truncated"] for one in found] == [True, False]
    assert SECRET[4:] not in repr(found)
    assert not any(SECRET[4:].encode() in path.read_bytes() for path in spool.glob("*.*"))


def test_a_streams_bytes_are_kept_when_asked(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """RECORD_STREAM_RAW: byte for byte, next to what was assembled."""
    streaming.scripts["raw"] = [b": hello\n\n", *WHOLE]
    with Transformer(tmp_path, shared_uri, streaming.address, RECORD_STREAM_RAW="1") as transformer:
        caller = Caller(transformer, "raw")
        got = caller.all()
        found = row(shared_uri, caller.pair)
    assert bytes(found["response_raw"]) == got
    assert said(found) == "A lamp"


def test_a_stream_of_another_kind_is_recorded_as_bytes(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Nobody knows what its events mean."""
    streaming.scripts["other"] = WHOLE
    caller = Caller(passing, "other", "/any/stream")
    assert caller.all() == bytes_of(WHOLE)
    found = row(shared_uri, caller.pair)
    assert (found["protocol"], found["response_data"]) == ("other", None)
    assert bytes(found["response_raw"]) == bytes_of(WHOLE)
    assert found["generation"] == {"stream_end": "no_done"}


def test_a_stream_passes_the_hooks_before_the_call_alone(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """preprocess has the call; postprocess would have to wait for the answer's end."""
    streaming.scripts["whole"] = WHOLE
    with Transformer(tmp_path, shared_uri, streaming.address, MODULE="hooked") as transformer:
        caller = Caller(transformer, "whole")
        assert caller.all() == bytes_of(WHOLE)
        assert said(row(shared_uri, caller.pair)) == "A lamp"
        pair = new_pair()
        unary = transformer.post(URL, b'{"values": [1]}', x_shadow_pair_id=pair)
        assert json.loads(unary.body) == {"echo": '{"values":[2]}', "note": "hooked"}
        assert stored(row(shared_uri, pair), "response") == unary.body
        idle(transformer)


def test_the_end_of_a_stream_waits_for_the_disk(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """SPOOL_FSYNC: a caller that has the end has a record that survives a power cut."""
    streaming.scripts["whole"] = WHOLE
    with Transformer(tmp_path, shared_uri, streaming.address, SPOOL_FSYNC="1") as transformer:
        caller = Caller(transformer, "whole")
        assert caller.all() == bytes_of(WHOLE)
        assert said(row(shared_uri, caller.pair)) == "A lamp"
        idle(transformer)


def test_several_workers_stream(
    tmp_path: Path, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Each with its own connections; the hop for streams is made anew in every process."""
    streaming.scripts["whole"] = WHOLE
    arguments = ("--workers", "2")
    with Transformer(tmp_path, shared_uri, streaming.address, *arguments) as transformer:
        callers = [Caller(transformer, "whole") for _ in range(8)]
        assert {caller.all() for caller in callers} == {bytes_of(WHOLE)}
        assert {said(row(shared_uri, caller.pair)) for caller in callers} == {"A lamp"}
        idle(transformer)


def test_a_predictor_that_speaks_grpc_has_no_such_calls(
    grpc_transformer: Transformer, shared_uri: str
) -> None:
    """501, recorded, with the reason."""
    pair = new_pair()
    assert grpc_transformer.post(URL, b"{}", x_shadow_pair_id=pair).status == 501
    found = row(shared_uri, pair)
    assert found["error"] == "only predictors that speak REST get such calls"


def test_a_wrong_setting_ends_the_start(tmp_path: Path) -> None:
    """One line with the variable, the value and the remedy."""
    for variables, line in [
        (
            {"STREAM_IDLE_TIMEOUT_SECONDS": "0"},
            "STREAM_IDLE_TIMEOUT_SECONDS is '0'; set it to a number of seconds over 0",
        ),
        ({"MAX_STREAMS": "0"}, "MAX_STREAMS is '0'; set it to a number of calls in flight from 1"),
        ({"PASS_PATHS": "any"}, "PASS_PATHS is 'any'; have each path begin with /."),
        ({"OPENAI_PREDICTOR_PREFIX": "x"}, "OPENAI_PREDICTOR_PREFIX is 'x'; have each path begin"),
        (
            {"RECORD_STREAM_RAW": "1", "RECORD_REDACT": "$.a"},
            "RECORD_STREAM_RAW is 1, and nothing can be redacted in a stream's bytes; set it to 0",
        ),
    ]:
        settings = {"POSTGRES_URI": "postgresql://x@y/z", "SHADOW_ROLE": "primary"}
        done = forked.run([MODULE], env=environment(**settings, **variables), cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(line)
