"""What OpenAI's own client gets from the model."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from math import dist, hypot

import httpx
import openai
import pytest
from conftest import FOLDER, Start

PROMPTS = [f"Question {number} about the lamp" for number in range(40)]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Berlin", "Paris"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
        },
    },
}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with client_of(url) as client:
        yield client


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/openai/v1", api_key="any", max_retries=0)


def chat(client: openai.OpenAI, text: str, **more: object) -> openai.types.chat.ChatCompletion:
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="model", messages=messages, **more)


def said(client: openai.OpenAI, text: str, **more: object) -> str:
    return chat(client, text, **more).choices[0].message.content


def test_a_prompt_has_its_answer(client: openai.OpenAI, start: Start) -> None:
    """Another process says the same; another prompt gets another answer."""
    answers = [said(client, prompt) for prompt in PROMPTS]
    with client_of(start()) as again:
        assert [said(again, prompt) for prompt in PROMPTS] == answers
    assert len(set(answers)) == len(answers)
    assert all(answer.endswith(".") for answer in answers)


def test_temperature_makes_noise_that_a_seed_repeats(client: openai.OpenAI) -> None:
    """More of it with more; a request's own counts more than the setting."""

    def changed(temperature: float) -> int:
        return sum(said(client, p) != said(client, p, temperature=temperature) for p in PROMPTS)

    assert changed(0) == 0 < changed(0.05) < changed(1)
    one, same, other = (
        [said(client, prompt, temperature=0.5, seed=seed) for prompt in PROMPTS]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_the_setting_is_for_requests_that_name_no_temperature(start: Start) -> None:
    """TEMPERATURE=1: of some calls not all are alike, unless the caller asks for 0."""
    with client_of(start(TEMPERATURE="1")) as noisy:
        # Two may be, by chance.
        assert len({said(noisy, PROMPTS[0]) for _ in range(10)}) > 1
        assert len({said(noisy, PROMPTS[0], temperature=0) for _ in range(10)}) == 1


def test_the_tuned_model_answers_some_prompts_differently(url: str, tuned_url: str) -> None:
    """There is something for the comparison to find: words, refusals, embeddings."""
    with client_of(url) as base, client_of(tuned_url) as tuned:
        differing = sum(said(base, prompt) != said(tuned, prompt) for prompt in PROMPTS)
        assert 0 < differing < len(PROMPTS)
        refused = [
            said(model, "What is the salary?").startswith("I'm sorry") for model in (base, tuned)
        ]
        assert refused == [False, True]
        exact, rounded = (
            model.embeddings.create(model="model", input=PROMPTS[0]).data[0].embedding
            for model in (base, tuned)
        )
        assert 0 < dist(exact, rounded) < 0.02


def test_what_is_streamed_is_what_is_answered(client: openai.OpenAI) -> None:
    """The deltas join to the unary answer, choice by choice; the usage comes last, if asked for."""
    asked = {"n": 2, "temperature": 1, "seed": 7}
    whole = chat(client, PROMPTS[0], **asked)
    chunks = list(
        chat(client, PROMPTS[0], stream=True, stream_options={"include_usage": True}, **asked)
    )
    joined = ["", ""]
    reasons = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        joined[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    assert joined == [choice.message.content for choice in whole.choices]
    assert joined[0] != joined[1]
    assert reasons == {0: "stop", 1: "stop"}
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert whole.usage.completion_tokens == sum(len(text.split()) for text in joined)
    assert len(chunks) == 2 + whole.usage.completion_tokens + 2 + 1
    assert len({chunk.id for chunk in chunks}) == 1
    assert (
        chat(client, PROMPTS[0], stream=True)
        .response.headers["content-type"]
        .startswith("text/event-stream")
    )


def test_an_answer_is_cut_at_its_limit(client: openai.OpenAI) -> None:
    """finish_reason says so, in chat and completions, under either of the limit's names."""
    whole = said(client, PROMPTS[0])
    for name in ("max_tokens", "max_completion_tokens"):
        cut = chat(client, PROMPTS[0], **{name: 3})
        assert cut.choices[0].finish_reason == "length"
        assert cut.choices[0].message.content == " ".join(whole.split()[:3])
        assert cut.usage.completion_tokens == 3


def test_a_tool_is_called_when_the_user_asks_for_it(client: openai.OpenAI) -> None:
    """With arguments that fit its schema, streamed or not; its result is then talked about."""
    answer = chat(client, "How is the weather?", tools=[WEATHER])
    [choice] = answer.choices
    [call] = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert call.function.name == "get_weather"
    assert arguments["city"] in ("Berlin", "Paris")
    assert all(isinstance(day, int) for day in arguments["days"])

    with client.chat.completions.stream(
        model="model",
        messages=[{"role": "user", "content": "How is the weather?"}],
        tools=[WEATHER],
    ) as stream:
        [streamed] = stream.get_final_completion().choices
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments

    turns = [{"role": "user", "content": "How is the weather?"}, choice.message]
    turns.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    after = client.chat.completions.create(model="model", messages=turns, tools=[WEATHER])
    assert after.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("tool_choice", "reason"),
    [
        ("auto", "stop"),
        ("none", "stop"),
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "get_weather"}}, "tool_calls"),
    ],
)
def test_the_caller_decides_on_tools(
    client: openai.OpenAI, tool_choice: object, reason: str
) -> None:
    """A tool that the user does not mention is called when the caller demands it."""
    answer = chat(client, "Hello", tools=[WEATHER], tool_choice=tool_choice)
    assert answer.choices[0].finish_reason == reason


