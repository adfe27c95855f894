"""A generative model on KServe's OpenAI classes that needs no weights: it recombines a text.

MODEL_VARIANT is base or tuned: tuned has read more, refuses more and rounds its embeddings.
TEMPERATURE is for requests that name none; at 0, the default, the same prompt gets the same answer.
TOKENS_PER_SECOND is how fast the model talks; 0, the default, is at once.
"""

import argparse
import asyncio
import base64
import json
import math
import os
import random
import re
import struct
import sys
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import openai_types as types
from kserve import model_server
from kserve.protocol.rest.openai import OpenAIEncoderModel, OpenAIGenerativeModel
from kserve.protocol.rest.openai.errors import create_error_response
from words import Followers, Reply

from minimal_predictor.server import serve

openapi = types.openapi
Events = AsyncGenerator[str, None]

REFUSAL = "I'm sorry, but I can't help with that."
# What response_format json_object leaves open.
ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


@dataclass
class Variant:
    texts: list[str]
    refused: list[str]
    digits: int  # of an embedding's numbers


VARIANTS = {
    "base": Variant(["text.txt"], ["password"], 6),
    "tuned": Variant(["text.txt", "text-tuned.txt"], ["password", "salary"], 2),
}


@dataclass
class Answer:
    """What is said: tokens that join to the text, or to the arguments of a tool call."""

    tokens: list[str]
    finish_reason: str
    tool: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)


