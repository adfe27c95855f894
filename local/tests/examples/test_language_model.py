"""examples/generative: streamed answers through the gateway, mirrored and paired."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from calls import post
from runs import Start
from tree import Tree
from waiting import until

from shadow_local.stack import Options, Stack
from shadow_local.translate.document import repository

PAIR = """
SELECT q.role, a.status_code, a.generation->>'stream_end',
       a.response_data #>> '{choices,0,message,content}'
FROM inference_requests q LEFT JOIN inference_responses a USING (record_id, request_time)
WHERE q.pair_id = %s AND q.protocol = 'openai' AND a.status_code IS NOT NULL ORDER BY 1
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The example's deployment; its transformers pass on what is the model's own path as well."""
    folder = tmp_path_factory.mktemp("stack")
    tree = Tree(folder / "tree")
    example = tree.example("generative")
    last = "value: {name: OPENAI_PREDICTOR_PREFIX, value: /openai}}\n"
    path = "/spec/transformer/containers/0/env/-"
    more = f"      - {{op: add, path: {path}, value: {{name: PASS_PATHS, value: /tokens}}}}\n"
    tree.replace("examples/generative/kustomization.yaml", last, last + more)
    stack = Stack(Options(folder / "stack", example))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def opened(stack: Stack) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A streamed chat at the entry, of which nothing is read yet."""
    assert stack.state is not None
    parts = urlsplit(stack.state.predict_url)
    assert parts.path.endswith("/mirrored-inference/openai/v1/chat/completions")
    body = {"model": "model", "stream": True, "temperature": 0, "messages": []}
    body["messages"] = [{"role": "user", "content": "A lamp?"}]
    connection = http.client.HTTPConnection(parts.netloc, timeout=180)
    headers = {"content-type": "application/json"}
    connection.request("POST", parts.path, json.dumps(body), headers)
    return connection, connection.getresponse()


def sides(stack: Stack, pair_id: str) -> list[tuple[Any, ...]]:
    """Both rows of a pair, once both are there."""

    def found() -> list[tuple[Any, ...]]:
        with psycopg.connect(stack.database.of_role("report")) as connection:
            return connection.execute(PAIR, [pair_id]).fetchall()

    until(lambda: len(found()) == 2)
    return found()


def test_a_stream_is_mirrored_and_paired(stack: Stack) -> None:
    """The caller has the primary's events; the rows have both answers, whole."""
    connection, answer = opened(stack)
    events = answer.read().decode()
    connection.close()
    assert answer.status == 200
    assert events.endswith("data: [DONE]\n\n")
    pair_id = answer.headers["x-shadow-pair-id"]
    (role, status, end, text), shadow = sides(stack, pair_id)
    assert (role, status, end) == ("primary", 200, "done")
    told = [json.loads(event[6:]) for event in events.split("\n\n")[:-2]]
    assert text == "".join(one["choices"][0]["delta"].get("content") or "" for one in told)
    assert shadow[:3] == ("shadow", 200, "done")


BOTH = """
SELECT q.role, q.protocol, a.status_code, a.generation->>'stream_end', count(*)
FROM inference_requests q JOIN inference_responses a USING (record_id, request_time, pair_id)
WHERE q.request_time >= %s
  AND (q.role = 'primary' OR q.request_headers->>'x-shadow-source' = %s)
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
REQUESTS = {
    "openai/v1/chat/completions": {"messages": [{"role": "user", "content": "A lamp?"}]},
    "openai/v1/completions": {"prompt": "A lamp"},
    "openai/v1/embeddings": {"input": "A lamp"},
    "tokens/count": {"text": "A lamp"},
}


@pytest.mark.parametrize("command", ["follow", "replay"])
def test_whatever_the_primary_passed_on_is_sent_again(
    stack: Stack, command: str, tmp_path: Path
) -> None:
    """Calls that no mirror copied, of OpenAI's API and of others: streams are read as streams."""
    state = stack.state
    assert state is not None
    assert state.primary is not None
    assert state.shadow is not None
    began = datetime.now(UTC).isoformat()
    for path, request in REQUESTS.items():
        for streamed in ({}, {"stream": True}) if "completions" in path else ({},):
            body = json.dumps({"model": "model"} | request | streamed).encode()
            headers = [("content-type", "application/json")]
            post(f"{state.primary.transformer_url}/{path}", body, headers)

    def rows() -> list[tuple[Any, ...]]:
        with psycopg.connect(stack.database.of_role("report")) as connection:
            return connection.execute(BOTH, [began, command]).fetchall()

    answers = [("openai", 200, "done", 2), ("openai", 200, None, 3), ("other", 404, None, 1)]
    primary, shadow = ([(role, *answer) for answer in answers] for role in ("primary", "shadow"))
    until(lambda: rows() == primary, or_say=lambda: str(rows()))
    options = ["--to", state.shadow.transformer_url, "--since", began]
    if command == "follow":
        options += ["--shadow", *state.candidates, "--until", "0s"]
    ran = subprocess.run(
        [repository() / "shadow-report" / ".venv" / "bin" / "shadow-report", command, *options],
        env=os.environ | {"POSTGRES_URI": stack.database.of_role("report")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert "6 calls answered (1 with an error status)." in said
    until(lambda: rows() == primary + shadow, or_say=lambda: f"{rows()} {said}")


def test_a_caller_that_leaves_ends_the_primarys_stream(stack: Stack) -> None:
    """What becomes of the copy is Envoy's to say: it goes on, or is cut with it; never stuck."""
    for role in ("primary", "shadow"):
        stack.restart(f"{role}-predictor", {"TOKENS_PER_SECOND": "4"})
    connection, answer = opened(stack)
    assert answer.readline().startswith(b"data: ")
    pair_id = answer.headers["x-shadow-pair-id"]
    connection.sock.close()
    answer.close()
    connection.close()
    primary, shadow = sides(stack, pair_id)
    assert primary[:3] == ("primary", 200, "left")
    assert shadow[:2] == ("shadow", 200)
    assert shadow[2] in ("left", "done")


def test_the_demo_of_a_language_model(start: Start, tmp_path: Path) -> None:
    """Half of its calls are streamed; every one is a pair, and both verdicts are pages."""
    pages = tmp_path / "pages"
    options = ("--model", "llm", "--html", str(pages), "--folder", str(tmp_path / "stack"))
    run = start("demo", *options, REQUESTS="30")
    assert run.ends() == 0
    output = run.output.read_text()
    assert "The primary is the base model, the shadow the tuned one" in output
    assert "30 of 30 calls paired; in 0 of them the answers differ." in output
    assert output.count("30 of 30 calls paired") == 2
    assert "REJECT" in output
    assert "REJECT" in (pages / "differs.html").read_text()
    assert "WAIT" in (pages / "agrees.html").read_text()
