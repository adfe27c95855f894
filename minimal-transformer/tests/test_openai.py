"""OpenAI's API through the transformer, by OpenAI's own client and in front of KServe's models."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from kserve_openai import ChatCompletionRequest, CompletionRequest, OpenAIProxyModel
from serving import Storyteller, Transformer, new_pair, request_row, row, stored, until
from streaming import StreamingPredictor

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Berlin", "Paris"]}},
        },
    },
}
Talk = dict[str, Any]


def talk(text: str, **more: object) -> Talk:
    return {"model": "model", "messages": [{"role": "user", "content": text}], **more}


def named(pair: str) -> Talk:
    return {"extra_headers": {"x-shadow-pair-id": pair}}


@pytest.fixture(params=["/openai/v1", "/v1"])
def client(telling: Transformer, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{telling.http_port}{request.param}"
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


def recorded(uri: str, pair: str) -> tuple[dict[str, Any], Any]:
    """The row, and the answer in it."""
    found = row(uri, pair)
    return found, json.loads(found["response_data"])


def test_an_answer_in_one_piece_is_recorded_as_it_is(
    client: openai.OpenAI, shared_uri: str, storyteller: Storyteller
) -> None:
    """With its tokens, and without figures that only a stream has."""
    pair = new_pair()
    got = client.chat.completions.with_raw_response.create(**talk("A lamp?"), **named(pair))
    found, data = recorded(shared_uri, pair)
    assert stored(found, "response") == got.content
    assert (found["protocol"], found["model_name"]) == ("openai", "model")
    assert found["predict_url"] == f"http://{storyteller.address}/openai/v1/chat/completions"
    assert found["request_data"]["messages"][0]["content"] == "A lamp?"
    assert (found["status_code"], found["error"], found["ttft_ms"]) == (200, None, None)
    usage = got.parse().usage
    assert usage is not None
    assert found["generation"] == {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    assert data["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "asked",
    [
        talk("A lamp?"),
        talk("Two lamps?", n=2, temperature=1, seed=3),
        talk("The weather?", tools=[WEATHER]),
        talk("What is the password?"),
        talk("A long story", max_tokens=3),
        talk("JSON", response_format={"type": "json_object"}),
    ],
)
def test_a_streamed_chat_is_recorded_as_its_client_assembles_it(
    client: openai.OpenAI, shared_uri: str, asked: Talk
) -> None:
    """Messages, tool calls, finish reasons and usage: as the unary answer has them."""
    pair = new_pair()
    options = {"include_usage": True}
    with client.chat.completions.stream(**asked, stream_options=options, **named(pair)) as stream:
        try:
            final = stream.get_final_completion()
        except openai.LengthFinishReasonError as cut:
            final = cut.completion
    found, data = recorded(shared_uri, pair)
    assert data["object"] == "chat.completion"
    assert data["usage"] == final.usage.model_dump(exclude_none=True)
    assert (data["id"], data["model"]) == (final.id, final.model)
    for mine, choice in zip(data["choices"], final.choices, strict=True):
        assert mine["index"] == choice.index
        assert mine["finish_reason"] == choice.finish_reason
        assert mine["message"].get("content") == choice.message.content
        assert mine["message"]["role"] == choice.message.role
        calls = [
            (call["id"], call["type"], call["function"]["name"], call["function"]["arguments"])
            for call in mine["message"].get("tool_calls") or []
        ]
        assert calls == [
            (call.id, call.type, call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or []
        ]
    assert found["response_raw"] is None
    assert found["response_truncated"] is False
    figures = found["generation"]
    assert figures["stream_end"] == "done"
    assert figures["completion_tokens"] == final.usage.completion_tokens
    assert figures["chunks"] > 0
    assert 0 < found["ttft_ms"] <= found["duration_ms"]


def test_what_is_streamed_is_recorded_like_what_is_answered(
    client: openai.OpenAI, shared_uri: str
) -> None:
    """One form for the comparison, whichever way a caller asked."""
    pairs = new_pair(), new_pair()
    client.chat.completions.create(**talk("A lamp?"), **named(pairs[0]))
    for _ in client.chat.completions.create(**talk("A lamp?"), stream=True, **named(pairs[1])):
        pass
    unary, streamed = (recorded(shared_uri, pair)[1]["choices"][0] for pair in pairs)
    assert streamed["message"]["content"] == unary["message"]["content"]
    assert streamed["finish_reason"] == unary["finish_reason"]


def test_completions_and_embeddings(client: openai.OpenAI, shared_uri: str) -> None:
    """The older API, streamed with several choices, and the one that generates nothing."""
    pair, other = new_pair(), new_pair()
    asked: Talk = {"model": "model", "prompt": ["A lamp", "A ship"], "max_tokens": 5}
    texts = ["", ""]
    for chunk in client.completions.create(**asked, stream=True, **named(pair)):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    _, data = recorded(shared_uri, pair)
    assert data["object"] == "text_completion"
    assert [choice["text"] for choice in data["choices"]] == texts
    client.embeddings.create(model="model", input="lamp", dimensions=8, **named(other))
    found, _ = recorded(shared_uri, other)
    assert found["predict_url"].endswith("/openai/v1/embeddings")
    assert set(found["generation"]) == {"prompt_tokens"}


def test_a_wrong_call_is_openais_error(client: openai.OpenAI, shared_uri: str) -> None:
    """A streamed one too: the status of its answer says so, and the row."""
    pair = new_pair()
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="model", messages=[], stream=True, **named(pair))
    found = row(shared_uri, pair)
    assert found["status_code"] == 422
    assert found["error"]


def test_models_are_listed_for_both_kinds_of_client(telling: Transformer) -> None:
    """KServe's list and OpenAI's have one path: each client reads its own key."""
    both = json.loads(telling.get("/v1/models").body)
    assert both["models"] == ["model"]
    assert [model["id"] for model in both["data"]] == ["model"]
    assert json.loads(telling.get("/openai/v1/models").body)["data"] == both["data"]
    url = f"http://127.0.0.1:{telling.http_port}/openai/v1"
    with openai.OpenAI(base_url=url, api_key="any") as client:
        assert [model.id for model in client.models.list()] == ["model"]


def test_a_predictor_without_openais_list_has_kserves(transformer: Transformer) -> None:
    """The list of a predictive model is what it was."""
    assert json.loads(transformer.get("/v1/models").body) == {"models": ["model"]}


def test_many_callers_stream_at_once(telling: Transformer, shared_uri: str) -> None:
    """The asynchronous client; nobody gets another's words, and each has its row."""
    pairs = [new_pair() for _ in range(40)]

    async def told(client: openai.AsyncOpenAI, pair: str) -> str:
        events = await client.chat.completions.create(**talk(pair), stream=True, **named(pair))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in events])

    async def all_of_them() -> list[str]:
        url = f"http://127.0.0.1:{telling.http_port}/openai/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
            return await asyncio.gather(*(told(client, pair) for pair in pairs))

    for pair, text in zip(pairs, asyncio.run(all_of_them()), strict=True):
        found, data = recorded(shared_uri, pair)
        assert data["choices"][0]["message"]["content"] == text
        assert found["request_data"]["messages"][0]["content"] == pair