class Storyteller(OpenAIGenerativeModel, OpenAIEncoderModel):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.variant = os.environ.get("MODEL_VARIANT", "base")
        if self.variant not in VARIANTS:
            sys.exit(f"MODEL_VARIANT is {self.variant!r}; set it to {' or '.join(VARIANTS)}.")
        self.temperature = _setting("TEMPERATURE")
        self.tokens_per_second = _setting("TOKENS_PER_SECOND")
        self.traits = VARIANTS[self.variant]
        texts = (Path(__file__).with_name(text).read_text() for text in self.traits.texts)
        self.followers = Followers(line for text in texts for line in text.splitlines())

    async def create_chat_completion(
        self, request: types.ChatCompletionRequest, raw_request: Any = None, context: Any = None
    ) -> Any:
        prompt = "\n".join(
            f"{message['role']}: {_text_of(message)}" for message in request.messages
        )
        limit = request.max_completion_tokens or request.max_tokens or 256
        answers = [self._answer(request, prompt, limit, index) for index in range(request.n or 1)]
        usage = _usage(prompt, answers)
        head = self._head("chatcmpl", request.model)
        if request.stream:
            return self._chat_events(head, answers, usage if _wants_usage(request) else None)
        await self._talk(usage.completion_tokens)
        choices = [_chat_choice(index, answer) for index, answer in enumerate(answers)]
        return openapi.CreateChatCompletionResponse(
            **head, object="chat.completion", choices=choices, usage=usage
        )

    async def create_completion(
        self, request: types.CompletionRequest, raw_request: Any = None, context: Any = None
    ) -> Any:
        prompts = _several(request.prompt or "")
        limit = 16 if request.max_tokens is None else request.max_tokens
        numbers = range(request.n or 1)
        answers = [self._answer(request, p, limit, number) for p in prompts for number in numbers]
        usage = _usage(" ".join(prompts), answers)
        head = self._head("cmpl", request.model)
        if request.stream:
            return self._text_events(head, answers, usage if _wants_usage(request) else None)
        await self._talk(usage.completion_tokens)
        choices = [
            _text_choice(i, answer.text, answer.finish_reason) for i, answer in enumerate(answers)
        ]
        return openapi.CreateCompletionResponse(
            **head, object="text_completion", choices=choices, usage=usage
        )

    async def create_embedding(
        self, request: Any, raw_request: Any = None, context: Any = None
    ) -> Any:
        texts = _several(request.input)
        data = []
        for index, text in enumerate(texts):
            vector: list[float] | str = self._vector(text, request.dimensions or 16)
            if request.encoding_format == "base64":
                vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            data.append(types.EmbeddingData(index=index, embedding=vector, object="embedding"))
        tokens = len(_tokens(" ".join(texts)))
        usage = openapi.Usage(prompt_tokens=tokens, total_tokens=tokens)
        return types.EmbeddingResponse(data=data, model=request.model, object="list", usage=usage)

    async def create_rerank(
        self, request: Any, raw_request: Any = None, context: Any = None
    ) -> Any:
        return create_error_response(f"Model {self.name} does not support Rerank API")

    def _answer(self, request: Any, prompt: str, limit: int, number: int) -> Answer:
        temperature = self.temperature
        if "temperature" in request.model_fields_set and request.temperature is not None:
            temperature = request.temperature
        seed = None if request.seed is None else f"{request.seed} {number}"
        reply = Reply(self.followers, prompt, temperature, seed)
        tool = None
        if any(word in prompt.lower() for word in self.traits.refused):
            text = REFUSAL
        elif tool := _called_tool(request):
            text = json.dumps(reply.value(tool.get("parameters") or {"type": "object"}))
        elif schema := _wanted_schema(request):
            text = json.dumps(reply.value(schema))
        else:
            text = " ".join(reply.words())
        tokens = _tokens(text)
        reason = "length" if len(tokens) > limit else "tool_calls" if tool else "stop"
        return Answer(tokens[:limit], reason, tool["name"] if tool else None)

    async def _chat_events(self, head: dict[str, Any], answers: list[Answer], usage: Any) -> Events:
        def event(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> str:
            choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
            return _event(types.ChatCompletionChunk(**head, choices=[choice]))

        head |= {"object": "chat.completion.chunk"}
        for index, answer in enumerate(answers):
            yield event(index, _opening(answer))
        async for index, token in self._tokens_of(answers):
            call = {"index": 0, "function": {"arguments": token}}
            yield event(
                index, {"tool_calls": [call]} if answers[index].tool else {"content": token}
            )
        for index, answer in enumerate(answers):
            yield event(index, {}, answer.finish_reason)
        if usage:
            yield _event(types.ChatCompletionChunk(**head, choices=[], usage=usage))
        yield "data: [DONE]\n\n"

    async def _text_events(self, head: dict[str, Any], answers: list[Answer], usage: Any) -> Events:
        head |= {"object": "text_completion"}
        async for index, token in self._tokens_of(answers):
            choice = _text_choice(index, token, None)
            yield _event(openapi.CreateCompletionResponse(**head, choices=[choice]))
        for index, answer in enumerate(answers):
            choice = _text_choice(index, "", answer.finish_reason)
            yield _event(openapi.CreateCompletionResponse(**head, choices=[choice]))
        if usage:
            yield _event(openapi.CreateCompletionResponse(**head, choices=[], usage=usage))
        yield "data: [DONE]\n\n"

    async def _tokens_of(self, answers: list[Answer]) -> AsyncGenerator[tuple[int, str], None]:
        """The answers' tokens in turn, each when it is said, with the number of its answer."""
        for tokens in zip_longest(*(answer.tokens for answer in answers)):
            for index, token in enumerate(tokens):
                if token is not None:
                    await self._talk(1)
                    yield index, token

    async def _talk(self, tokens: int) -> None:
        if self.tokens_per_second:
            await asyncio.sleep(tokens / self.tokens_per_second)

    def _vector(self, text: str, dimensions: int) -> list[float]:
        """A unit vector that is near that of a text with mostly the same words."""
        sums = [0.0] * dimensions
        for word in text.lower().split() or [""]:
            own = random.Random(word)  # noqa: S311
            sums = [value + own.gauss() for value in sums]
        return [round(value / math.hypot(*sums), self.traits.digits) for value in sums]

    def _head(self, kind: str, model: str) -> dict[str, Any]:
        return {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": self.variant,
        }


def _setting(name: str) -> float:
    text = os.environ.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        sys.exit(f"{name} is {text!r}; set it to a number of at least 0.")
    return value


def _tokens(text: str) -> list[str]:
    """Words with the space before them; they join to the text."""
    return re.findall(r"\s*\S+", text)


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", f"<{part.get('type')}>") for part in content)


def _several(prompt: Any) -> list[str]:
    """A prompt is a text or a list of tokens; several of either are a list."""
    if not isinstance(prompt, list):
        return [prompt]
    return [str(prompt)] if all(isinstance(i, int) for i in prompt) else [str(p) for p in prompt]


def _called_tool(request: Any) -> dict[str, Any] | None:
    """The function that the caller demands, or else the first whose name's last word they wrote."""
    tools = [tool.function.model_dump() for tool in getattr(request, "tools", None) or []]
    if not tools or request.tool_choice == "none" or request.messages[-1]["role"] != "user":
        return None
    if isinstance(request.tool_choice, dict):
        name = request.tool_choice["function"]["name"]
        return next((tool for tool in tools if tool["name"] == name), None)
    asked = _text_of(request.messages[-1]).lower()
    named = (tool for tool in tools if tool["name"].split("_")[-1].lower() in asked)
    return next(named, tools[0] if request.tool_choice == "required" else None)


def _wanted_schema(request: Any) -> dict[str, Any] | None:
    form = getattr(request, "response_format", None) or {}
    if form.get("type") == "json_schema":
        schema: dict[str, Any] = form["json_schema"]["schema"]
        return schema
    return ANY_OBJECT if form.get("type") == "json_object" else None


def _wants_usage(request: Any) -> bool:
    return bool((request.stream_options or {}).get("include_usage"))


def _usage(prompt: str, answers: list[Answer]) -> Any:
    asked, said = len(_tokens(prompt)), sum(len(answer.tokens) for answer in answers)
    return openapi.CompletionUsage(
        prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said
    )


def _call(answer: Answer, arguments: str) -> dict[str, Any]:
    function = {"name": answer.tool, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _opening(answer: Answer) -> dict[str, Any]:
    """The first delta of a streamed answer."""
    said = {"tool_calls": [_call(answer, "") | {"index": 0}]} if answer.tool else {"content": ""}
    return {"role": "assistant"} | said


def _chat_choice(index: int, answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if answer.tool else answer.text}
    if answer.tool:
        message["tool_calls"] = [_call(answer, answer.text)]
    return {
        "index": index,
        "message": message,
        "finish_reason": answer.finish_reason,
        "logprobs": None,
    }


def _text_choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None}


def _event(chunk: Any) -> str:
    return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"


def main() -> None:
    arguments = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    serve(Storyteller(arguments.model_name))


if __name__ == "__main__":
    main()
