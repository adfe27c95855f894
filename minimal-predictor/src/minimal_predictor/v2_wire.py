"""v2 requests and answers between bytes and KServe's objects, with the binary tensor extension."""

import struct
from typing import Any

import numpy as np
import orjson
from kserve import InferInput, InferRequest, InferResponse
from kserve.protocol.infer_type import RequestedOutput, deserialize_bytes_tensor
from kserve.utils.numpy_codec import to_np_dtype
from numpy.typing import NDArray

from minimal_predictor.bad_input import BadInput, show
from minimal_predictor.body import InferBody, TensorBody

LENGTH_HEADER = "inference-header-content-length"


def json_length(header: str | None, body: bytes) -> int:
    """How many bytes of the body are JSON; the rest are binary tensors."""
    if header is None:
        return len(body)
    if not (header.isascii() and header.isdigit() and int(header[:20]) <= len(body)):
        raise BadInput(
            f"header {LENGTH_HEADER} is {show(header)} for a body of {len(body)} bytes;"
            " send how many of them are JSON."
        )
    return int(header)


def infer_request(model_name: str, body: InferBody, binary: bytes) -> InferRequest:
    """KServe's request; `binary` holds the tensors that the JSON announced, in its order."""
    inputs = []
    for i, tensor in enumerate(body.inputs):
        size = (tensor.parameters or {}).get("binary_data_size")
        data: list[Any] | NDArray[Any]
        if tensor.data is not None:
            data = tensor.data
        elif type(size) is int and 0 <= size <= len(binary):
            data, binary = _tensor(f"inputs[{i}]", tensor, binary[:size]), binary[size:]
        elif size is not None:
            raise BadInput(
                f"inputs[{i}].parameters.binary_data_size is {show(size)} where"
                f" {len(binary)} bytes are left; send the size of the tensor in bytes."
            )
        else:
            raise BadInput(f"inputs[{i}].data is missing; send a list of numbers.")
        inputs.append(
            InferInput(
                name=tensor.name,
                shape=tensor.shape,
                datatype=tensor.datatype,
                data=data,
                parameters=tensor.parameters or {},
            )
        )
    if binary:
        raise BadInput(f"body has {len(binary)} bytes after the last tensor; send none.")
    return InferRequest(
        model_name=model_name,
        infer_inputs=inputs,
        request_id=body.id,
        parameters=body.parameters,
        request_outputs=[RequestedOutput(o.name, o.parameters or {}) for o in body.outputs or ()]
        or None,
    )


def encode(answer: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The answer's body and, when it has binary tensors, the length of its JSON.

    No id comes back where none was sent: KServe would invent one, and the answers of two equal
    models to one request would differ.
    """
    wants_binary = request.use_binary_outputs or any(
        output.binary_data for output in request.request_outputs or ()
    )
    if wants_binary or not all(isinstance(output.data, np.ndarray) for output in answer.outputs):
        content, length = answer.to_rest()
        return (content, length) if isinstance(content, bytes) else (orjson.dumps(content), None)
    # KServe turns arrays into lists one number at a time: 37 ms for 100,000; this takes 5 ms.
    outputs = [
        {"name": o.name, "shape": o.shape, "datatype": o.datatype, "data": o.data.ravel()}
        for o in answer.outputs
    ]
    document = {"model_name": answer.model_name, "outputs": outputs}
    if answer.id is not None:
        document["id"] = answer.id
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), None


def _tensor(where: str, tensor: TensorBody, raw: bytes) -> NDArray[Any]:
    """The values of a binary tensor, flat."""
    datatype = tensor.datatype.upper()
    type_ = to_np_dtype(datatype)
    if type_ is None:
        raise BadInput(f"{where}.datatype is {show(tensor.datatype)}, which KServe does not know.")
    try:
        return deserialize_bytes_tensor(raw) if datatype == "BYTES" else np.frombuffer(raw, type_)
    except (ValueError, struct.error):
        raise BadInput(f"{where} has {len(raw)} bytes, which are no {datatype} tensor.") from None
