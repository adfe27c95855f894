"""Bodies, headers and callers of every kind: answered as without recording, stored as they came."""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from conftest import Start
from evidence import gaps, query, records, stored, tell
from serving import (
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Answered,
    Predictor,
    Transformer,
    new_pair,
    row,
    rows,
    until,
)
from serving import stored as stored_body

from embedded_postgres import as_role

BODIES = {
    "nan": b'{"values": [NaN]}',
    "infinity": b'{"values": [Infinity, -Infinity]}',
    "overflow": b'{"values": [1e999]}',
    "nul": b'{"values": ["\\u0000"]}',
    "raw nul": b'{"values": ["\x00"]}',
    "surrogate": b'{"values": ["\\ud800"]}',
    "surrogate pair": b'{"values": ["\\ud83d\\ude00"]}',
    "latin-1": b'{"values": ["\xe9"]}',
    "utf-16": '{"values": [1]}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"values": [1]}',
    "deep": b'{"values": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "unclosed": b'{"values": ' + b"[" * 10_000,
    "long integer": b'{"values": [18446744073709551617, -18446744073709551617]}',
    "10,000 digits": b'{"values": [' + b"9" * 10_000 + b"]}",
    "200,000 digits": b'{"values": [' + b"9" * 200_000 + b"]}",
    "exponent": b'{"values": [1e-400, 1E+308]}',
    "duplicates": b'{"values": [1], "values": [2]}',
    "empty": b"",
    "spaces": b"  \r\n ",
    "no json": b"hello",
    "binary": bytes(range(256)),
    "null": b"null",
    "number": b"1",
    "emoji": '{"values": ["1"], "\U0001f600": "é"}'.encode(),
    "spaced": b' { "values" : [ 1.50 , 2E2 ] } ',
}


@pytest.fixture
def _long_integers() -> Iterator[None]:
    """Python reads integers of any length; psycopg reads the json columns with it."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


@pytest.fixture
def database(postgres_uri: str) -> str:
    """This test's database for the role that may only INSERT."""
    return as_role(postgres_uri, "transformer")


@pytest.mark.usefixtures("_long_integers")
def test_bodies_of_every_kind(
    transformer: Transformer, shared_uri: str, predictor: Predictor
) -> None:
    """Each is answered as the predictor answers it, and stored byte for byte where it belongs."""
    pairs = {name: new_pair() for name in BODIES}
    direct = {name: predictor.post(PREDICT, body) for name, body in BODIES.items()}
    for name, body in BODIES.items():
        answer = transformer.post(PREDICT, body, x_shadow_pair_id=pairs[name])
        assert (answer.status, answer.body) == (direct[name].status, direct[name].body), name
    for name, body in BODIES.items():
        found = row(shared_uri, pairs[name])
        assert stored_body(found, "request") == body, name
        assert stored_body(found, "response") == direct[name].body, name
        # How deep a server casts depends on its stack; what is too deep for any is raw for all.
        assert (found["request_text"] is not None) == (name != "deep" and casts(shared_uri, body))
        assert (found["response_data"] is not None) == casts(shared_uri, direct[name].body), name
        assert found["request_size"] == len(body)
        assert bytes(found["request_sha256"]) == sha256(body).digest()
        assert found["status_code"] == direct[name].status
    # One row that does not cast would fail every report that casts.
    query(shared_uri, "SELECT request_data::jsonb FROM inference_requests")
    query(shared_uri, "SELECT response_data::jsonb FROM inference_responses")
    assert records(transformer, "dead_letter") == 0


def casts(uri: str, body: bytes) -> bool:
    """Whether Postgres casts the body to jsonb."""
    with psycopg.connect(uri) as connection:
        try:
            connection.execute("SELECT convert_from(%s, 'UTF8')::jsonb", [body])
        except psycopg.Error:
            return False
    return True


POISONS = {
    "check": "ALTER TABLE inference_requests ADD CONSTRAINT no_poison"
    " CHECK (pair_id NOT LIKE 'poison%')",
    "trigger": """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.pair_id LIKE 'poison%' THEN RAISE EXCEPTION 'no_poison'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON inference_requests
            FOR EACH ROW EXECUTE FUNCTION refuse()
    """,
}


@pytest.mark.parametrize("poison", POISONS)
def test_five_of_a_thousand_are_unstorable(
    poison: str, postgres_uri: str, database: str, start: Start, spool: Path
) -> None:
    """995 are stored; five are set aside with the reason, counted and shown as gaps."""
    query(postgres_uri, POISONS[poison])
    server = start(database)
    pairs = [f"poison-{n}" if n % 200 == 100 else f"good-{n}" for n in range(1000)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda pair: server.post(PREDICT, SAMPLE, x_shadow_pair_id=pair), pairs)
        )
    assert {(a.status, a.body) for a in answers} == {(200, SAMPLE_ANSWER)}
    until(lambda: records(server, "written") == 995, "995 rows")
    until(lambda: records(server, "dead_letter") == 5, "five dead letters")
    until(lambda: stored(postgres_uri).responses == 1000, "all responses")
    found = stored(postgres_uri)
    assert found.statuses == {pair: 200 for pair in pairs if pair.startswith("good")}
    letters = [
        json.loads(line)
        for file in (spool / "dead-letter").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert {letter["row"]["pair_id"] for letter in letters} == {
        pair for pair in pairs if pair.startswith("poison")
    }
    assert len(letters) == 5
    assert all("no_poison" in letter["reason"] for letter in letters)
    assert gaps(postgres_uri) == 5
    tell(answered=1000, requests=found.requests, dead_letters=len(letters))


def test_body_of_50_mb_is_stored_cut(
    transformer: Transformer, shared_uri: str, predictor: Predictor
) -> None:
    """The caller gets what the predictor says; the row has 1 MiB, the true size and hash."""
    body = b'{"values": ["1"], "more": "' + b"x" * 50 * 1024 * 1024 + b'"}'
    pair = new_pair()
    answer = transformer.post(PREDICT, body, x_shadow_pair_id=pair)
    direct = predictor.post(PREDICT, body)
    assert (answer.status, answer.body) == (direct.status, direct.body)
    found = row(shared_uri, pair)
    assert found["request_truncated"]
    assert found["request_size"] == len(body)
    assert bytes(found["request_sha256"]) == sha256(body).digest()
    assert bytes(found["request_raw"]) == body[: 1024 * 1024]
    assert found["status_code"] == answer.status
    assert stored_body(found, "response") == answer.body
    tell(sent=len(body), status=answer.status, stored=len(found["request_raw"]))


def test_same_request_id_a_thousand_times(transformer: Transformer, shared_uri: str) -> None:
    """Retries with one x-request-id are a thousand calls: each has its rows."""
    same = new_pair()
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: transformer.post(PREDICT, SAMPLE, x_request_id=same), range(1000))
        )
    assert {(a.status, a.body) for a in answers} == {(200, SAMPLE_ANSWER)}
    found = rows(shared_uri, same, 1000)
    assert len({row["record_id"] for row in found}) == 1000
    assert {(row["pair_source"], row["status_code"]) for row in found} == {("x-request-id", 200)}


