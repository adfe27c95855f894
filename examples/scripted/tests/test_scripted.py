"""What the request dictates is what comes back; the shadow may be told something else."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from scripted import ScriptedPredictor, body


@pytest.fixture
def predictor() -> Iterator[ScriptedPredictor]:
    with ScriptedPredictor() as running:
        yield running


def post(
    predictor: ScriptedPredictor, sent: bytes, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """A call's status, headers and body."""
    connection = http.client.HTTPConnection(predictor.address, timeout=60)
    try:
        connection.request("POST", "/v1/models/model:predict", sent, headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_answer_is_the_requests(predictor: ScriptedPredictor) -> None:
    """Status, headers and body."""
    answer = {"status": "418 Teapot", "headers": {"x-a": "b"}, "body": "<secret>!"}
    sent = json.dumps({"secret": "s", "answer": answer}).encode()
    status, headers, got = post(predictor, sent)
    assert (status, headers["x-a"], got) == (418, "b", b"s!")


@pytest.mark.parametrize("chunked", [False, True])
def test_answer_of_a_size(predictor: ScriptedPredictor, *, chunked: bool) -> None:
    """With its length or in chunks."""
    sent = json.dumps({"answer": {"size": 100_000, "chunked": chunked}}).encode()
    assert post(predictor, sent)[2] == bytes(100_000)


def test_shadow_answers_otherwise(predictor: ScriptedPredictor) -> None:
    """Who is told that it works on a copy takes `shadow_answer`."""
    sent = json.dumps({"answer": {"body": "1"}, "shadow_answer": {"body": "2"}}).encode()
    assert post(predictor, sent)[2] == b"1"
    assert post(predictor, sent, **{"x-shadow": "true"})[2] == b"2"


def test_answers_by_name(predictor: ScriptedPredictor) -> None:
    """Of SCRIPT."""
    assert post(predictor, body("busy"))[0] == 503


def test_tensors_come_back(predictor: ScriptedPredictor) -> None:
    """A v2 request that says nothing else."""
    tensor = {"name": "x", "shape": [1], "datatype": "INT64", "data": [3]}
    sent = json.dumps({"inputs": [tensor]}).encode()
    assert json.loads(post(predictor, sent)[2])["outputs"] == [tensor]
