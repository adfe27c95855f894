"""KServe's own client of the OpenAI API, which takes its types from vLLM.

The example that generates has put KServe's older types in their place; here they are as well.
"""

import sys

from serving import Storyteller

sys.path.append(str(Storyteller.runs_in))
import openai_types  # noqa: F401  before what imports vllm
from kserve.protocol.rest.openai import (
    ChatCompletionRequest,
    CompletionRequest,
    OpenAIProxyModel,
)

sys.path.remove(str(Storyteller.runs_in))

__all__ = ["ChatCompletionRequest", "CompletionRequest", "OpenAIProxyModel"]
