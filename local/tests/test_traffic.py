"""`make traffic`: a file's requests, each to where its form belongs, and how they were answered."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from backends import Backend, answering
from gateways import StartGateway
from rich.console import Console
from runs import Start
from stored import wait_for_pairs
from tree import MIRRORED
from waiting import until

from shadow_local import Explained, traffic
from shadow_local.stack import Stack
from shadow_local.traffic import CALLERS, MOST_OPEN_COPIES, Answer, Call, Pace, read_calls, send
from shadow_local.translate.document import repository

V1 = "http://127.0.0.1:8080/serving/v1/entry/v1/models/own:predict"
OPENAI = "https://host/serving/profile/entry/openai/v1/chat/completions"
PRIMARY_PROTOCOLS = """
SELECT pair_id, protocol FROM inference_requests WHERE role = 'primary' AND request_time >= %s
"""
BATCHED = {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"input": ""}}
TENSOR = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The lines that local/README.md shows."""
    page = (repository() / "local/README.md").read_text()
    file = tmp_path / "requests.jsonl"
    file.write_text(re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    return file


def written(folder: Path, *lines: object) -> Path:
    file = folder / "requests.jsonl"
    file.write_text("\n\n".join(json.dumps(line) for line in lines))
    return file


def test_the_readmes_lines_are_answered_recorded_and_paired(
    stack: Stack, start: Start, sample: Path
) -> None:
    """JSON and binary, v1 and v2, a path and headers: all sent twice through the real gateway."""
    assert stack.state is not None
    began = datetime.now(UTC)
    run = start("traffic", str(sample), TIMES="2", PREDICT_URL=stack.state.predict_url)
    assert run.ends() == 0
    output = run.output.read_text()
    count = len(sample.read_text().splitlines())
    assert f"{2 * count} calls answered 200, such as line " in output
    with psycopg.connect(stack.database.uri) as connection:
        until(lambda: len(connection.execute(PRIMARY_PROTOCOLS, [began]).fetchall()) == 2 * count)
        stored = connection.execute(PRIMARY_PROTOCOLS, [began]).fetchall()
    assert Counter(protocol for _, protocol in stored) == {"v1": 6, "v2": 4}
    wait_for_pairs(stack, [pair_id for pair_id, _ in stored])


@pytest.mark.parametrize(
    ("url", "line", "path"),
    [
        (V1, {"instances": [[1]]}, "/serving/v1/entry/v1/models/own:predict"),
        (V1, {"prompt": "an own model's"}, "/serving/v1/entry/v1/models/own:predict"),
        (V1, {"inputs": [TENSOR]}, "/serving/v1/entry/v2/models/own/infer"),
        (V1, {"inputs": [[1, 2]]}, "/serving/v1/entry/v1/models/own:predict"),
        (V1, {"body": [1], "path": "v2/models/b/infer"}, "/serving/v1/entry/v2/models/b/infer"),
        (V1, {"body": 1, "values": 2}, "/serving/v1/entry/v1/models/own:predict"),
        (OPENAI, {"messages": []}, "/serving/profile/entry/openai/v1/chat/completions"),
        (OPENAI, {"prompt": ""}, "/serving/profile/entry/openai/v1/completions"),
        (OPENAI, {"input": ""}, "/serving/profile/entry/openai/v1/embeddings"),
        (OPENAI, {"inputs": [TENSOR]}, "/serving/profile/entry/v2/models/model/infer"),
        (OPENAI, BATCHED, "/serving/profile/entry/openai/v1/responses"),
        (V1, BATCHED, "/serving/v1/entry/v1/responses"),
    ],
)
def test_a_body_goes_where_its_form_belongs(
    tmp_path: Path, url: str, line: object, path: str
) -> None:
    """v2 by its tensors, OpenAI's where the deployment speaks it, the rest to its own path."""
    [call] = read_calls(written(tmp_path, line), url)
    assert re.sub(r"^https?://[^/]+", "", call.url) == path


def test_what_is_sent_is_what_the_line_says(tmp_path: Path) -> None:
    """Text as UTF-8, bytes as they are, tensors behind the JSON whose length a header has."""
    texts = {"name": "t", "shape": [1, 2], "datatype": "BYTES", "data": [["é", "ab"]]}
    text, raw, binary = read_calls(
        written(
            tmp_path,
            {"name": "é"},
            {"base64": "AAH/", "headers": {"x-a": "b"}},
            {"binary": True, "body": {"id": "7", "inputs": [TENSOR, texts]}},
        ),
        V1,
    )
    assert text.body == '{"name": "é"}'.encode()
    assert (raw.body, raw.line) == (b"\x00\x01\xff", 3)
    assert raw.headers == {"content-type": "application/octet-stream", "x-a": "b"}
    head = int(binary.headers["inference-header-content-length"])
    document = json.loads(binary.body[:head])
    assert [t["parameters"]["binary_data_size"] for t in document["inputs"]] == [8, 12]
    assert document["id"] == "7"
    assert all("data" not in tensor for tensor in document["inputs"])
    assert binary.body[head : head + 8] == b"\x00\x00\x80?\x00\x00\x00@"
    assert binary.body[head + 8 :] == b"\x02\x00\x00\x00\xc3\xa9\x02\x00\x00\x00ab"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\n{"a"', "line 2 is not a request: Expecting"),
        ("[1]", "line 1 is not a request: it is not a JSON object"),
        ('{"base64": "%"}', "line 1 is not a request"),
        ('{"binary": true, "body": {"a": 1}}', "line 1 is not a request: 'inputs'"),
        (
            json.dumps({"binary": True, "body": {"inputs": [TENSOR | {"datatype": "FP8"}]}}),
            "datatype is 'FP8'; it can be BYTES, BOOL, INT8",
        ),
        ("\n", "has no request; write one JSON object a line."),
    ],
)
def test_a_line_that_is_not_a_request_is_named(tmp_path: Path, content: str, said: str) -> None:
    """The file, the line and why, before anything is sent."""
    file = tmp_path / "requests.jsonl"
    file.write_text(content)
    with pytest.raises(Explained) as refused:
        read_calls(file, V1)
    assert str(refused.value).startswith(str(file))
    assert said in str(refused.value)


