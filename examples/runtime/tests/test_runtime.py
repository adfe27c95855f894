"""MLServer as serving-runtime.yaml starts it, and what is different about its answers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import train
import yaml

FOLDER = Path(train.__file__).parent
RUNTIME = yaml.safe_load((FOLDER / "serving-runtime.yaml").read_text())
[CONTAINER] = RUNTIME["spec"]["containers"]
FLOWER = [6.7, 3.2, 5.0, 1.8]

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13),
    reason="there is no MLServer for Python 3.13; run it on 3.11 or 3.12",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both models."""
    folder = tmp_path_factory.mktemp("iris-models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "MODELS", folder)
        train.main()
    return folder


@pytest.fixture(scope="module")
def client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the first model's server, which has the manifest's settings but for the ports."""
    folder = tmp_path_factory.mktemp("server")
    held = [hold_port() for _ in range(3)]
    ports = (one.getsockname()[1] for one in held)
    env = {item["name"]: item["value"] for item in CONTAINER["env"]}
    env |= {name: str(next(ports)) for name in env if name.endswith("_PORT")}
    env |= {"MLSERVER_MODEL_URI": str(models / "first"), "PATH": os.environ["PATH"]}
    program = Path(sys.executable).with_name(CONTAINER["command"][0])
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [program, "start", models / "first"], cwd=folder, env=env, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{env['MLSERVER_HTTP_PORT']}"
    with httpx.Client(base_url=address, timeout=60) as client:
        try:
            while not is_ready(client):
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield client
        finally:
            server.terminate()
            server.wait()
            for one in held:
                one.close()


def hold_port() -> socket.socket:
    """A socket that keeps its port: only a server that is given the port gets it."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def is_ready(client: httpx.Client) -> bool:
    """What the manifest's readiness probe asks."""
    try:
        answer = client.get(CONTAINER["readinessProbe"]["httpGet"]["path"])
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def infer(client: httpx.Client, data: list[float], **more: Any) -> httpx.Response:
    tensor = {"name": "x", "shape": [1, len(data)], "datatype": "FP64", "data": data}
    return client.post("/v2/models/model/infer", json={"inputs": [tensor]} | more)


def test_it_answers_in_the_v2_protocol(client: httpx.Client) -> None:
    """Under the name that the manifest gives, with an id of its own at each call and no version."""
    first, second = infer(client, FLOWER).json(), infer(client, FLOWER).json()
    assert first.pop("id") != second.pop("id")
    assert first == second
    assert first["outputs"][0]["data"] == ["versicolor"]
    assert first["model_name"] == "model"
    assert "model_version" not in first
    assert infer(client, FLOWER, id="mine").json()["id"] == "mine"


def test_the_other_protocol_is_not_there(client: httpx.Client) -> None:
    """Which is why the transformer gets --predictor_protocol v2: v1's probe would never pass."""
    assert client.get("/v1/models/model").status_code == 404
    answer = client.post("/v1/models/model:predict", json={"instances": [FLOWER]})
    assert answer.status_code == 404


def test_json_has_to_be_said(client: httpx.Client) -> None:
    """A body under another type is refused, where KServe's servers and Triton read it."""
    body = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}]}'
    types = ("application/json", "application/x-www-form-urlencoded", "application/octet-stream")
    statuses = [
        client.post(
            "/v2/models/model/infer", content=body, headers={"content-type": kind}
        ).status_code
        for kind in types
    ]
    assert statuses == [200, 422, 422]


def test_a_wrong_number_of_features_is_said_to_be_the_servers_fault(client: httpx.Client) -> None:
    """A 500, so the report counts it as a fault when only one side has it."""
    answer = infer(client, FLOWER[:3])
    assert (answer.status_code, "4 features" in answer.json()["error"]) == (500, True)


def test_the_server_is_ready_without_a_model(client: httpx.Client) -> None:
    """Which is why the readiness probe asks for the model."""
    assert client.post("/v2/repository/models/model/unload").status_code == 200
    try:
        assert not is_ready(client)
        assert client.get("/v2/health/ready").status_code == 200
    finally:
        client.post("/v2/repository/models/model/load")
    assert is_ready(client)
