"""Clients that nobody here wrote: Triton's, KServe's, httpx."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from scripted import ScriptedPredictor
from serving import (
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Predictor,
    Process,
    Transformer,
    new_pair,
    row,
)
from triton import ARRAYS, calls


class Echo(Predictor):
    """The model that gives back its input."""

    def __init__(self, folder: Path) -> None:
        Process.__init__(self, folder, "echo", PYTHONPATH=str(Path(__file__).parent))


@pytest.fixture(scope="module")
def echo(folder: Path) -> Iterator[Echo]:
    with Echo(folder) as running:
        yield running


@pytest.fixture(scope="module")
def over_rest(folder: Path, shared_uri: str, echo: Echo) -> Iterator[Transformer]:
    """In front of a KServe model over REST, with its binary tensors."""
    with Transformer(folder, shared_uri, echo.address) as running:
        yield running


@pytest.fixture(scope="module")
def over_grpc(folder: Path, shared_uri: str, echo: Echo) -> Iterator[Transformer]:
    """In front of a KServe model over gRPC."""
    arguments = ["--predictor_protocol", "grpc-v2"]
    with Transformer(folder, shared_uri, echo.grpc_address, *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def over_json(folder: Path, shared_uri: str, scripted: ScriptedPredictor) -> Iterator[Transformer]:
    """In front of a v2 server that has no binary tensors, as MLServer's defaults."""
    with Transformer(folder, shared_uri, scripted.address, "--predictor_protocol", "v2") as running:
        yield running


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Transformer:
    """One of them, by name."""
    found: Transformer = request.getfixturevalue(request.param)
    return found


# KServe 0.21 has no BF16; the server without it gets JSON numbers.
OF_KSERVE = [datatype for datatype in ARRAYS if datatype != "BF16"]
CASES = [
    *(("over_rest", "grpc", datatype) for datatype in OF_KSERVE),
    *(("over_grpc", "grpc", datatype) for datatype in OF_KSERVE),
    *(("over_json", "grpc", datatype) for datatype in ARRAYS),
    *(("over_rest", "http", datatype) for datatype in OF_KSERVE),
    *(("over_grpc", "http", datatype) for datatype in OF_KSERVE),
]


def ordered(server: Transformer, over: str, datatype: str, **more: object) -> dict[str, object]:
    """One call of Triton's client."""
    address = f"127.0.0.1:{server.http_port}" if over == "http" else server.grpc_address
    return {
        "over": over,
        "address": address,
        "pair": str(uuid.uuid4()),
        "datatype": datatype,
    } | more


@pytest.mark.parametrize(
    ("server", "over"),
    sorted({(name, over) for name, over, _ in CASES}),
    indirect=["server"],
)
def test_every_datatype_comes_back_through_tritons_clients(
    server: Transformer, over: str, shared_uri: str, request: pytest.FixtureRequest
) -> None:
    """With and without named outputs: what was sent is what is received, and recorded."""
    name = request.node.callspec.params["server"]
    datatypes = [datatype for of, by, datatype in CASES if (of, by) == (name, over)]
    orders = [
        ordered(server, over, datatype, outputs=outputs)
        for datatype in datatypes
        for outputs in (None, ["x"])
    ]
    for order, got in zip(orders, calls(orders), strict=True):
        expected = ARRAYS[str(order["datatype"])]
        if order["datatype"] == "FP32":
            expected = np.array(expected, np.float32).tolist()
        assert got == {"count": 2, "values": expected}, order
        assert row(shared_uri, str(order["pair"]))["status_code"] == 200


@pytest.mark.parametrize("server", ["over_rest", "over_grpc", "over_json"], indirect=True)
def test_large_compressed_and_parametrized_calls_of_tritons_grpc_client(
    server: Transformer, shared_uri: str
) -> None:
    """Almost 8 MB of raw tensors, gzip and deflate, parameters, a version."""
    orders = [
        ordered(server, "grpc", "FP32", outputs=["x"], count=1_900_000),
        ordered(server, "grpc", "FP16", outputs=["x"], compression="gzip"),
        ordered(server, "grpc", "INT64", compression="deflate"),
        ordered(server, "grpc", "FP64", parameters={"rank": 3, "trace": "on"}),
    ]
    for order, got in zip(orders, calls(orders), strict=True):
        assert got.get("count") == order.get("count", 2), got
        assert row(shared_uri, str(order["pair"]))["status_code"] == 200


