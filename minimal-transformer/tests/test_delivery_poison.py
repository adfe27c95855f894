"""One bad row is set aside with its reason; every body ends up in its table, whatever is in it."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from delivering import (
    Delivery,
    deliver_from,
    figures,
    record,
    request,
    respond,
    rows,
    settings,
    stored,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from serving import until

from embedded_postgres import as_role
from minimal_transformer import logs
from minimal_transformer.delivery.database import MAX_DEPTH, Database, casting
from minimal_transformer.delivery.dead_letters import COMMAND
from minimal_transformer.delivery.writer import Writer
from minimal_transformer.metrics import Counters
from minimal_transformer.recording.handler import PredictionDBHandler
from minimal_transformer.settings import RecordSettings

DEEP = 10_000 * b"[" + 10_000 * b"]"

# Body, and whether Postgres casts it to jsonb.
BODIES: dict[str, tuple[bytes, bool]] = {
    "sample": (b'{"values": ["3.3", "62.3", "324"]}', True),
    "NaN": (b'{"predictions": [NaN]}', False),
    "Infinity": (b'{"predictions": [-Infinity, Infinity]}', False),
    "escaped NUL": (b'{"a": "\\u0000"}', False),
    "NUL byte": (b'{"a": "\0"}', False),
    "lone surrogate": (b'{"a": "\\ud800"}', False),
    "surrogate pair": (b'{"a": "\\ud83d\\ude00"}', True),
    "swapped surrogates": (b'{"a": "\\ude00\\ud83d"}', False),
    "not UTF-8": (b'{"a": "\xff\xfe"}', False),
    "UTF-8": ('{"a": "grüße \U0001f600"}'.encode(), True),
    "encoded surrogate": (b'"\xed\xa0\x80"', False),
    "10,000 deep": (DEEP, False),
    "100,000 deep": (100_000 * b"[" + 100_000 * b"]", False),
    "100,000 objects deep": (100_000 * b'{"a":' + b"1" + 100_000 * b"}", False),
    "deep": (MAX_DEPTH * b"[" + MAX_DEPTH * b"]", True),
    "deeper": ((MAX_DEPTH + 1) * b"[" + (MAX_DEPTH + 1) * b"]", False),
    "flat brackets in a string": (b'"' + 5_000 * b"[" + b'"', True),
    "depth hidden by a string": (
        b'["' + 20_000 * b"]" + b'",' + 10_000 * b"[" + 10_001 * b"]",
        False,
    ),
    "many flat rows": (b"[" + 5_000 * b"[1]," + b"[]]", True),
    "past 2^64": (b'{"a": 184467440737095516160000, "b": -92233720368547758090}', True),
    "1e400000": (b"[1e400000]", False),
    "1e400": (b"[1e400]", True),
    "1e-20000": (b"[1e-20000]", False),
    "20,000 digits": (b"[0." + 20_000 * b"1" + b"]", False),
    "duplicate keys": (b'{"a": 1, "a": 2}', True),
    "empty": (b"", False),
    "space": (b"  ", False),
    "null": (b"null", True),
    "number": (b"-0", True),
    "leading zero": (b"01", False),
    "text": (b"Internal Server Error", False),
    "byte order mark": (b"\xef\xbb\xbf{}", False),
    "trailing comma": (b"[1,]", False),
    "two values": (b"{}{}", False),
    "control character": (b'"\x01"', False),
    "binary": (bytes(range(256)), False),
    "300 kB": (b"[" + b"1.5," * 75_000 + b"1]", True),
}


def open_recorder(chosen: RecordSettings) -> PredictionDBHandler:
    handler = PredictionDBHandler(chosen)
    handler.open()
    return handler


def deliver(chosen: RecordSettings) -> None:
    """Everything that is on the spool, in this process."""
    writer = Writer(
        chosen.spool_folder,
        Database(chosen.postgres_uri.get_secret_value()),
        Counters(None),
    )
    while (wait := writer.advance()) is not None:
        assert wait == 0, "Postgres did not take a batch"
    writer.close()


def test_every_body_is_stored_byte_for_byte(tmp_path: Path, postgres_uri: str) -> None:
    """In *_data what casts to jsonb, in *_raw all else; size and hash are true."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    for name, (body, _) in BODIES.items():
        call = request(handler, body, x_request_id=name)
        respond(handler, call, body)
    deliver(chosen)
    assert stored(postgres_uri) == (len(BODIES), len(BODIES), 0)
    assert not (tmp_path / "spool" / "dead-letter").exists()
    found = rows(
        postgres_uri,
        "SELECT pair_id, request_data::text, request_raw, request_size, request_sha256,"
        " request_truncated, response_data::text, response_raw, response_size, response_truncated"
        " FROM inference_requests"
        " JOIN inference_responses USING (record_id, request_time, pair_id)",
    )
    for (
        name,
        data,
        raw,
        size,
        digest,
        cut,
        answer_data,
        answer_raw,
        answer_size,
        answer_cut,
    ) in found:
        body, casts = BODIES[name]
        assert (data.encode() if casts else raw) == body, name
        assert (raw if casts else data) is None, name
        assert (answer_data.encode() if casts else answer_raw) == body, name
        assert (answer_raw if casts else answer_data) is None, name
        assert (size, answer_size, cut, answer_cut) == (len(body), len(body), False, False), name
        assert digest == sha256(body).digest(), name
    rows(postgres_uri, "SELECT count(request_data::jsonb) FROM inference_requests")


