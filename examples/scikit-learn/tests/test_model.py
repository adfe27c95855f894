"""What the trained models answer, straight from `predict`."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import train
from kserve.errors import InvalidInput
from model import Classifier
from sklearn.datasets import load_iris


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Classifier]:
    """The first model and the retrained one, by the names of their files."""
    monkeypatch.setattr(train, "FOLDER", tmp_path)
    train.main()
    models = {}
    for name in train.FLOWERS:
        monkeypatch.setenv("MODEL_FILE", str(tmp_path / name))
        models[name] = Classifier("model")
        models[name].load()
    return models


def test_retraining_changes_some_answers_and_not_most(models: dict[str, Classifier]) -> None:
    """There is something for the comparison to find."""
    request = {"instances": load_iris().data.tolist()}
    first, retrained = (model.predict(request)["predictions"] for model in models.values())
    differing = sum(a != b for a, b in zip(first, retrained, strict=True))
    assert 1 <= differing <= 15
    assert set(first) == set(retrained) == {"setosa", "versicolor", "virginica"}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"instances": [[6.1, 2.8]]}, "4 features"),
        ({"values": [1]}, "KeyError.*instances"),
        ({"instances": None}, "instances"),
        ([6.1, 2.8], "instances"),
        (b'{"instances": [[6.1, 2.8, 4.7, 1.2]]}', "application/json"),  # of another content type
    ],
)
def test_a_wrong_request_is_the_callers_mistake(
    models: dict[str, Classifier], payload: object, reason: str
) -> None:
    """KServe answers InvalidInput with 400; it says what to send."""
    with pytest.raises(InvalidInput, match=reason) as refusal:
        models["first.joblib"].predict(payload)
    assert 'send {"instances": [[...]]} as application/json: ' in str(refusal.value)


def test_nobody_can_unload_the_model(models: dict[str, Classifier], tmp_path: Path) -> None:
    """The served model refuses load and unload, and answers as before."""
    with socket.socket() as http, socket.socket() as grpc:
        for held in (http, grpc):  # held while the server starts, so that no other process gets it
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
        ports = [str(held.getsockname()[1]) for held in (http, grpc)]
        command = ["model.py", "--http_port", ports[0], "--grpc_port", ports[1]]
        with (tmp_path / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, *command],
                cwd=Path(train.__file__).parent,
                env={"PATH": os.environ["PATH"], "MODEL_FILE": str(tmp_path / "first.joblib")},
                stdout=log,
                stderr=log,
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=60) as client:
                while server.poll() is None:
                    with suppress(httpx.TransportError):
                        client.get("/v1/models/model")
                        break
                    time.sleep(0.1)
                for verb in ("unload", "load"):
                    assert client.post(f"/v2/repository/models/model/{verb}").status_code == 403
                flower = {"instances": [[6.7, 3.2, 5.0, 1.8]]}
                answer = client.post("/v1/models/model:predict", json=flower)
                assert answer.json() == {"predictions": ["versicolor"]}
                # What `curl -d` sends without a -H.
                form = {"content-type": "application/x-www-form-urlencoded"}
                path, body = "/v1/models/model:predict", json.dumps(flower)
                assert client.post(path, content=body, headers=form).json() == answer.json()
                refused = client.post(path, content="instances=6.7", headers=form)
                assert refused.status_code == 400
                assert refused.json()["error"].startswith("body is not JSON (unexpected character")
                assert refused.json()["error"].endswith("; send JSON.")
        finally:
            server.terminate()
            server.wait(60)


@pytest.mark.parametrize("env", [{}, {"MODEL_FILE": "gone.joblib"}])
def test_a_missing_model_file_says_to_train(env: dict[str, str]) -> None:
    """One line, no trace."""
    done = program("model.py", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run train.py, or set it to your own.")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        ([], 2, "usage: traffic.py URL"),
        (["http://127.0.0.1:9/", "many"], 2, "usage: traffic.py URL"),
        (["nowhere"], 2, "'nowhere' is not a URL"),
        (["http://127.0.0.1:9/", "3"], 1, "http://127.0.0.1:9/ does not answer ("),
    ],
)
def test_traffic_that_cannot_be_sent_says_why(words: list[str], code: int, reason: str) -> None:
    """Wrong arguments and a server that is not there end it in a line or two, without a trace."""
    done = program("traffic.py", *words)
    assert done.returncode == code
    assert done.stderr.startswith(reason)
    assert done.stderr.count("\n") <= 2


def program(
    name: str, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the folder's programs."""
    return subprocess.run(
        [sys.executable, Path(train.__file__).with_name(name), *words],
        env={"PATH": os.environ["PATH"]} | (env or {}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
