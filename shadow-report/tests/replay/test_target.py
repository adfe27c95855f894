"""Where a stored call goes at the candidate, and with which headers."""

from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import pytest

from shadow_report import SettingWrong
from shadow_report.replay.calls import StoredCall, headers_of, parse_target, stored_call


def call(**fields: object) -> StoredCall:
    usual: dict[str, object] = {
        "record_id": UUID(int=5),
        "request_time": datetime(2026, 11, 20, tzinfo=UTC),
        "pair_id": "pair-1",
        "protocol": "v1",
        "model_name": "model",
        "predict_url": "/v1/models/model:predict",
        "headers": {},
        "body": b"{}",
    }
    return StoredCall(**usual | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("to", "url"),
    [
        ("http://c:8080", "http://c:8080/v1/models/model:predict"),
        ("http://c:8080/", "http://c:8080/v1/models/model:predict"),
        ("https://h/serving/p/triple", "https://h/serving/p/triple/v1/models/model:predict"),
        ("http://c/v1/models/other:predict", "http://c/v1/models/other:predict"),
        ("http://c/x/v2/models/other/infer", "http://c/x/v1/models/other:predict"),
        ("http://[::1]:80", "http://[::1]:80/v1/models/model:predict"),
    ],
)
def test_address(to: str, url: str) -> None:
    """An address before /v1, or a whole predict URL, whose model name then counts."""
    assert parse_target(to).url(call()) == url


@pytest.mark.parametrize(
    ("protocol", "recorded", "url"),
    [
        ("openai", "http://p/openai/v1/chat/completions", "http://c/s/openai/v1/chat/completions"),
        ("openai", "http://vllm:8000/v1/completions", "http://c/s/openai/v1/completions"),
        ("openai", "http://p/v1/v1/rerank?n=2", "http://c/s/openai/v1/rerank?n=2"),
        ("other", "http://p/generate_stream?n=2", "http://c/s/generate_stream?n=2"),
    ],
)
def test_what_is_passed_on_goes_by_its_own_path(protocol: str, recorded: str, url: str) -> None:
    """OpenAI's API is where each transformer has it, whatever its predictor is."""
    assert parse_target("http://c/s/").url(call(protocol=protocol, predict_url=recorded)) == url


@pytest.mark.parametrize("to", ["", "candidate:8080", "ftp://c", "http://", "/v1/models/m:predict"])
def test_no_address(to: str) -> None:
    """Anything else is a usage error that shows the right form."""
    with pytest.raises(SettingWrong, match="http://candidate:8080"):
        parse_target(to)


def test_a_hostile_model_name_stays_within_the_path() -> None:
    """A stored name cannot lead the call elsewhere."""
    url = parse_target("http://c").url(call(model_name="../../admin?x=#"))
    assert url == "http://c/v1/models/..%2F..%2Fadmin%3Fx%3D%23:predict"


def test_headers_keep_what_was_stored_and_name_the_pair() -> None:
    """Stored headers go along, those of the connection do not; the pair id is the original."""
    stored = {
        "X-Tenant": "a",
        "Content-Length": "9",
        "X-Request-Id": "old",
        "X-Shadow-Pair-Id": "b",
    }
    assert headers_of(call(headers=stored), "replay") == {
        "content-type": "application/json",
        "x-tenant": "a",
        "x-shadow-pair-id": "pair-1",
        "x-shadow-source": "replay",
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"data": b"{}", "size": 2}, None),
        ({"size": 0}, None),
        ({"raw": b"\0", "size": 1}, None),
        ({"raw": b"\0", "data": b"{}", "size": 1, "protocol": "grpc"}, None),
        ({"raw": b"12", "size": 3, "truncated": True}, "body cut"),
        ({"size": 3, "truncated": True}, "body redacted"),
        ({"data": b"{}", "size": 3, "truncated": True, "protocol": "grpc"}, "body redacted"),
        ({"data": b'{"a":"[redacted]"}', "size": 18}, "body redacted"),
        ({"data": b'{"a":"x"}', "size": 18}, "body redacted"),
    ],
)
def test_what_was_not_stored_as_it_came_is_withheld(
    row: dict[str, object], reason: str | None
) -> None:
    """A cut or redacted body is never sent as if it were the caller's."""
    usual: dict[str, object] = {
        "record_id": UUID(int=5),
        "request_time": datetime(2026, 11, 20, tzinfo=UTC),
        "pair_id": "pair-1",
        "protocol": "v1",
        "model_name": "model",
        "predict_url": "/v1/models/model:predict",
        "headers": {},
        "data": None,
        "raw": None,
        "truncated": False,
    }
    stored = stored_call(**usual | row)  # type: ignore[arg-type]
    assert stored.withheld == reason
    assert (stored.body is None) == (reason is not None)


@pytest.mark.parametrize("name", ["other", "x" * 200, "mödel"])
def test_a_grpc_message_names_the_candidates_model(name: str) -> None:
    """The name is replaced and all else of the message stays."""
    wire = b"\x0a\x05model\x1a\x02id"
    target = parse_target(f"http://c/v2/models/{quote(name)}/infer")
    sent = target.message(call(protocol="grpc", body=wire))
    read = service_pb(sent)
    assert read == {1: [b"model", name.encode()], 3: [b"id"]}
    assert parse_target("http://c").message(call(protocol="grpc", body=wire)) == wire


def service_pb(wire: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a message, as any protobuf reader finds them."""
    fields: dict[int, list[bytes]] = {}
    at = 0
    while at < len(wire):
        number, size, shift = wire[at] >> 3, 0, 0
        assert wire[at] & 7 == 2
        at += 1
        while True:
            size |= (wire[at] & 127) << shift
            shift += 7
            at += 1
            if wire[at - 1] < 128:
                break
        fields.setdefault(number, []).append(wire[at : at + size])
        at += size
    return fields
