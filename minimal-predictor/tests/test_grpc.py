"""v2 over gRPC, through a real server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from served import Predictor

TYPED = {
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
RAW = {name: np.dtype(name.lower()) for name in TYPED if "INT" in name} | {
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}


def tensor(name: str, datatype: str, shape: list[int], **contents: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape} | (
        {"contents": contents} if contents else {}
    )


def request(*inputs: dict[str, Any], **fields: Any) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(**({"model_name": "model", "inputs": inputs} | fields))


@contextmanager
def refused(code: grpc.StatusCode, message: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as refusal:
        yield
    assert (refusal.value.code(), refusal.value.details()[: len(message)]) == (code, message)


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_answered_typed(predictor: Predictor, datatype: str) -> None:
    """Names, order, shapes and id stay; FP32 from FP32, FP64 from everything else."""
    answer = predictor.infer_grpc(
        request(
            tensor("z", datatype, [2, 2], **{TYPED[datatype]: [1, 2, 3, 4]}),
            tensor("a", "FP64", [], fp64_contents=[0.5]),
            id="call-7",
        )
    )
    assert answer.id == "call-7"
    assert [(o.name, list(o.shape)) for o in answer.outputs] == [("z", [2, 2]), ("a", [])]
    first = answer.outputs[0]
    if datatype == "FP32":
        assert (first.datatype, list(first.contents.fp32_contents)) == ("FP32", [2, 4, 6, 8])
    else:
        assert (first.datatype, list(first.contents.fp64_contents)) == ("FP64", [2, 4, 6, 8])
    assert list(answer.outputs[1].contents.fp64_contents) == [1.0]
    assert not answer.raw_output_contents


@pytest.mark.parametrize("datatype", RAW)
def test_raw_contents_are_answered_raw(predictor: Predictor, datatype: str) -> None:
    """Bytes in, bytes out, also for FP16, which has no typed contents."""
    raw = np.array([[1, 2, 100]], dtype=RAW[datatype]).tobytes()
    answer = predictor.infer_grpc(request(tensor("a", datatype, [1, 3]), raw_input_contents=[raw]))
    (output,) = answer.outputs
    narrow = datatype in ("FP16", "FP32")
    assert (output.datatype, list(output.shape)) == ("FP32" if narrow else "FP64", [1, 3])
    numbers = np.frombuffer(answer.raw_output_contents[0], np.float32 if narrow else np.float64)
    assert numbers.tolist() == [2, 4, 200]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(), "inputs is an empty list"),
        (
            request(tensor("a", "BYTES", [1], bytes_contents=[b"x"])),
            'inputs[0].datatype is "BYTES"',
        ),
        (request(tensor("a", "BOOL", [1], bool_contents=[True])), 'inputs[0].datatype is "BOOL"'),
        (request(tensor("a", "BF16", [1]), raw_input_contents=[b"ab"]), "invalid content type"),
        (request(tensor("a", "fp32", [1], fp32_contents=[1])), "invalid content type"),
        (request(tensor("a", "INT8", [1], int_contents=[128])), "inputs[0].data[0] is 128; send"),
        (
            request(tensor("a", "FP64", [2], fp64_contents=[1, float("nan")])),
            "inputs[0].data[1] is NaN",
        ),
        (
            request(tensor("a", "FP64", [2], fp64_contents=[1, 1e308])),
            "inputs[0].data[1] is 1e+308, and 1e+308 times 2.0 overflows float64",
        ),
        (request(tensor("a", "FP64", [3], fp64_contents=[1])), "inputs[0].data has shape [1]"),
        (request(tensor("a", "FP64", [1], fp32_contents=[1])), "inputs[0].data has shape [0]"),
        (
            request(tensor("a", "FP64", [-1], fp64_contents=[1])),
            "inputs[0].data has shape [1] and inputs[0].shape is [-1]",
        ),
        (
            request(tensor("a", "FP64", [-1, -1]), raw_input_contents=[b"\0" * 8]),
            "inputs[0] is not FP64 of its shape (can only specify one unknown",
        ),
        (
            request(tensor("a", "FP64", [2]), raw_input_contents=[b"\0" * 8]),
            "inputs[0] is not FP64 of its shape (cannot reshape array of size 1 into shape (2,))",
        ),
        (
            request(tensor("a", "FP64", [1]), raw_input_contents=[b"\0" * 8] * 2),
            "the number of inputs (1) does not match",
        ),
        (
            request(tensor("a", "FP64", [1], fp64_contents=[1]), outputs=[{"name": "b"}]),
            'outputs[0].name is "b"',
        ),
    ],
)
def test_mistakes_are_invalid_arguments_with_their_place(
    predictor: Predictor, asked: pb.ModelInferRequest, message: str
) -> None:
    """The same messages as over REST."""
    with refused(grpc.StatusCode.INVALID_ARGUMENT, message):
        predictor.infer_grpc(asked)


def test_another_model_is_not_found(predictor: Predictor) -> None:
    """NOT_FOUND, in KServe's words."""
    asked = request(tensor("a", "FP64", [1], fp64_contents=[1]), model_name="other")
    with refused(grpc.StatusCode.NOT_FOUND, "Model with name other does not exist."):
        predictor.infer_grpc(asked)


def test_probes(predictor: Predictor) -> None:
    """Liveness and readiness over gRPC."""
    with predictor.stub() as stub:
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert stub.ModelReady(pb.ModelReadyRequest(name="model")).ready
