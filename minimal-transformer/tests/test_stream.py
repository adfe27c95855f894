"""Assembling a stream: the same however it is cut, and what OpenAI's client makes of it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import httpx
import openai
from hypothesis import given
from hypothesis import strategies as some
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from streaming import DONE, as_event, event

from minimal_transformer.recording.stream import (
    BUDGET_BYTES,
    GRANT_BYTES,
    Assembly,
    Budget,
    Streamed,
)
from minimal_transformer.recording.tokens import TokenClock, token_counts

MAX_BYTES = 1024 * 1024
texts = some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
deltas = some.fixed_dictionaries(
    {},
    optional={
        "content": some.none() | texts,
        "refusal": some.none() | texts,
        "reasoning_content": texts,
        "tool_calls": some.lists(
            some.fixed_dictionaries(
                {
                    "index": some.integers(0, 2),
                    "function": some.fixed_dictionaries({"arguments": texts}),
                }
            ),
            max_size=2,
        ),
    },
)


def assembled(stream: bytes, *cuts: int, budget: int = BUDGET_BYTES, **options: Any) -> Streamed:
    """What is recorded of a stream that comes in pieces, cut at those places; but for its times."""
    assembly = Assembly(
        Budget(budget), options.pop("max_bytes", MAX_BYTES), TokenClock(0), **options
    )
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in pairwise(places):
        if stream[start:end]:
            assembly.feed(stream[start:end])
    return assembly.finish("done")._replace(ttft_ms=None)


def chunk(number: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": number, "delta": delta, "finish_reason": None}]}


@given(
    pieces=some.lists(some.tuples(some.integers(0, 1), deltas), max_size=12),
    ends=some.sampled_from([b"\n", b"\r\n", b"\r"]),
    cuts=some.lists(some.integers(0, 10_000), max_size=20),
)
def test_it_is_what_openais_client_assembles(
    pieces: list[tuple[int, dict[str, Any]]], ends: bytes, cuts: list[int]
) -> None:
    """For any deltas of several choices, lines that end in any way, and cuts anywhere."""
    opened = [
        chunk(number, {"role": "assistant", "tool_calls": [
            {"index": call, "id": f"c{call}", "type": "function",
             "function": {"name": "f", "arguments": ""}} for call in range(3)]})
        for number in (0, 1)
    ]  # fmt: skip
    events = [as_event(found) for found in [*opened, *(chunk(*piece) for piece in pieces)]]
    stream = b"".join([*events, DONE]).replace(b"\n", ends)
    found = assembled(stream, *cuts)
    assert (found.raw, found.truncated, found.unread) == (None, False, 0)
    state = ChatCompletionStreamState()
    for one in events:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(one.removeprefix(b"data: ")))
    theirs = state.current_completion_snapshot
    ours = json.loads(found.data or b"")
    for mine, choice in zip(ours["choices"], theirs.choices, strict=True):
        message = choice.message.model_dump()
        for name in ("role", "content", "refusal", "reasoning_content"):
            assert mine["message"].get(name) == message.get(name), name
        assert [call["function"]["arguments"] for call in mine["message"]["tool_calls"]] == [
            call.function.arguments for call in choice.message.tool_calls or []
        ]


@given(
    stream=some.lists(
        some.sampled_from(
            [event("x"), DONE, b"data: ", b"\n", b"\r", b":\n\n", b"{", b"}", b"\xff", b"event: a"]
        )
        | some.binary(max_size=9)
    ).map(b"".join),
    cuts=some.lists(some.integers(0, 1000), max_size=12),
    options=some.sampled_from([{}, {"max_bytes": 50}, {"keeps_raw": True}, {"is_read": False}]),
)
def test_any_bytes_are_survived_however_they_are_cut(
    stream: bytes, cuts: list[int], options: dict[str, Any]
) -> None:
    """The result depends on the bytes alone; nothing is kept past the cap; the size is true."""
    one = assembled(stream, **options)
    if cuts and b"\r" not in stream:
        assert assembled(stream, *cuts, **options) == one
    assert one.size == len(stream)
    assert len(one.raw or b"") <= options.get("max_bytes", MAX_BYTES)
    if options.get("keeps_raw"):
        assert one.raw == (stream or None)
    if one.data is not None:
        assert isinstance(json.loads(one.data)["choices"], list)


def test_openais_client_reads_the_same_events() -> None:
    """Its own reader of event streams, on the same bytes: the same number of events."""
    stream = b"".join(
        [b": hello\n\n", event("A").replace(b"\n", b"\r\n"), b"id: 1\n" + event("B"), DONE]
    )
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=stream, headers={"content-type": "text/event-stream"})
    )
    with openai.OpenAI(
        api_key="any", base_url="http://x", http_client=httpx.Client(transport=transport)
    ) as client:
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))
    found = assembled(stream)
    assert found.read == len(chunks) == 2
    said = "".join(one.choices[0].delta.content or "" for one in chunks)
    assert json.loads(found.data or b"")["choices"][0]["message"]["content"] == said


def test_the_budget_of_all_streams_bounds_each() -> None:
    """A stream has its first bytes for nothing; what it takes beyond is given back at its end."""
    budget = Budget(4 * GRANT_BYTES)
    long = [event("word " * 1000) for _ in range(100)]
    many = [Assembly(budget, MAX_BYTES, TokenClock(0)) for _ in range(10)]
    for assembly in many:
        for one in long:
            assembly.feed(one)
    found = [assembly.finish("done") for assembly in many]
    kept = [len(one.data or b"") for one in found]
    assert sum(kept) <= (4 + 10) * GRANT_BYTES + 10 * 1024
    assert min(kept) > GRANT_BYTES // 2
    assert all(one.truncated and one.starved for one in found)
    assert budget.take(4 * GRANT_BYTES)


def test_the_responses_api_has_its_answer_in_its_last_event() -> None:
    """That object is the body; a stream that was cut before it is kept as bytes."""
    whole = {"id": "r", "output": [], "usage": {"input_tokens": 3, "output_tokens": 5}}
    piece = json.dumps({"type": "response.output_text.delta", "delta": "A"}).encode()
    first = b"event: response.output_text.delta\ndata: " + piece + b"\n\n"
    last = json.dumps({"type": "response.completed", "response": whole}).encode()
    found = assembled(first + b"event: response.completed\ndata: " + last + b"\n\n")
    assert json.loads(found.data or b"") == whole
    assert (found.raw, found.unread) == (None, 0)
    assert found.figures["chunks"] == 1
    assert (found.figures["prompt_tokens"], found.figures["completion_tokens"]) == (3, 5)
    cut = assembled(first)
    assert cut.data is None
    assert b"output_text.delta" in (cut.raw or b"")


def test_an_event_of_a_megabyte_is_read_where_there_is_room() -> None:
    """Engines may send a whole answer as one event."""
    text = "y" * (MAX_BYTES // 3)
    found = assembled(event(text) + DONE, *range(0, 400_000, 50_000))
    assert json.loads(found.data or b"")["choices"][0]["message"]["content"] == text
    assert not found.truncated


@given(cuts=some.lists(some.integers(0, 300_000), max_size=5))
def test_an_event_for_which_there_is_no_room_is_bytes_however_it_is_cut(cuts: list[int]) -> None:
    """Its beginning is kept; the events around it are read."""
    stream = event("A") + event("y" * 200_000) + event("B") + DONE
    found = assembled(stream, *cuts, max_bytes=100_000)
    assert (found.read, found.unread, found.truncated) == (2, 1, True)
    assert (found.raw or b"").startswith(event("y" * 200_000)[:90_000])
    assert len(found.raw or b"") <= 100_000


def test_parts_that_are_as_large_as_the_answer_are_left_out_and_named() -> None:
    """The probabilities of each token."""
    found = assembled(event("A", logprobs={"content": [{"token": "A", "logprob": -0.1}]}))
    assert found.figures["omitted"] == ["logprobs"]
    assert "logprobs" not in json.loads(found.data or b"")["choices"][0]


def test_a_text_that_no_jsonb_holds_outranks_bytes() -> None:
    """NUL in an answer: the assembled body is what is kept."""
    found = assembled(event("a\0b") + b"data: {oops\n\n")
    assert found.data is None
    assert json.loads(found.raw or b"")["choices"][0]["message"]["content"] == "a\0b"


def test_token_counts_are_numbers_or_absent() -> None:
    """Engines may send anything."""
    assert token_counts({"prompt_tokens": 1, "completion_tokens": 2}) == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
    }
    assert token_counts({"prompt_tokens": True, "completion_tokens": -1}) == {}
    assert token_counts([1]) == token_counts(None) == {}
