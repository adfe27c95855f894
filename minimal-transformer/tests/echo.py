"""A KServe model that gives back its input tensor, of any datatype, over REST and gRPC.

`python -m echo`: what users write, so that the clients' tests see no arithmetic.
"""

from __future__ import annotations

from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Echo(Model):  # type: ignore[misc]
    """Outputs are named and shaped as the inputs."""

    def load(self) -> bool:
        self.ready = True
        return True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if not isinstance(payload, InferRequest):
            return payload
        outputs = []
        raw = bool(payload.use_binary_outputs) or not payload.from_grpc
        for tensor in payload.inputs:
            output = InferOutput(tensor.name, list(tensor.shape), tensor.datatype)
            output.set_data_from_numpy(tensor.as_numpy(), binary_data=raw)
            outputs.append(output)
        return InferResponse(
            payload.id or "",
            self.name,
            outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    model = Echo("model")
    model.load()
    ModelServer().start([model])