JSON_TEXTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, 1e300, 5e-324, "\0", "\ud800", "\\u0000"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
).map(json.dumps) | st.from_regex(
    r'[\[{]?(-?[0-9]{1,3}(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,6})?|"(\\u[0-9a-fd]{4}|[a-z\\/"]){0,4}")[\]}]?',
    fullmatch=True,
)


@hypothesis_settings(max_examples=300)
@given(text=JSON_TEXTS)
def test_texts_that_surely_cast_do(postgres_server: str, text: str) -> None:
    """No text that goes straight into its table fails to cast there."""
    body = text.encode("utf-8", "surrogatepass")
    if casting(memoryview(body)) == "surely":
        with psycopg.connect(postgres_server) as connection:
            answer = connection.execute("SELECT pg_input_is_valid(%s, 'jsonb')", [text]).fetchone()
        assert answer == (True,)


def test_ordinary_texts_need_no_judge() -> None:
    """The fast way is taken by what models answer."""
    for text in (b'{"predictions": [6.6, -1.5e-07, 0, null, "a"]}', b"[1e300]", b'{"a": "\\n"}'):
        assert casting(memoryview(text)) == "surely"


def test_five_of_a_thousand_are_unstorable(tmp_path: Path, postgres_uri: str) -> None:
    """995 calls are stored, five rows set aside with the reason and all that re-inserting needs."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE inference_requests ADD CONSTRAINT no_devils CHECK (pair_id !~ '^devil')"
        )
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    for number in range(1000):
        pair_id = f"devil-{number}" if number in (0, 1, 499, 500, 999) else f"pair-{number}"
        call = request(handler, b"\xff binary", x_shadow_pair_id=pair_id, content_type="text/x")
        respond(handler, call)
    delivery = deliver_from(handler, chosen)
    try:
        until(lambda: figures(handler)["dead_letter"] == 5, "five dead letters")
        until(lambda: figures(handler)["written"] == 995, "995 records")
        assert figures(handler)["spooled"] == 1000
        # The last one's hole has no end.
        until(lambda: stored(postgres_uri) == (995, 1000, 2), "all rows")
        until(lambda: figures(handler)["prediction_db_spool_bytes"] == 0, "an empty spool")
    finally:
        delivery.stop(90)
    (path,) = (tmp_path / "spool" / "dead-letter").iterdir()
    letters = [json.loads(line) for line in path.read_text().splitlines()]
    assert [letter["row"]["pair_id"] for letter in letters] == [
        f"devil-{number}" for number in (0, 1, 499, 500, 999)
    ]
    for letter in letters:
        assert letter["table"] == "inference_requests"
        assert letter["sqlstate"] == "23514"
        assert "no_devils" in letter["reason"]
        assert base64.b64decode(letter["row"]["request_raw"]["base64"]) == b"\xff binary"


def test_refused_rows_are_logged_at_once_and_then_with_their_number(
    tmp_path: Path,
    postgres_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first batch with how many; those that follow are counted in the line a minute later."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE inference_requests ADD CONSTRAINT no_devils CHECK (pair_id !~ '^devil')"
        )
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    writer = Writer(
        chosen.spool_folder, Database(chosen.postgres_uri.get_secret_value()), Counters(None)
    )

    def refuse(rows: int) -> None:
        record(handler, 1)
        for number in range(rows):
            request(handler, x_request_id=f"devil-{number}")
        while writer.advance() is not None:
            pass

    refuse(1)
    refuse(2)
    refuse(3)
    monkeypatch.setattr(logs, "PACE_SECONDS", 0.0)  # a minute later
    refuse(4)
    writer.close()
    first, later = (entry.getMessage() for entry in caplog.records)
    assert first.startswith("Postgres refuses a row: new row for relation ")
    assert later.startswith("Postgres refuses 9 rows, the last one: new row for relation ")
    for line in first, later:
        assert f'"no_devils". Kept in {chosen.spool_folder / "dead-letter"}; mend that' in line
        assert f"`{COMMAND}` here puts back what is kept." in line


def test_row_that_cannot_even_be_set_aside_waits(tmp_path: Path, postgres_uri: str) -> None:
    """No folder for dead letters: nothing is lost, the record waits until there is one."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("ALTER TABLE inference_requests ADD CHECK (pair_id <> 'devil')")
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    respond(handler, request(handler, x_request_id="devil"))
    record(handler, 10)
    in_the_way = tmp_path / "spool" / "dead-letter"
    in_the_way.write_text("a file where the folder should be")
    with Delivery(chosen, tmp_path / "log") as delivery:
        until(lambda: "cannot be set aside" in delivery.log, "the complaint")
        in_the_way.unlink()
        until(lambda: list(in_the_way.glob("*.jsonl")), "the row to be set aside")
        until(lambda: stored(postgres_uri) == (10, 11, 1), "the other rows")


