"""gRPC through the gateway, as tritonclient speaks it: answered, mirrored and paired like REST."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from backends import refusing, stuck, unreachable
from gateways import Gateways, Running, StartGateway, ports_of, rendered
from stored import rows, wait_for_pairs
from tree import MIRRORED, OPTIONS, Tree
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import InferenceServerException
from waiting import until

from shadow_local.stack import Stack
from shadow_local.translate.document import render

VALUES = [3.3, 62.3, 324.0]
DOUBLED, TRIPLED = [6.6, 124.6, 648.0], pytest.approx([9.9, 186.9, 972.0])
WAYS = {
    name: {"x-serving-path": f"/serving/prokube-demo-profile/{name}"}
    for name in ("mirrored-inference", "double-minimal-inference", "triple-minimal-inference")
}
ENTRY, PRIMARY, SHADOW = WAYS.values()
# What the largest message that KServe's servers take, 8 MiB, leaves for numbers.
MOST_NUMBERS = (8 * 1024 * 1024 - 4096) // 8
# No proxy of this machine's, and room for an answer as large as the question.
OPTIONS_OF_CHANNEL = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 1 << 25)]


def target(url: str) -> str:
    return url.removeprefix("http://")


def infer(
    url: str,
    headers: dict[str, str],
    values: Any = VALUES,
    request_id: str = "",
    parameters: dict[str, str] | None = None,
) -> list[float]:
    """One ModelInfer; the numbers of the answer."""
    array = np.asarray(values, dtype=np.float64)
    tensor = triton.InferInput("input-0", list(array.shape), "FP64")
    tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(target(url), channel_args=OPTIONS_OF_CHANNEL) as client:
        answer = client.infer(
            "model",
            [tensor],
            request_id=request_id,
            headers=headers,
            client_timeout=180,
            parameters=parameters,
        )
        numbers = answer.as_numpy(answer.get_response().outputs[0].name)
    assert numbers is not None
    return [float(number) for number in numbers]


def status_of(url: str, headers: dict[str, str]) -> str | None:
    """The gRPC status that a refused call ends with."""
    with pytest.raises(InferenceServerException) as refused:
        infer(url, headers)
    return refused.value.status()


def gateway_of(stack: Stack, start_gateway: StartGateway, topology: str, **more: Any) -> Running:
    """A gateway of a topology in front of the running stack's transformers."""
    assert stack.state is not None
    primary, shadow = ports_of(stack.state.primary), ports_of(stack.state.shadow)
    gateway: Running = start_gateway(primary, shadow, topology, **more)
    return gateway


@pytest.mark.parametrize("topology", MIRRORED)
def test_calls_are_answered_by_the_primary_and_paired(
    stack: Stack, start_gateway: StartGateway, topology: str
) -> None:
    """60 calls are 60 pairs, each of one request, stored as gRPC by both sides.

    Not more than the limit of open copies, so that a shadow that lags behind loses none.
    """
    gateway = gateway_of(stack, start_gateway, topology)
    ids = [str(uuid.uuid4()) for _ in range(60)]
    with ThreadPoolExecutor(8) as callers:
        for answer in callers.map(lambda i: infer(gateway.url, ENTRY, request_id=i), ids):
            assert answer == DOUBLED
    stored = """SELECT pair_id, role, protocol, pair_source FROM inference_requests
    WHERE request_data->>'id' = ANY(%s)"""
    until(
        lambda: len(rows(stack, stored, ids)) == 120, or_say=lambda: str(rows(stack, stored, ids))
    )
    found = rows(stack, stored, ids)
    pair_ids = [row["pair_id"] for row in found if row["role"] == "primary"]
    assert len(set(pair_ids)) == 60
    assert {(row["protocol"], row["pair_source"]) for row in found} == {
        ("grpc", "x-shadow-pair-id")
    }
    wait_for_pairs(stack, pair_ids)
    pairs = rows(
        stack, "SELECT same_request FROM inference_pairs WHERE pair_id = ANY(%s)", pair_ids
    )
    assert [pair["same_request"] for pair in pairs] == [True] * 60