def test_calls_that_fail_are_counted_and_shown(start: Start, tmp_path: Path) -> None:
    """The status, how often, one of its lines, what was said; exit code 1."""
    file = written(tmp_path, {"values": [1]})
    run = start("traffic", str(file), PREDICT_URL="http://127.0.0.1:9/v1/models/model:predict")
    assert run.ends() == 1
    assert re.search(r"1 call not answered, such as line 1: Client\w+: ", run.output.read_text())


def test_each_reason_of_a_status_is_shown(stack: Stack, start: Start, tmp_path: Path) -> None:
    """One may be the caller's, and the other the model's; each with one of its lines."""
    assert stack.state is not None
    file = written(tmp_path, {"values": "x"}, {"values": "x"}, {"nothing": 1}, {"values": [1]})
    run = start("traffic", str(file), PREDICT_URL=stack.state.predict_url)
    assert run.ends() == 1
    fine, first, second = run.output.read_text().splitlines()[-3:]
    assert "1 call answered 200, such as line 7: " in fine
    assert "3 calls answered 400, such as line " in first
    assert second.lstrip().startswith("or as line ")


def test_a_call_without_the_key_is_told_of_it(
    start: Start, start_gateway: StartGateway, tmp_path: Path, primary: Backend, shadow: Backend
) -> None:
    """The gateway's own 403 has no word."""
    gateway = start_gateway(primary.port, shadow.port, api_key="s3cret")
    run = start("traffic", str(written(tmp_path, {})), PREDICT_URL=gateway.predict_url)
    assert run.ends() == 1
    said = run.output.read_text()
    assert "1 call answered 403, such as line 1: (an empty body, as to a call without the" in said
    assert "set X_API_KEY to it)" in said