def test_same_request_id_a_thousand_times(tmp_path: Path, postgres_uri: str) -> None:
    """Every call is a record of its own, whatever id its caller repeats."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    for _ in range(1000):
        respond(handler, request(handler, x_request_id="again"))
    deliver(chosen)
    assert stored(postgres_uri) == (1000, 1000, 0)
    assert rows(postgres_uri, "SELECT DISTINCT pair_id FROM inference_requests") == [("again",)]


def test_replay_of_delivered_records_changes_nothing(tmp_path: Path, postgres_uri: str) -> None:
    """A delivery that died between the commit and its own mark sends again, without effect."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    record(handler, 500)
    (path,) = chosen.spool_folder.glob("*.seg")
    before = path.read_bytes()
    deliver(chosen)
    handler.close()
    (tmp_path / "spool" / path.name).write_bytes(before)
    deliver(chosen)
    assert stored(postgres_uri) == (500, 500, 0)
    assert not list(chosen.spool_folder.glob("*.seg"))


def test_batch_of_deep_bodies_is_stored(tmp_path: Path, postgres_uri: str) -> None:
    """A caller who sends nothing but nesting that Postgres may die of costs no record."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    for number in range(200):
        call = request(handler, DEEP if number % 10 else b"[]", x_request_id=f"{number}")
        respond(handler, call, b"{}", 400)
    deliver(chosen)
    assert stored(postgres_uri) == (200, 200, 0)
    assert rows(
        postgres_uri, "SELECT count(*) FROM inference_requests WHERE request_raw IS NOT NULL"
    )[0] == (180,)


def test_50_mb_body_is_cut(tmp_path: Path, postgres_uri: str) -> None:
    """Stored cut, with its true size and hash."""
    chosen = settings(tmp_path, as_role(postgres_uri, "transformer"))
    handler = open_recorder(chosen)
    body = b"[" + b"1," * 25_000_000 + b"1]"
    respond(handler, request(handler, body), body)
    deliver(chosen)
    (found,) = rows(
        postgres_uri,
        "SELECT request_data::text, request_raw, request_size, request_sha256, request_truncated,"
        " length(response_raw), response_size, response_truncated"
        " FROM inference_requests"
        " JOIN inference_responses USING (record_id, request_time, pair_id)",
    )
    megabyte = 1024 * 1024
    assert found == (
        *(None, body[:megabyte], len(body), sha256(body).digest(), True),
        *(megabyte, len(body), True),
    )


@pytest.mark.parametrize("body", [b'"' + b'\\"' * 300_000, b'["' * 300_000, b"\\" * 300_001])
def test_endless_strings_take_no_time(body: bytes) -> None:
    """Telling the depth is linear: a caller cannot stall delivery with quotes."""
    assert casting(memoryview(body + 1000 * b"[")) in {"perhaps", "never"}


@pytest.mark.parametrize("size", [2 * 1024 * 1024, 9 * 1024 * 1024])
def test_large_bodies_are_stored_whole_when_allowed(
    tmp_path: Path, postgres_uri: str, size: int
) -> None:
    """Records larger than a read and than a segment go through."""
    chosen = settings(
        tmp_path, as_role(postgres_uri, "transformer"), record_max_body_bytes=32 * 1024 * 1024
    )
    handler = open_recorder(chosen)
    for number in range(3):
        body = b'"' + b"x" * (size - 2 + number) + b'"'
        respond(handler, request(handler, body), body)
    deliver(chosen)
    assert rows(
        postgres_uri,
        "SELECT length(request_data::text), length(response_data::text) FROM inference_requests"
        " JOIN inference_responses USING (record_id, request_time, pair_id) ORDER BY sequence",
    ) == [(size, size), (size + 1, size + 1), (size + 2, size + 2)]
