"""Callers that are slow, gone or no HTTP callers at all."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import hypothesis
import pytest
from evidence import records, stored
from hypothesis import given
from hypothesis import strategies as st
from serving import (
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Answered,
    Transformer,
    new_pair,
    row,
    until,
)
from serving import stored as stored_body


@pytest.fixture
def plain(transformer: Transformer) -> Iterator[socket.socket]:
    """A connection to the transformer, without an HTTP library."""
    with closing(socket.create_connection(("127.0.0.1", transformer.http_port), 120)) as connection:
        yield connection


def head(pair: str, *lines: str) -> bytes:
    """The beginning of a call."""
    first = [f"POST {PREDICT} HTTP/1.1", "host: x", f"x-shadow-pair-id: {pair}"]
    return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")


def received(plain: socket.socket, answers: int) -> bytes:
    """What comes, until there are so many answers in it."""
    got = b""
    while got.count(SAMPLE_ANSWER) < answers:
        piece = plain.recv(65536)
        assert piece, got
        got += piece
    return got


LENGTH = f"content-length: {len(SAMPLE)}"


def test_chunks_pipelines_and_slow_callers_are_answered_and_recorded(
    transformer: Transformer, plain: socket.socket, shared_uri: str
) -> None:
    """A chunked body, three calls in one piece, a body that comes byte by byte."""
    pairs = [new_pair() for _ in range(5)]
    chunks = b"".join(b"1\r\n" + SAMPLE[n : n + 1] + b"\r\n" for n in range(len(SAMPLE)))
    plain.sendall(head(pairs[0], "transfer-encoding: chunked") + chunks + b"0\r\n\r\n")
    assert received(plain, 1).count(b"HTTP/1.1 200 OK") == 1
    plain.sendall(b"".join(head(pair, LENGTH) + SAMPLE for pair in pairs[1:4]))
    assert received(plain, 3).count(b"HTTP/1.1 200 OK") == 3
    for byte in head(pairs[4], LENGTH) + SAMPLE:
        plain.sendall(bytes([byte]))
    assert received(plain, 1).count(b"HTTP/1.1 200 OK") == 1
    for pair in pairs:
        found = row(shared_uri, pair)
        assert found["status_code"] == 200
        assert stored_body(found, "request") == SAMPLE


def test_caller_that_leaves_in_the_middle_of_its_body_is_no_call(
    transformer: Transformer, plain: socket.socket, shared_uri: str
) -> None:
    """Nothing is recorded of half a call, and the next one is served and recorded."""
    left = new_pair()
    plain.sendall(head(left, "content-length: 1000") + SAMPLE)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()
    pair = new_pair()
    assert transformer.post(PREDICT, SAMPLE, x_shadow_pair_id=pair).status == 200
    assert row(shared_uri, pair)["status_code"] == 200
    assert left not in stored(shared_uri).statuses


def test_caller_that_leaves_before_the_answer_is_recorded(
    transformer: Transformer, plain: socket.socket, shared_uri: str
) -> None:
    """The call was made and answered, so it has both rows, whichever comes first here."""
    pair = new_pair()
    plain.sendall(head(pair, LENGTH) + SAMPLE)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()
    assert row(shared_uri, pair)["status_code"] in (200, 499)


def test_what_is_no_http_is_refused_and_harms_nobody(
    transformer: Transformer, plain: socket.socket, shared_uri: str
) -> None:
    """Noise, contradicting lengths, a bad chunk: no answer, no row, and the server serves on."""
    bad = [
        b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n",
        head("noise-a", LENGTH, "content-length: 3") + SAMPLE,
        head("noise-b", LENGTH, "transfer-encoding: chunked") + SAMPLE,
        head("noise-c", "transfer-encoding: chunked") + b"zz\r\n" + SAMPLE,
        head("noise-d", "content-length: -5") + SAMPLE,
    ]
    for noise in bad:
        with closing(socket.create_connection(plain.getpeername(), 120)) as another:
            another.sendall(noise)
            assert b"200 OK" not in another.recv(65536), noise
    pair = new_pair()
    answer: Answered = transformer.post(PREDICT, SAMPLE, x_shadow_pair_id=pair)
    assert answer.status == 200
    assert row(shared_uri, pair)["status_code"] == 200
    assert not stored(shared_uri).statuses.keys() & {"noise-a", "noise-b", "noise-c", "noise-d"}


UPGRADE = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA"
LINES = st.sampled_from(
    ["", "x-a: b", "expect: 100-continue", "x-shadow: true", UPGRADE, "x-b: \xe9", "te: trailers"]
)


def framed(body: bytes, framing: str) -> tuple[str, bytes]:
    """The header that says how long the body is, and the body as it is sent."""
    if framing == "length":
        return f"content-length: {len(body)}", body
    chunks = b"".join(b"1\r\n" + body[n : n + 1] + b"\r\n" for n in range(len(body)))
    trailer = b"x-shadow-pair-id: forged\r\n" if framing == "trailer" else b""
    return "transfer-encoding: chunked", chunks + b"0\r\n" + trailer + b"\r\n"


@hypothesis.settings(max_examples=40)
@given(
    calls=st.lists(
        st.tuples(LINES, st.sampled_from(["length", "chunked", "trailer"])), min_size=1, max_size=4
    ),
    damage=st.none() | st.tuples(st.integers(0, 2000), st.binary(max_size=20), st.integers(0, 20)),
    pieces=st.lists(st.integers(1, 400), max_size=6),
)
def test_whatever_a_connection_carries_answers_and_rows_agree(
    transformer: Transformer,
    shared_uri: str,
    calls: list[tuple[str, str]],
    damage: tuple[int, bytes, int] | None,
    pieces: list[int],
) -> None:
    """Calls in one stream, cut anywhere, damaged anywhere: each 200 has its row."""
    before = records(transformer, "spooled")
    pairs, stream = [], b""
    for line, framing in calls:
        pairs.append(new_pair())
        length, body = framed(SAMPLE, framing)
        lines = [length, *([line] if line else [])]
        stream += head(pairs[-1], *lines) + body
    if damage is not None:
        at, noise, gone = damage
        stream = stream[:at] + noise + stream[at + gone :]
    got = b""
    with closing(socket.create_connection(("127.0.0.1", transformer.http_port), 120)) as caller:
        # What is damaged may be answered, and the connection closed, before all of it is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for size in pieces:
                caller.sendall(stream[:size])
                stream = stream[size:]
            caller.sendall(stream)
        caller.settimeout(0.5 if damage else 120)
        with contextlib.suppress(OSError):
            while got.count(b"HTTP/1.1 200 OK") < len(calls) and (piece := caller.recv(65536)):
                got += piece
    answered = got.count(b"HTTP/1.1 200 OK")
    assert records(transformer, "spooled") - before >= answered  # damage may hit a pair id
    assert records(transformer, "dropped") == 0
    if damage is None:
        assert answered == len(calls), got
        until(
            lambda: [stored(shared_uri).statuses.get(pair) for pair in pairs] == [200] * answered,
            "a row for each",
        )
    assert "forged" not in stored(shared_uri).statuses
    assert transformer.post(PREDICT, SAMPLE).body == SAMPLE_ANSWER