def test_the_key_goes_along(start: Start, tmp_path: Path, primary: Backend) -> None:
    """X_API_KEY, as for curl."""
    url = f"http://127.0.0.1:{primary.port}/v1/models/model:predict"
    run = start("traffic", str(written(tmp_path, {})), PREDICT_URL=url, X_API_KEY="s3cret")
    assert run.ends() == 0
    assert [call.headers["x-api-key"] for call in primary.calls] == ["s3cret"]


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        ((".",), {"PREDICT_URL": V1}, "FILE is not set; name one with a request a line"),
        (("requests.jsonl",), {}, "Nothing is ready here; start `make up` and wait for"),
        (("requests.jsonl",), {"PREDICT_URL": "here"}, "'requests.jsonl', which is not a file"),
    ],
)
def test_what_is_missing_is_said(
    start: Start, tmp_path: Path, words: tuple[str, ...], settings: dict[str, str], said: str
) -> None:
    """No file, no running deployment: one line with the remedy."""
    run = start("traffic", *words, "--folder", str(tmp_path), **settings)
    assert run.ends() == 1
    assert said in run.output.read_text()


@pytest.mark.parametrize("topology", MIRRORED)
def test_calls_wait_for_a_slow_shadow_so_that_none_of_its_copies_is_dropped(
    start_gateway: StartGateway, primary: Backend, topology: str
) -> None:
    """One that answers nothing gets no more than a few calls; once it answers it gets every one."""
    count = 900  # the gateway holds fewer copies, and would drop the rest
    told, answers = list[str](), list[Answer]()
    with ThreadPoolExecutor(1) as sender, answering("shadow", hold=True) as shadow:
        gateway = start_gateway(primary.port, shadow.port, topology)
        calls = [Call(gateway.predict_url, b"{}")] * count
        pace = Pace(gateway.copies_url, told.append)
        sent = sender.submit(lambda: asyncio.run(send(calls, None, answers.append, pace)))
        until(lambda: bool(told))
        waiting = re.fullmatch(r"(\d+) copies wait for the shadow, and (.*)", told[0])
        assert waiting is not None
        assert int(waiting[1]) == len(shadow.calls) == len(primary.calls)
        assert waiting[2] == "none was answered for 20 s: it is stuck, or as slow as that"
        assert len(primary.calls) < 2 * CALLERS
        shadow.release()
        sent.result()
        until(lambda: len(shadow.calls) == len(primary.calls) == count)
    assert {answer.status for answer in answers} == {200}
    assert sum("stuck" in line for line in told) == 1


def test_a_slow_shadow_that_answers_is_not_called_stuck(
    start_gateway: StartGateway, primary: Backend
) -> None:
    """Each answer takes seconds: the calls go at its pace, and one line says so."""
    told, answers = list[str](), list[Answer]()
    with answering("shadow", seconds=3) as shadow:
        gateway = start_gateway(primary.port, shadow.port, "standard")
        calls = [Call(gateway.predict_url, b"{}")] * 2 * MOST_OPEN_COPIES
        asyncio.run(send(calls, None, answers.append, Pace(gateway.copies_url, told.append)))
        assert len(shadow.calls) == len(primary.calls) == len(calls)
    (line,) = told
    said = r"(\d+) copies wait for the shadow, and calls go at its pace; whether it answers .*"
    waiting = re.fullmatch(said, line)
    assert waiting is not None
    assert int(waiting[1]) >= MOST_OPEN_COPIES  # that many before some were answered, never none


@pytest.mark.parametrize(("seconds", "lines"), [(-1, ["1 of 3", "2 of 3"]), (60, [])])
def test_a_pipe_is_told_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, seconds: int, lines: list[str]
) -> None:
    """There is no bar in it, and slow would look like stuck."""
    monkeypatch.setattr(traffic, "SECONDS_PER_LINE", seconds)
    screen = Console(file=io.StringIO())
    with traffic.counted(screen, "sending", 3) as done:
        for number in (1, 2, 3):
            done(number)
    assert screen.file.getvalue().splitlines() == ["sending: 3", *lines]