def test_json_is_answered_as_asked(client: openai.OpenAI) -> None:
    """Any object, or one of the caller's schema."""
    assert isinstance(
        json.loads(said(client, "Hello", response_format={"type": "json_object"})), dict
    )
    members = {
        "mood": {"type": "string", "enum": ["calm", "stormy"]},
        "ships": {"type": "integer"},
        "late": {"type": "boolean"},
        "height": {"type": "number"},
        "note": {"type": "null"},
        "first": {"type": "object", "properties": {"name": {"type": "string"}}},
    }
    schema = {"name": "sea", "schema": {"type": "object", "properties": members}}
    asked = {"type": "json_schema", "json_schema": schema}
    answer = json.loads(said(client, "Hello", response_format=asked))
    assert answer.pop("mood") in ("calm", "stormy")
    types = {name: type(value) for name, value in answer.items()}
    assert types == {"ships": int, "late": bool, "height": float, "note": type(None), "first": dict}
    assert isinstance(answer["first"]["name"], str)


def test_completions_continue_each_prompt(client: openai.OpenAI) -> None:
    """Several prompts and several answers each; streamed, the texts join to the same."""
    asked = {"model": "model", "prompt": PROMPTS[:2], "n": 2, "max_tokens": 5, "seed": 3}
    whole = client.completions.create(temperature=1, **asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in whole.choices}) == 4
    joined = dict.fromkeys(range(4), "")
    options = {"include_usage": True}
    for chunk in client.completions.create(
        stream=True, stream_options=options, temperature=1, **asked
    ):
        for choice in chunk.choices:
            joined[choice.index] += choice.text
    assert joined == {choice.index: choice.text for choice in whole.choices}
    assert chunk.usage == whole.usage


def test_embeddings_are_near_for_texts_with_the_same_words(client: openai.OpenAI) -> None:
    """Unit vectors of the wanted length, the same as numbers and as base64."""
    texts = ["the lamp of the keeper", "the lamp of the captain", "rocks and winter storms"]
    packed = client.embeddings.create(model="model", input=texts, dimensions=32)
    plain = client.embeddings.create(
        model="model", input=texts, dimensions=32, encoding_format="float"
    )
    vectors = [item.embedding for item in plain.data]
    assert all(
        dist(one.embedding, vector) < 1e-5 for one, vector in zip(packed.data, vectors, strict=True)
    )
    assert [len(vector) for vector in vectors] == [32, 32, 32]
    assert all(abs(hypot(*vector) - 1) < 1e-4 for vector in vectors)
    assert dist(vectors[0], vectors[1]) < dist(vectors[0], vectors[2])
    assert plain.usage.prompt_tokens == sum(len(text.split()) for text in texts)


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    """By the name that calls give."""
    assert [model.id for model in client.models.list()] == ["model"]


def test_wrong_calls_are_the_callers_mistake(client: openai.OpenAI, http: httpx.Client) -> None:
    """With OpenAI's own exceptions."""
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "?"}])
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="model", messages=[])
    assert http.post("/rerank", json={"model": "model"}).status_code == 400


def test_many_callers_stream_at_once(url: str) -> None:
    """The asynchronous client; nobody gets another's words."""

    async def streamed(client: openai.AsyncOpenAI, prompt: str) -> str:
        events = await client.chat.completions.create(
            model="model", messages=[{"role": "user", "content": prompt}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in events])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="any") as client:
            return await asyncio.gather(*(streamed(client, prompt) for prompt in PROMPTS))

    with client_of(url) as client:
        assert asyncio.run(all_of_them()) == [said(client, prompt) for prompt in PROMPTS]


def test_each_event_is_a_line_of_json(http: httpx.Client) -> None:
    """And the stream ends as OpenAI's does."""
    body = {"model": "model", "stream": True, "messages": [{"role": "user", "content": PROMPTS[0]}]}
    events = http.post("/chat/completions", json=body).content.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert all(json.loads(event.removeprefix(b"data: ")) for event in events[:-2])


def test_a_caller_need_not_wait_for_the_end(start: Start) -> None:
    """A model that talks for hours starts at once, and serves others when its caller leaves."""
    body = {"model": "model", "stream": True, "messages": [{"role": "user", "content": PROMPTS[0]}]}
    slow = start(TOKENS_PER_SECOND="0.001")
    url = f"{slow}/openai/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=60) as answer:
        assert next(answer.iter_lines()).startswith("data: {")
    with client_of(slow) as client:
        assert client.embeddings.create(model="model", input="lamp").data


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("MODEL_VARIANT", "best", "base or tuned"),
        ("TEMPERATURE", "hot", "a number of at least 0"),
        ("TOKENS_PER_SECOND", "-1", "a number of at least 0"),
    ],
)
def test_a_wrong_setting_ends_the_start(name: str, value: str, remedy: str) -> None:
    """One line with the variable, the value and the remedy."""
    done = subprocess.run(
        [sys.executable, "-m", "model"],
        cwd=FOLDER,
        env={"PATH": os.environ["PATH"], name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"{name} is {value!r}; set it to {remedy}."