@pytest.mark.parametrize("form", [(True, True), (False, False), (True, False), (False, True)])
def test_binary_in_and_out_of_tritons_http_client(
    over_rest: Transformer, shared_uri: str, form: tuple[bool, bool]
) -> None:
    """Each side in either form, as the call asks for."""
    binary_in, binary_out = form
    order = ordered(
        over_rest, "http", "FP32", outputs=["x"], binary_in=binary_in, binary_out=binary_out
    )
    (got,) = calls([order])
    assert "error" not in got, got
    assert got["values"] == np.array(ARRAYS["FP32"], np.float32).tolist()
    assert row(shared_uri, str(order["pair"]))["status_code"] == 200


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [
        ("INT8", "int_contents", 300),
        ("UINT8", "uint_contents", 256),
        ("INT16", "int_contents", 40000),
    ],
)
@pytest.mark.parametrize("server", ["over_rest", "over_json"], indirect=True)
def test_values_outside_their_datatype_are_the_callers_mistake(
    server: Transformer, shared_uri: str, datatype: str, field: str, value: int
) -> None:
    """INVALID_ARGUMENT, recorded with the message's bytes, and no traceback."""
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    message = pb.ModelInferRequest(model_name="model")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[1])
    getattr(tensor.contents, field).append(value)
    pair, wire = new_pair(), message.SerializeToString()
    with pytest.raises(grpc.RpcError) as refused:
        server.rpc("ModelInfer", wire, x_shadow_pair_id=pair)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = row(shared_uri, pair)
    assert (found["status_code"], bytes(found["request_raw"])) == (400, wire)
    assert "Traceback" not in server.log


def test_kserves_clients(over_rest: Transformer, over_grpc: Transformer, shared_uri: str) -> None:
    """Over REST v2 and gRPC, each in front of either predictor."""
    values = np.array([0.5, 1.5], np.float32)

    def request() -> InferRequest:
        tensor = InferInput("x", [2], "FP32")
        tensor.set_data_from_numpy(values, binary_data=False)
        return InferRequest("model", [tensor])

    async def call(server: Transformer, pairs: list[str]) -> list[list[float]]:
        rest = InferenceRESTClient(RESTConfig(protocol="v2"))
        over_http = await rest.infer(
            f"http://127.0.0.1:{server.http_port}",
            request(),
            model_name="model",
            headers={"x-shadow-pair-id": pairs[0]},
        )
        await rest.close()
        async with InferenceGRPCClient(server.grpc_address) as client:
            metadata = (("x-shadow-pair-id", pairs[1]),)
            over_wire = await client.infer(request(), headers=metadata)
        return [answer.outputs[0].as_numpy().tolist() for answer in (over_http, over_wire)]

    for server in (over_rest, over_grpc):
        pairs = [new_pair(), new_pair()]
        assert asyncio.run(call(server, pairs)) == [values.tolist()] * 2
        assert [row(shared_uri, pair)["status_code"] for pair in pairs] == [200, 200]


def test_httpx(transformer: Transformer, shared_uri: str) -> None:
    """Its defaults, a stream of unknown length, and one connection for many calls."""
    with httpx.Client(base_url=f"http://127.0.0.1:{transformer.http_port}", timeout=120) as client:
        for content in (SAMPLE, iter([SAMPLE[:5], SAMPLE[5:]])):
            pair = new_pair()
            answered = client.post(PREDICT, content=content, headers={"x-shadow-pair-id": pair})
            assert (answered.status_code, answered.content) == (200, SAMPLE_ANSWER)
            assert row(shared_uri, pair)["status_code"] == 200
        answered = client.post(PREDICT, json=json.loads(SAMPLE))
        assert answered.content == SAMPLE_ANSWER
