"""What the probes say, and that they change nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from scripted import ScriptedPredictor, body
from serving import PREDICT, Transformer, until

LIVENESS = ("/", "/v2/health/live")
READINESS = ("/v1/models/model", "/v2/models/model/ready", "/v2/health/ready")


def is_ready(server: Transformer) -> bool:
    """What gRPC's ModelReady says."""
    wire = server.rpc("ModelReady", pb.ModelReadyRequest(name="model").SerializeToString())
    return bool(pb.ModelReadyResponse.FromString(wire).ready)


def test_ready_when_the_predictor_is(transformer: Transformer) -> None:
    """All probes agree."""
    assert {transformer.get(path).status for path in (*LIVENESS, *READINESS)} == {200}
    assert is_ready(transformer)


def test_not_ready_without_the_predictor_but_alive(away: Transformer) -> None:
    """Readiness tells of the predictor, liveness of the process alone; no trace fills the log."""
    assert {away.get(path).status for path in LIVENESS} == {200}
    assert {away.get(path).status for path in READINESS} == {503}
    assert not is_ready(away)
    assert "Traceback" not in away.log


def test_readiness_follows_the_predictor(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """Inference goes on meanwhile: its failures are answers and records of their own."""
    assert fronting.get(READINESS[0]).status == 200
    scripted.ready = False
    until(lambda: fronting.get(READINESS[0]).status == 503, "not ready")
    assert fronting.post(PREDICT, body("answer")).status == 200
    scripted.ready = True
    until(lambda: fronting.get(READINESS[0]).status == 200, "ready again")


def test_many_probes_ask_the_predictor_once(
    fronting: Transformer, scripted: ScriptedPredictor
) -> None:
    """Probes within a second share one question, however many seconds they take here."""
    until(lambda: fronting.get(READINESS[0]).status == 200, "ready")
    asked, began = scripted.ready_asked, time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: fronting.get(READINESS[0]).status, range(60)))
    assert set(statuses) == {200}
    assert scripted.ready_asked - asked <= 2 + (time.monotonic() - began)


def test_ready_without_postgres(no_postgres: Transformer) -> None:
    """A database that is away never takes a pod out of service."""
    assert {no_postgres.get(path).status for path in READINESS} == {200}
    assert no_postgres.post(PREDICT, body("answer")).status == 200


def test_model_cannot_be_unloaded_over_rest(transformer: Transformer) -> None:
    """Both calls are refused, and the model serves on."""
    for action in ("load", "unload"):
        answered = transformer.post(f"/v2/repository/models/model/{action}", b"")
        assert answered.status == 403
    assert transformer.get(READINESS[0]).status == 200


def test_model_cannot_be_unloaded_over_grpc(transformer: Transformer) -> None:
    """Both calls are refused, and the model serves on."""
    for action in ("Load", "Unload"):
        message = getattr(pb, f"RepositoryModel{action}Request")(model_name="model")
        with pytest.raises(grpc.RpcError) as refused:
            transformer.rpc(f"RepositoryModel{action}", message.SerializeToString())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert is_ready(transformer)


def test_model_known_over_another_protocol_is_said(folder: Path, shared_uri: str) -> None:
    """A server of v2 alone, as MLServer: not ready, and the remedy is the protocol's argument."""
    with ScriptedPredictor() as predictor:
        predictor.not_found = ("/v1/",)
        with Transformer(folder, shared_uri, predictor.address) as server:
            assert server.get(READINESS[0]).status == 503
            until(lambda: "is not ready" in server.log, "the remedy")
            assert "it does over v2: set --predictor_protocol v2." in server.log
            predictor.not_found = ("/v1/", "/v2/")
        with Transformer(folder, shared_uri, predictor.address) as server:
            assert server.get(READINESS[0]).status == 503
            until(lambda: "is not ready" in server.log, "the remedy")
            assert (
                "set --model_name to the name that the predictor serves, or, for one" in server.log
            )
