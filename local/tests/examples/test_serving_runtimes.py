"""examples/runtime: a predictor that names a model and a runtime, as KServe would start it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from calls import post
from waiting import until

from shadow_local.processes import Node, Ports, component_command
from shadow_local.stack import Options, Stack
from shadow_local.supervisor import Command
from shadow_local.translate.document import Manifest, Untranslated, render, repository
from shadow_local.translate.services import inference_services

EXAMPLE = repository() / "examples" / "runtime"
PAIRS = """
SELECT primary_response #>> '{outputs,0,data,0}', shadow_response #>> '{outputs,0,data,0}'
FROM inference_pairs WHERE primary_status = 200 AND shadow_status = 200
"""


@pytest.fixture
def manifests() -> list[Manifest]:
    return render(EXAMPLE)


def predictor(manifests: list[Manifest], folder: Path) -> Command:
    """The primary's predictor as a command; its model is in `folder`."""
    (folder / "iris-models" / "first").mkdir(parents=True)
    node = Node(repository(), folder, lambda *_: "x", lambda uri: uri, folder)
    service = inference_services(manifests)[0]
    return component_command(service, service.predictor, Ports(1, 2), 3, node)[0]


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Any]:
    """The spec of the first object of a kind."""
    return next(item["spec"] for item in manifests if item["kind"] == kind)


def test_a_runtime_gets_the_model_and_the_ports_of_this_machine(
    manifests: list[Manifest], tmp_path: Path
) -> None:
    """In its variables and its arguments; nothing that only KServe's own servers understand."""
    [container] = of_kind(manifests, "ServingRuntime")["containers"]
    container["args"] += ["--http-port=8080", "--grpc_port", "9000", "--name={{.Name}}"]
    command = predictor(manifests, tmp_path)
    model = str(tmp_path / "iris-models" / "first")
    assert command.words[2:5] == ("mlserver.cli.main", "start", model)
    name = inference_services(manifests)[0].name
    assert command.words[5:] == ("--http-port=1", "--grpc_port", "2", f"--name={name}")
    assert command.env["MLSERVER_MODEL_URI"] == model
    assert (command.env["MLSERVER_HTTP_PORT"], command.env["MLSERVER_GRPC_PORT"]) == ("1", "2")
    assert command.env["MLSERVER_METRICS_PORT"] not in ("8082", "1", "2")
    assert "http://127.0.0.1:1/v2/models/model/ready" in command.probes


def test_a_model_adds_to_what_its_runtime_says(manifests: list[Manifest], tmp_path: Path) -> None:
    """Arguments are appended and variables of the same name replaced, as KServe does."""
    model = of_kind(manifests, "InferenceService")["predictor"]["model"]
    model["args"] = ["--verbose"]
    model["env"] = [{"name": "MLSERVER_MODEL_NAME", "value": "mine"}]
    command = predictor(manifests, tmp_path)
    assert command.words[-1] == "--verbose"
    assert command.env["MLSERVER_MODEL_NAME"] == "mine"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model, _: model.pop("runtime"), r"model\.runtime is missing; name a .*'mlserver'"),
        (lambda model, _: model.update(runtime="other"), r"runtime is 'other'; name a Serving"),
        (lambda model, _: model.update(storageUri="s3://a/b"), r"'s3://a/b'; only pvc.*on top"),
        (lambda model, _: model.update(storageUri="pvc://a/../b"), r"only pvc://"),
        (lambda model, _: model.update(storageUri="pvc://gone/x"), r"no folder .*/gone/x; put the"),
        (
            lambda model, _: model.update(runtimeVersion="1"),
            r"model\.runtimeVersion is '1'; the lo",
        ),
        (
            lambda _, runtime: runtime.update(replicas=1),
            r"ServingRuntime mlserver: .*replicas is 1",
        ),
        (lambda _, runtime: runtime["containers"].append({}), r"one container is run"),
        (
            lambda _, runtime: runtime["containers"][0]["args"].append("{{.Labels.a}}"),
            r"may refer to \{\{\.Name\}\}.* alone; write out \{\{\.Labels\.a\}\}",
        ),
    ],
)
def test_what_cannot_be_run_here_is_refused(
    manifests: list[Manifest],
    tmp_path: Path,
    change: Callable[[dict[str, Any], dict[str, Any]], object],
    reason: str,
) -> None:
    """With the object, the field and the remedy."""
    model = of_kind(manifests, "InferenceService")["predictor"]["model"]
    change(model, of_kind(manifests, "ServingRuntime"))
    with pytest.raises(Untranslated, match=reason):
        predictor(manifests, tmp_path)


@pytest.mark.skipif(
    not [*EXAMPLE.glob(".venv/lib/*/site-packages/mlserver")],
    reason="MLServer is not installed; `make install PROJECT=examples/runtime` does, before 3.13",
)
def test_two_models_in_a_runtime_are_a_pair(tmp_path: Path) -> None:
    """MLServer answers through the recording transformer; the shadow's label is in the tables."""
    python = EXAMPLE / ".venv" / "bin" / "python"
    subprocess.run([python, EXAMPLE / "train.py"], check=True)
    stack = Stack(Options(tmp_path, EXAMPLE))
    try:
        state = stack.start()
        assert state.predict_url.endswith("/mirrored-inference/v2/models/model/infer")
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [6.7, 3.2, 5.0, 1.8]}
        body = json.dumps({"inputs": [tensor]}).encode()
        status, _, answer = post(state.predict_url, body, [("content-type", "application/json")])
        assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, ["versicolor"])

        def pairs() -> list[tuple[str, str]]:
            with psycopg.connect(stack.database.of_role("report")) as connection:
                return connection.execute(PAIRS).fetchall()

        until(lambda: len(pairs()) == 1)
        assert pairs() == [("versicolor", "virginica")]
    finally:
        stack.stop()
