"""A transformer with hooks, started as `python -m hooked`: what a user writes."""

from __future__ import annotations

import os
import sys
from typing import Any

import orjson
from kserve import InferRequest, InferResponse
from kserve.errors import InvalidInput

from minimal_transformer.server import serve
from minimal_transformer.transformer import PersistTransformer


class Hooked(PersistTransformer):
    """Adds one to each value on the way in, and a note on the way out."""

    def load(self) -> bool:
        """Where the explainer is: KServe has no argument for it."""
        self.explainer_host = os.environ.get("EXPLAINER_HOST")
        return bool(super().load())

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        """Bytes over REST, an InferRequest over gRPC."""
        if isinstance(payload, InferRequest):
            values = payload.inputs[0].as_numpy() + 1
            payload.inputs[0].set_data_from_numpy(values, binary_data=False)
            return payload
        document = orjson.loads(payload)
        if "values" not in document:
            raise InvalidInput("values is missing")
        if document["values"] == "bug":
            raise ZeroDivisionError("a bug")
        document["values"] = [value + 1 for value in document["values"]]
        return document

    def postprocess(self, result: Any, headers: Any = None) -> Any:
        """Sync and with two arguments, as many transformers are written."""
        if isinstance(result, InferResponse):
            return result
        return orjson.loads(result) | {"note": "hooked"}


if __name__ == "__main__":
    sys.exit(serve(Hooked))