@pytest.mark.parametrize("prefix", ["/openai", ""])
def test_kserves_own_client_is_answered(telling: Transformer, shared_uri: str, prefix: str) -> None:
    """OpenAIProxyModel, by which KServe's servers call others: in one piece and streamed."""
    url = f"http://127.0.0.1:{telling.http_port}{prefix}"
    talked = ChatCompletionRequest.model_validate(talk("A lamp?"))
    written = CompletionRequest(model="model", prompt="A lamp", max_tokens=5)

    async def ask() -> tuple[Any, str, Any, str]:
        async with httpx.AsyncClient(timeout=120) as http:
            model = OpenAIProxyModel("model", url, http, health_endpoint="/v1/models/model")
            assert await model.healthy()
            whole = await model.create_chat_completion(talked)
            events = await model.create_chat_completion(talked.model_copy(update={"stream": True}))
            told = "".join([event.choices[0].delta.content or "" async for event in events])
            text = await model.create_completion(written)
            pieces = await model.create_completion(written.model_copy(update={"stream": True}))
            return whole, told, text, "".join([piece.choices[0].text async for piece in pieces])

    whole, told, text, written_on = asyncio.run(ask())
    assert told == whole.choices[0].message.content
    assert written_on == text.choices[0].text
    assert whole.usage.completion_tokens > 0


def _say(client: openai.OpenAI, pair: str, started: threading.Event) -> str:
    """All that a stream says; `started` when it has begun."""
    told = ""
    for event in client.chat.completions.create(**talk("A ship?"), stream=True, **named(pair)):
        told += event.choices[0].delta.content or ""
        if told:
            started.set()
    return told


async def _say_async(client: openai.AsyncOpenAI, pair: str, started: threading.Event) -> str:
    told = ""
    stream = await client.chat.completions.create(**talk("A ship?"), stream=True, **named(pair))
    async for event in stream:
        told += event.choices[0].delta.content or ""
        if told:
            started.set()
    return told


