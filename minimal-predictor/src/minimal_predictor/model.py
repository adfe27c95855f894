"""The model that users replace: KServe calls `predict`, everything else here is served as it is."""

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferInput
from numpy.typing import NDArray

from minimal_predictor.bad_input import BadInput, show, show_shape
from minimal_predictor.inputs import (
    DATATYPES,
    Doubles,
    multiply,
    read_array,
    read_tensor,
    read_v1,
)
from minimal_predictor.nesting import require_shape


class Multiplier(Model):
    """Multiplies every number by the factor: v1 (a dict) and v2 over REST and gRPC."""

    def __init__(self, name: str, factor: float) -> None:
        super().__init__(name)
        self.factor = factor

    def load(self) -> bool:
        """Ready: there is nothing to load. A model of yours reads its file here."""
        self.ready = True
        return True

    def validate(self, payload: object) -> object:
        """The payload as it is: `predict` checks it, and says more than KServe would."""
        return payload

    async def predict(
        self, payload: object, headers: dict[str, str] | None = None
    ) -> dict[str, object] | InferResponse:
        """The answer in the protocol of the request; InvalidInput names what is wrong with it."""
        try:
            if isinstance(payload, InferRequest):
                return self._predict_v2(payload)
            field, numbers = read_v1(payload)
            return {"predictions": multiply(field, numbers, self.factor)}
        except BadInput as error:
            raise InvalidInput(str(error)) from None

    def _predict_v2(self, request: InferRequest) -> InferResponse:
        outputs: dict[str, InferOutput] = {}
        for i, tensor in enumerate(request.inputs):
            if tensor.name in outputs:
                raise BadInput(f"inputs[{i}].name is {show(tensor.name)} a second time; rename it.")
            outputs[tensor.name] = self._output(f"inputs[{i}]", tensor, request)
        asked = [output.name for output in request.request_outputs or ()]
        for i, name in enumerate(asked):
            if name not in outputs:
                known = ", ".join(map(show, outputs))
                raise BadInput(f"outputs[{i}].name is {show(name)}; ask for one of {known}.")
        return InferResponse(
            response_id=request.id,
            model_name=self.name,
            infer_outputs=[outputs[name] for name in asked or outputs],
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )

    def _output(self, where: str, tensor: InferInput, request: InferRequest) -> InferOutput:
        """One tensor times the factor: FP32 from FP16 and FP32, FP64 from everything else."""
        numbers = read_input(where, tensor, request)
        narrow = tensor.datatype in ("FP16", "FP32")
        product: NDArray[np.floating] = multiply(
            f"{where}.data", numbers, self.factor, np.float32 if narrow else np.float64
        )
        output = InferOutput(
            name=tensor.name,
            shape=list(tensor.shape),
            datatype="FP32" if narrow else "FP64",
            data=product.reshape(tensor.shape),
        )
        if request.from_grpc:
            # In the form of the question: typed contents or raw ones.
            output.set_data_from_numpy(output.data, binary_data=request.use_binary_outputs)
        return output


def read_input(where: str, tensor: InferInput, request: InferRequest) -> Doubles:
    """The numbers of a v2 input, flat, whether they came as JSON, protobuf or bytes."""
    if tensor.datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise BadInput(f"{where}.datatype is {show(tensor.datatype)}; send one of {known}.")
    shape = tensor.shape
    require_shape(where, shape)
    raw = request.from_grpc and request.use_binary_outputs
    if isinstance(tensor.data, list) and not raw:
        return read_tensor(where, tensor.datatype, shape, tensor.data)
    try:
        array = tensor.as_numpy()
    except ValueError:
        raise BadInput(
            f"{where} has bytes that do not fill {tensor.datatype} of shape"
            f" {show_shape(shape)}; send as many as the shape holds."
        ) from None
    return read_array(where, array)
