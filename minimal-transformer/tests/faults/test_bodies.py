"""Bodies and headers of every kind: answered as without recording, stored as they came."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import psycopg
import pytest
from deployment import Start
from evidence import gaps, query, records, tell
from serving import (
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Predictor,
    Transformer,
    new_pair,
    row,
    rows,
)
from serving import stored as stored_body

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