@pytest.mark.parametrize("dies", ["predictor", "transformer"])
def test_who_dies_in_the_middle_is_no_end_for_openais_clients(
    tmp_path: Path, shared_uri: str, dies: str
) -> None:
    """kill -9 of KServe's server or of ours: both clients raise, and nobody has half an answer.

    Of a dead predictor the row has what came, of a dead transformer the request's row is there. The
    next server on the predictor's port is called as if nothing had been.
    """
    pairs, started = [new_pair(), new_pair()], [threading.Event(), threading.Event()]
    spool = str(tmp_path / "spool")
    with (
        Storyteller(tmp_path, TOKENS_PER_SECOND="2") as storyteller,
        Transformer(tmp_path, shared_uri, storyteller.address, SPOOL_DIR=spool) as transformer,
    ):
        url = f"http://127.0.0.1:{transformer.http_port}/v1"
        both = {"base_url": url, "api_key": "any", "max_retries": 0}

        async def ask() -> str:
            async with openai.AsyncOpenAI(**both) as client:
                return await _say_async(client, pairs[1], started[1])

        with openai.OpenAI(**both) as client, ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(_say, client, pairs[0], started[0]),
                pool.submit(asyncio.run, ask()),
            ]
            assert all(one.wait(120) for one in started)
            victim = {"predictor": storyteller, "transformer": transformer}[dies].process
            for process in [*psutil.Process(victim.pid).children(recursive=True), victim]:
                process.kill()
            for one in asked:
                with pytest.raises((openai.APIError, httpx.HTTPError)):
                    one.result()
        if dies == "predictor":
            for pair in pairs:
                found, data = recorded(shared_uri, pair)
                assert found["generation"]["stream_end"] == "cut"
                assert found["error"].startswith("the predictor's answer was cut off after")
                assert data["choices"][0]["message"]["content"]
                assert data["choices"][0]["finish_reason"] is None
            assert transformer.post("/v1/chat/completions", b"{}").status == 503
    if dies == "transformer":
        with Transformer(tmp_path, shared_uri, storyteller.address, SPOOL_DIR=spool):
            for pair in pairs:
                found = until(lambda pair=pair: request_row(shared_uri, pair), "the request's row")
                assert found["status_code"] is None


def test_other_paths_are_passed_where_a_setting_names_them(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """With their query; JSON is stored as JSON, other bytes as bytes."""
    pair = new_pair()
    got = passing.post("/any/thing%20else?a=1&b=%2F", b'{"x": 1.0}', x_shadow_pair_id=pair)
    assert streaming.seen[-1].line == "POST /any/thing%20else?a=1&b=%2F HTTP/1.1"
    found = row(shared_uri, pair)
    assert found["protocol"] == "other"
    assert found["predict_url"] == f"http://{streaming.address}/any/thing%20else"
    assert stored(found, "request") == b'{"x": 1.0}'
    assert stored(found, "response") == got.body
    assert (found["generation"], found["ttft_ms"]) == (None, None)
    pair = new_pair()
    passing.post("/any", b"\xff\x00", x_shadow_pair_id=pair)
    assert bytes(row(shared_uri, pair)["request_raw"]) == b"\xff\x00"


@pytest.mark.parametrize(
    "path", ["/anything", "/v2/repository/models/model/unload", "/any/../v2/x", "/any/%2e%2e/v2/x"]
)
def test_other_paths_are_closed(
    passing: Transformer, streaming: StreamingPredictor, path: str
) -> None:
    """What no setting names does not reach the predictor, and no path leaves its folder."""
    before = len(streaming.seen)
    assert passing.post(path, b"{}").status in (403, 404)
    assert len(streaming.seen) == before


def test_the_query_reaches_the_predictor_in_every_protocol(
    passing: Transformer, streaming: StreamingPredictor, shared_uri: str
) -> None:
    """Also v1's; the row has the URL without it, so that calls of one kind have one."""
    pair = new_pair()
    path = "/v1/models/model:predict"
    passing.post(f"{path}?debug=1", b"{}", x_shadow_pair_id=pair)
    assert streaming.seen[-1].line == f"POST {path}?debug=1 HTTP/1.1"
    assert row(shared_uri, pair)["predict_url"] == f"http://{streaming.address}{path}"


def test_the_bytes_are_the_predictors(telling: Transformer, shared_uri: str) -> None:
    """Any HTTP client: the bytes are the predictor's own, and end as they should."""
    pair = new_pair()
    body = talk("A lamp?", stream=True)
    url = f"http://127.0.0.1:{telling.http_port}/openai/v1/chat/completions"
    got = httpx.post(url, json=body, headers={"x-shadow-pair-id": pair}, timeout=120)
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.content.endswith(b"data: [DONE]\n\n")
    assert row(shared_uri, pair)["response_size"] == len(got.content)
