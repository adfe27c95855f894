"""Hooks for PREPROCESS and POSTPROCESS: a tokenizer in front of a model that knows numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from kserve import InferInput, InferRequest, InferResponse

VOCABULARY = {"a": 1.0, "good": 2.0, "day": 3.0}


def numbers(text: str) -> list[float]:
    """A text's words as numbers; KeyError for an unknown one, as a first draft has it."""
    return [VOCABULARY[word] for word in text.split()]


async def tokenize(payload: Any, headers: dict[str, str]) -> Any:
    """Text becomes numbers; async, as a look-up elsewhere is."""
    await asyncio.sleep(0)
    if isinstance(payload, bytes):
        return payload.upper()
    if not isinstance(payload, InferRequest):
        headers["x-words"] = str(len(payload["text"].split()))
        return {"values": numbers(payload["text"])}
    [tensor] = payload.inputs
    [text] = tensor.data
    values = np.array(numbers(text if isinstance(text, str) else text.decode()))
    # KServe's default: in binary form.
    counted = InferInput("values", list(values.shape), "FP64")
    counted.set_data_from_numpy(values, binary_data=headers.get("x-form") == "binary")
    return InferRequest(payload.model_name, [counted], payload.id, parameters=payload.parameters)


class Counted:
    """Says in a v1 answer of how many words it was; one instance serves all calls of a process."""

    def __call__(self, result: Any, headers: dict[str, str]) -> Any:
        """Arrays are fine: the answer becomes JSON behind it."""
        if isinstance(result, bytes | InferResponse):
            return result
        return {"predictions": np.array(result["predictions"]), "words": headers["x-words"]}


# What is refused at start.
NOT_A_FUNCTION = 3


def of_one(payload: Any) -> Any:
    """A hook that takes too little."""
    return payload


def postprocess(result: Any, headers: dict[str, str]) -> Any:
    """A hook whose answer JSON cannot hold."""
    return {"predictions": object()}
