"""KServe's OpenAI endpoints without vLLM: import this before kserve.protocol.rest.openai.

KServe 0.21 serves the OpenAI protocol itself, but takes the types of requests and answers from
vLLM, which would install 212 packages, CUDA among them. KServe also ships types of its own,
generated from OpenAI's specification, that nothing imports any more. Here they stand where KServe
looks for vLLM's, with the newer fields that clients send added.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import kserve
from pydantic import BaseModel, ConfigDict, Field


def _kserve_types() -> Any:
    """KServe's generated module; by its path, because its package wants vLLM."""
    path = Path(kserve.__file__).parent / "protocol" / "rest" / "openai" / "types" / "openapi.py"
    spec = importlib.util.spec_from_file_location("kserve_openapi", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is missing; this was written for kserve 0.21.")
    module = sys.modules["kserve_openapi"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


openapi = _kserve_types()


class ChatCompletionRequest(openapi.CreateChatCompletionRequest):
    model_config = ConfigDict(extra="allow")

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    stream_options: dict[str, Any] | None = None


class ChatCompletionChunk(openapi.CreateChatCompletionStreamResponse):
    usage: openapi.CompletionUsage | None = None


class CompletionRequest(openapi.CreateCompletionRequest):
    model_config = ConfigDict(extra="allow")

    stream_options: dict[str, Any] | None = None


class EmbeddingData(openapi.Embedding):
    embedding: list[float] | str  # numbers, or base64 when the caller asks for it


class EmbeddingResponse(openapi.CreateEmbeddingResponse):
    data: list[EmbeddingData]


class RerankRequest(BaseModel):
    model: str


def _with_cancellation(handler: Any) -> Any:
    """vLLM's ends a call whose caller has left; these answers are short enough to go on."""
    return handler


# Where kserve.protocol.rest.openai looks, and what it finds there.
_NAMES: dict[str, dict[str, Any]] = {
    "openai.chat_completion.protocol": {
        "ChatCompletionRequest": ChatCompletionRequest,
        "ChatCompletionResponse": openapi.CreateChatCompletionResponse,
        "ChatCompletionResponseChoice": openapi.Choice1,
        "ChatMessage": openapi.ChatCompletionResponseMessage,
        "ChatCompletionStreamResponse": ChatCompletionChunk,
        "ChatCompletionResponseStreamChoice": openapi.Choice3,
        "ChatCompletionLogProb": openapi.TopLogprob,
        "ChatCompletionLogProbs": openapi.Logprobs2,
        "ChatCompletionLogProbsContent": openapi.ChatCompletionTokenLogprob,
    },
    "openai.completion.protocol": {
        "CompletionRequest": CompletionRequest,
        "CompletionResponse": openapi.CreateCompletionResponse,
        "CompletionResponseChoice": openapi.Choice,
        "CompletionStreamResponse": openapi.CreateCompletionResponse,
        "CompletionResponseStreamChoice": openapi.Choice,
        "CompletionLogProbs": openapi.Logprobs,
    },
    "openai.engine.protocol": {
        "DeltaMessage": openapi.ChatCompletionStreamResponseDelta,
        "UsageInfo": openapi.CompletionUsage,
        "ModelCard": openapi.Model,
        "ModelList": openapi.ListModelsResponse,
    },
    "pooling.embed.protocol": {
        "EmbeddingRequest": openapi.CreateEmbeddingRequest,
        "EmbeddingCompletionRequest": openapi.CreateEmbeddingRequest,
        "EmbeddingResponse": EmbeddingResponse,
        "EmbeddingResponseData": EmbeddingData,
    },
    "pooling.scoring.protocol": {"RerankRequest": RerankRequest, "RerankResponse": BaseModel},
    "chat_utils": dict.fromkeys(
        (
            "ChatCompletionAssistantMessageParam",
            "ChatCompletionContentPartParam",
            "ChatCompletionContentPartTextParam",
            "ChatCompletionMessageParam",
            "ChatCompletionToolMessageParam",
            "ConversationMessage",
            "CustomChatCompletionMessageParam",
        ),
        dict[str, Any],
    ),
    "serve.utils.api_utils": {"with_cancellation": _with_cancellation},
}

for _name, _members in _NAMES.items():
    _module = sys.modules[f"vllm.entrypoints.{_name}"] = ModuleType(f"vllm.entrypoints.{_name}")
    _module.__dict__.update(_members)
