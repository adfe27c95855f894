"""Where a stored call goes at the candidate, and with which headers."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from shadow_report import SettingWrong
from shadow_report.replay.calls import StoredCall, headers_of, parse_target, why_not_sent


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
    assert headers_of(call(headers=stored)) == {
        "content-type": "application/json",
        "x-tenant": "a",
        "x-shadow-pair-id": "pair-1",
    }


def test_what_is_not_sent() -> None:
    """gRPC calls and cut bodies have a reason, others none."""
    assert why_not_sent(call()) is None
    assert why_not_sent(call(body=b"")) is None
    assert why_not_sent(call(body=None)) == "body not stored whole"
    assert why_not_sent(call(protocol="grpc")) == "gRPC"
