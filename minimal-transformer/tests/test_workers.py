"""Several worker processes: each records, all is delivered, a killed one is replaced."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from serving import (
    PREDICT,
    SAMPLE,
    SAMPLE_ANSWER,
    Predictor,
    Transformer,
    counts,
    new_pair,
    row,
    until,
)


@pytest.fixture
def workers(
    request: pytest.FixtureRequest, folder: Path, postgres_uri: str, predictor: Predictor
) -> Iterator[Transformer]:
    """A transformer with two workers, or as many as asked for, and a database of its own."""
    count = getattr(request, "param", 2)
    with Transformer(folder, postgres_uri, predictor.address, "--workers", str(count)) as running:
        until(lambda: len(serving_pids(running)) == count, f"{count} workers")
        yield running


def serving_pids(server: Transformer) -> set[int]:
    """The workers that are up: children of the server that listen on its port."""
    listening = set()
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{server.http_port:04X}") and line.split()[3] == "0A"
    }
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = task.parent.name, task.read_text().rpartition(")")[2].split()
            if int(rest[1]) != server.process.pid:
                continue
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if any(f"socket:[{inode}]" in links for inode in inodes):
            listening.add(int(pid))
    return listening


@contextlib.contextmanager
def stopped(pids: set[int]) -> Iterator[None]:
    """These processes do nothing for as long as the block lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("workers", [4], indirect=True)
def test_four_workers_record_every_call(workers: Transformer, postgres_uri: str) -> None:
    """REST in the workers, gRPC in the parent, metrics in any; SIGTERM loses nothing."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: workers.post(PREDICT, SAMPLE), range(396)))
    for pid in serving_pids(workers):
        with stopped(serving_pids(workers) - {pid}):  # so that this one takes the call
            answers.append(workers.post(PREDICT, SAMPLE))
    assert {(a.status, a.body) for a in answers} == {(200, SAMPLE_ANSWER)}
    message = pb.ModelInferRequest(model_name="model")
    message.inputs.add(name="a", datatype="FP32", shape=[1]).contents.fp32_contents.append(1.5)
    pair = new_pair()
    workers.rpc("ModelInfer", message.SerializeToString(), x_shadow_pair_id=pair)
    assert row(postgres_uri, pair)["status_code"] == 200
    assert workers.get("/v1/models/model").status == 200
    metrics = workers.get("/metrics").body.decode()
    assert 'prediction_db_records_total{outcome="spooled"} 401.0' in metrics
    assert workers.stop() == 0, workers.log
    assert counts(postgres_uri) == (401, 401, 0)
    with psycopg.connect(postgres_uri) as connection:
        query = "SELECT count(DISTINCT recorder_id) FROM inference_requests"
        assert connection.execute(query).fetchone() == (5,)


def test_killed_worker_is_replaced_and_its_records_arrive(
    workers: Transformer, postgres_uri: str
) -> None:
    """kill -9 of a worker costs no record of an answered call, and a new one takes over."""
    for _ in range(50):
        assert workers.post(PREDICT, SAMPLE).status == 200
    victim = min(serving_pids(workers))
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(serving_pids(workers) - {victim}) == 2, "a new worker")
    for _ in range(50):
        assert workers.post(PREDICT, SAMPLE).status == 200
    assert workers.stop() == 0, workers.log
    assert counts(postgres_uri) == (100, 100, 0)


def test_workers_end_when_their_parent_is_killed(workers: Transformer) -> None:
    """kill -9 of the parent leaves nobody on the port."""
    pids = serving_pids(workers)
    workers.process.kill()
    workers.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the workers to end")
