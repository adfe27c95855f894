"""The model that users replace: KServe calls `predict`; everything around it is KServe's."""

import numpy as np
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput

from minimal_predictor.inputs import multiply, read_tensor, read_v1, show


class Multiplier(Model):
    """Multiplies every number by the factor: v1 (a dict) and v2 over REST and gRPC."""

    def __init__(self, name: str, factor: float) -> None:
        super().__init__(name)
        self.factor = factor
        self.ready = True  # a model of yours sets it in `load`, once its file is read

    def validate(self, payload: object) -> object:
        """The payload as it is: `predict` checks it, and says more than KServe would."""
        return payload

    async def predict(
        self, payload: object, headers: dict[str, str] | None = None
    ) -> dict[str, object] | InferResponse:
        """The answer in the protocol of the request; InvalidInput names what is wrong with it."""
        if isinstance(payload, InferRequest):
            return self._predict_v2(payload)
        field, numbers = read_v1(payload)
        return {"predictions": multiply(field, numbers, self.factor).tolist()}

    def _predict_v2(self, request: InferRequest) -> InferResponse:
        outputs: dict[str, InferOutput] = {}
        for i, tensor in enumerate(request.inputs):
            if tensor.name in outputs:
                raise InvalidInput(f"inputs[{i}].name is {show(tensor.name)} again; rename it.")
            outputs[tensor.name] = self._output(f"inputs[{i}]", tensor, request)
        if not outputs:
            raise InvalidInput("inputs is an empty list; send at least one tensor.")
        asked = [output.name for output in request.request_outputs or ()]
        for i, name in enumerate(asked):
            if name not in outputs:
                known = ", ".join(map(show, outputs))
                raise InvalidInput(f"outputs[{i}].name is {show(name)}; ask for one of {known}.")
        return InferResponse(
            # Never one of its own: the answers of two equal models are equal to the byte.
            response_id=request.id or "",
            model_name=self.name,
            infer_outputs=[outputs[name] for name in asked or outputs],
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def _output(self, where: str, tensor: InferInput, request: InferRequest) -> InferOutput:
        """One tensor times the factor: FP32 from FP16 and FP32, FP64 from everything else."""
        raw = request.from_grpc and request.use_binary_outputs
        try:
            values = tensor.as_numpy().ravel().tolist() if raw else tensor.data
        except ValueError as error:
            raise InvalidInput(
                f"{where} is not {tensor.datatype} of its shape ({error})."
            ) from None
        numbers = read_tensor(where, tensor.datatype, tensor.shape, values)
        narrow = tensor.datatype in ("FP16", "FP32")
        type_ = np.float32 if narrow else np.float64
        product = multiply(f"{where}.data", numbers, self.factor, type_)
        output = InferOutput(tensor.name, list(tensor.shape), "FP32" if narrow else "FP64", product)
        if request.from_grpc:
            # In the form of the question: typed contents or raw ones.
            output.set_data_from_numpy(product, binary_data=raw)
        return output
