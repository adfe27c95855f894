"""A row's bytes are what Postgres reads, and can be read back for people."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from minimal_transformer.recording.ids import new_record_id
from minimal_transformer.recording.rows import (
    NO_BODY,
    StoredBody,
    decode_row,
    encode_request,
    encode_response,
    encode_row,
    generation_fields,
    json_body,
    split_fields,
    stored_body,
    text_fields,
    with_raw_body,
)
from minimal_transformer.spool.format import Kind

BODIES = st.builds(
    StoredBody,
    data=st.none() | st.binary(max_size=20).map(lambda b: b.hex().encode()),
    raw=st.none() | st.binary(max_size=20),
    size=st.integers(0, 2**31 - 1),
    truncated=st.booleans(),
    hashed=st.none() | st.binary(max_size=20),
)


@given(body=BODIES, sequence=st.integers(1, 2**63 - 1), pair=st.text(max_size=10))
def test_request_row(body: StoredBody, sequence: int, pair: str) -> None:
    """Every column comes back, and the body begins where its frame says."""
    pair = pair.encode("utf-8", "replace").decode()
    pieces = encode_request(
        record_id=bytes(16),
        request_time_us=1_700_000_000_123_456,
        recorder_id=bytes(range(16)),
        sequence=sequence,
        pair=text_fields(pair, "generated"),
        process=text_fields("primary", "double", None),
        route=text_fields("model", "v1", "url"),
        headers=b"{}",
        body=body,
    )
    row = b"".join(pieces)
    found = decode_row(Kind.REQUEST, row)
    assert found["request_time"] == "2023-11-14T22:13:20.123456+00:00"
    assert (found["sequence"], found["pair_id"]) == (sequence, pair)
    assert (found["model_version"], found["recorder_id"]) == (
        None,
        str(uuid.UUID(int=0x102030405060708090A0B0C0D0E0F)),
    )
    assert found["request_data"] == (None if body.data is None else body.data.decode())
    assert (found["request_raw"], found["request_truncated"]) == (body.raw, body.truncated)
    assert encode_row(Kind.REQUEST, found) == (row, len(pieces[0]))
    text = json_body(memoryview(row), len(pieces[0]))
    assert (None if text is None else bytes(text)) == body.data


@given(
    body=BODIES | st.just(NO_BODY),
    error=st.none() | st.just("é"),
    ttft_ms=st.none() | st.floats(0, 1e9),
)
def test_response_row(body: StoredBody, error: str | None, ttft_ms: float | None) -> None:
    """Every column comes back; with its body raw, all others stay."""
    pieces = encode_response(
        record_id=bytes(16),
        request_time_us=1,
        pair_id="pär".encode(),
        response_time_us=2,
        status_code=-1,
        duration_ms=0.1,
        error=error,
        body=body,
        generation=generation_fields(ttft_ms, {} if ttft_ms is None else {"chunks": 3}),
    )
    row = b"".join(pieces)
    found = decode_row(Kind.RESPONSE, row)
    assert encode_row(Kind.RESPONSE, found) == (row, len(pieces[0]))
    assert (found["status_code"], found["duration_ms"], found["error"]) == (-1, 0.1, error)
    generation = None if ttft_ms is None else '{"chunks":3}'
    assert (found["pair_id"], found["ttft_ms"]) == ("pär", ttft_ms)
    assert found["generation"] == generation
    assert found["response_size"] == body.size
    raw = decode_row(Kind.RESPONSE, with_raw_body(row))
    assert raw == found | {
        "response_data": None,
        "response_raw": body.data if body.raw is None else body.raw,
    }
    assert len(split_fields(row)) == 13


def test_record_ids_are_ordered_uuid7() -> None:
    """Later microseconds sort later; version and variant are RFC 9562's."""
    ids = [new_record_id(1_700_000_000_000_000 + number) for number in range(3000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 3000
    found = uuid.UUID(bytes=ids[0])
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == 1_700_000_000_000


def test_body_is_cut_with_its_true_size() -> None:
    """At the limit it is whole, past it cut."""
    whole = stored_body(b"x" * 10, None, 10, None)
    cut = stored_body(b"x" * 11, b"{}", 10, None)
    assert (whole.data, whole.truncated, whole.size) == (b"x" * 10, False, 10)
    assert (cut.data, cut.raw, cut.truncated, cut.size) == (None, b"x" * 10, True, 11)
    assert cut.sha256 == stored_body(b"x" * 11, None, 100, None).sha256
