"""A transformer with hooks, started as `python -m hooked`: what a KServe user has already."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from kserve import InferInput, InferRequest, InferResponse
from kserve.errors import InvalidInput

from minimal_transformer.server import serve
from minimal_transformer.transformer import PersistTransformer

# A feature look-up: what the model knows of a customer.
FEATURES = {"ann": [1, 2], "bob": [3, 4]}


class Hooked(PersistTransformer):
    """Adds one to each value on the way in, and a note on the way out."""

    def load(self) -> bool:
        """Where the explainer is: KServe has no argument for it."""
        self.explainer_host = os.environ.get("EXPLAINER_HOST")
        return bool(super().load())

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        """A dict from callers of v1, an InferRequest from those of v2, over REST and gRPC."""
        if isinstance(payload, InferRequest):
            values = payload.inputs[0].as_numpy() + 1
            payload.inputs[0].set_data_from_numpy(values, binary_data=False)
            return payload
        if "customer" in payload:  # its features go to v2, whatever the caller speaks
            headers["form"] = "v1"
            features = np.array(FEATURES[payload["customer"]], dtype=np.float64)
            tensor = InferInput("values", [len(features)], "FP64", features)
            return InferRequest(self.name, [tensor])
        if "values" not in payload:
            raise InvalidInput("values is missing")
        if payload["values"] == "nothing":
            return None
        payload["values"] = [value + 1 for value in payload["values"]]
        return payload

    def postprocess(self, result: Any, headers: Any = None) -> Any:
        """Sync and with two arguments, as many transformers are written."""
        if isinstance(result, InferResponse):
            if headers.get("form") == "v1":
                return {"predictions": result.outputs[0].as_numpy()}
            return result
        return result | {"note": "hooked"}


if __name__ == "__main__":
    sys.exit(serve(Hooked))