def test_ten_thousand_headers_and_one_of_a_mebibyte(
    postgres_uri: str, database: str, predictor: Predictor, start: Start
) -> None:
    """Answered; only the listed ones are stored; a huge pair id still pairs, by its hash."""
    server = start(database, RECORD_HEADERS="x-n-5,x-huge,content-type")
    pair = new_pair()
    many = {f"x-n-{n}": "v" for n in range(10_000)}
    headers = {"content-type": "application/json", "x-shadow-pair-id": pair}
    answer = server.call("POST", PREDICT, SAMPLE, headers | many)
    assert (answer.status, answer.body) == (200, SAMPLE_ANSWER)
    found = row(postgres_uri, pair)
    assert found["request_headers"] == {"content-type": "application/json", "x-n-5": "v"}
    huge = "h" * 1024 * 1024
    answer = server.call("POST", PREDICT, SAMPLE, {"x-shadow-pair-id": huge, "x-huge": huge})
    assert (answer.status, answer.body) == (200, SAMPLE_ANSWER)
    found = row(postgres_uri, f"sha256:{sha256(huge.encode()).hexdigest()}")
    assert len(found["request_headers"]["x-huge"]) <= len(huge)
    tell(stored_of_a_mebibyte=len(found["request_headers"]["x-huge"]))
    assert gaps(postgres_uri) == 0


@pytest.fixture
def plain(transformer: Transformer) -> Iterator[socket.socket]:
    """A connection to the transformer, without an HTTP library."""
    with closing(socket.create_connection(("127.0.0.1", transformer.http_port), 30)) as connection:
        yield connection


def head(pair: str, *lines: str) -> bytes:
    """The beginning of a call."""
    first = [f"POST {PREDICT} HTTP/1.1", "host: x", f"x-shadow-pair-id: {pair}"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


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
    """The call was made and answered, so it has both rows."""
    pair = new_pair()
    plain.sendall(head(pair, LENGTH) + SAMPLE)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.close()
    assert row(shared_uri, pair)["status_code"] == 200


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
        with closing(socket.create_connection(plain.getpeername(), 30)) as another:
            another.sendall(noise)
            assert b"200 OK" not in another.recv(65536), noise
    pair = new_pair()
    answer: Answered = transformer.post(PREDICT, SAMPLE, x_shadow_pair_id=pair)
    assert answer.status == 200
    assert row(shared_uri, pair)["status_code"] == 200
    assert not stored(shared_uri).statuses.keys() & {"noise-a", "noise-b", "noise-c", "noise-d"}
