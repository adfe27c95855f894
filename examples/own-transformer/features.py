"""A feature look-up in front of the model: callers send a customer, the model gets its figures."""

import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferInput, InferRequest
from kserve.errors import InvalidInput

from minimal_transformer.server import serve
from minimal_transformer.transformer import PersistTransformer

FOLDER = Path(__file__).parent


class Features(PersistTransformer):
    def load(self) -> bool:
        with (FOLDER / os.environ.get("FEATURES", "customers.csv")).open() as file:
            self.known = {name: [float(f) for f in rest] for name, *rest in csv.reader(file)}
        return bool(super().load())

    async def preprocess(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        if not isinstance(payload, InferRequest):  # a caller of v1
            return {"values": self.figures(payload.get("customer"))}
        [name] = payload.inputs[0].data  # a caller of v2, over REST or gRPC
        values = np.array(self.figures(name if isinstance(name, str) else name.decode()))
        figures = InferInput("values", list(values.shape), "FP64", values.tolist())
        return InferRequest(self.name, [figures], payload.id)

    def figures(self, customer: Any) -> list[float]:
        if customer not in self.known:  # the caller's mistake: a 400, not a 500
            raise InvalidInput(f"customer {customer!r} is not known")
        return self.known[customer]


def main() -> None:
    sys.exit(serve(Features))


if __name__ == "__main__":
    main()