@pytest.mark.parametrize("topology", MIRRORED)
def test_the_answer_names_its_pair_and_a_forged_one_is_overwritten(
    stack: Stack, start_gateway: StartGateway, topology: str
) -> None:
    """The pair id is in the answer's metadata, and it is the gateway's own."""
    gateway = gateway_of(stack, start_gateway, topology)
    request = messages.ModelInferRequest(model_name="model")
    tensor = request.inputs.add(name="input-0", datatype="FP64", shape=[3])
    tensor.contents.fp64_contents.extend(VALUES)
    with grpc.insecure_channel(target(gateway.url), options=OPTIONS_OF_CHANNEL) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelInferResponse.FromString,
        )
        forged = ENTRY | {"x-shadow-pair-id": "forged", "x-shadow-source": "forged"}
        forged |= {"authorization": "Bearer s3cret"}
        _, answered = call.with_call(request, metadata=tuple(forged.items()), timeout=180)
    pair_id = str(dict(answered.initial_metadata())["x-shadow-pair-id"])
    assert "forged" not in pair_id
    wait_for_pairs(stack, [pair_id])
    query = "SELECT request_headers::text FROM inference_requests WHERE pair_id = ANY(%s)"
    stored = str(rows(stack, query, [pair_id]))
    assert not any(text in stored for text in ("s3cret", "forged"))


@pytest.mark.parametrize("topology", MIRRORED)
def test_each_model_can_be_called_alone(
    stack: Stack, start_gateway: StartGateway, topology: str
) -> None:
    """The header with a model's own path leads to that model, and such a call never pairs."""
    gateway = gateway_of(stack, start_gateway, topology)
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    forged = {"x-shadow-pair-id": ids[0]}
    assert infer(gateway.url, PRIMARY | forged, request_id=ids[0]) == DOUBLED
    assert infer(gateway.url, SHADOW | forged, request_id=ids[1]) == TRIPLED
    stored = """SELECT role, pair_source FROM inference_requests
    WHERE request_data->>'id' = ANY(%s) ORDER BY role"""
    until(lambda: len(rows(stack, stored, ids)) == 2)
    assert [row["role"] for row in rows(stack, stored, ids)] == ["primary", "shadow"]
    assert not [r for r in rows(stack, stored, ids) if r["pair_source"] == "x-shadow-pair-id"]


@pytest.mark.parametrize("topology", MIRRORED)
def test_health_and_metadata_are_answered_and_the_repository_is_not(
    stack: Stack, start_gateway: StartGateway, topology: str
) -> None:
    """A client can ask for readiness; nobody can load or unload a model through the gateway."""
    gateway = gateway_of(stack, start_gateway, topology)
    options = OPTIONS_OF_CHANNEL
    for headers in WAYS.values():
        with triton.InferenceServerClient(target(gateway.url), channel_args=options) as client:
            assert client.is_server_ready(headers=headers)
            assert client.is_model_ready("model", headers=headers)
            assert client.get_model_metadata("model", headers=headers).name == "model"
            with pytest.raises(InferenceServerException) as refused:
                client.unload_model("model", headers=headers)
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
            assert client.is_model_ready("model", headers=headers)


def test_without_the_header_there_is_no_way(stack: Stack, start_gateway: StartGateway) -> None:
    """On a shared gateway nobody's gRPC calls are taken by accident."""
    gateway = gateway_of(stack, start_gateway, "standard")
    for headers in ({}, {"x-serving-path": "/serving/prokube-demo-profile"}):
        assert status_of(gateway.url, headers) == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("topology", MIRRORED)
def test_the_option_api_key_guards_grpc(
    stack: Stack, gateways: Gateways, tmp_path: Path, topology: str
) -> None:
    """Without the key every way is refused, as for REST."""
    assert stack.state is not None
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.replace(OPTIONS, "# - api-key", "- api-key")
    sides = ports_of(stack.state.primary), ports_of(stack.state.shadow)
    gateway = gateways.start_from(render(tree.folder), *sides)
    for headers in WAYS.values():
        assert status_of(gateway.url, headers) == "StatusCode.PERMISSION_DENIED"
        wrong = headers | {"x-api-key": "wrong"}
        assert status_of(gateway.url, wrong) == "StatusCode.PERMISSION_DENIED"
    assert infer(gateway.url, ENTRY | {"x-api-key": "sesame123"}) == DOUBLED


@pytest.mark.parametrize("edge", [False, True], ids=["default buffers", "profile EDGE"])
@pytest.mark.parametrize("fault", [refusing, stuck, unreachable])
def test_a_broken_shadow_holds_no_call_of_any_size(
    stack: Stack, gateways: Gateways, fault: Any, edge: bool
) -> None:
    """No length is announced; as much as KServe's servers take, the gateway holds for a copy."""
    assert stack.state is not None
    with fault() as shadow:
        sides = ports_of(stack.state.primary), shadow.port
        gateway = gateways.start_from(rendered("standard"), *sides, edge=edge)
        for count in (3, 10_000, 100_000, MOST_NUMBERS):
            answer = infer(gateway.url, ENTRY, values=[1.5] * count)
            assert answer == [3.0] * count
