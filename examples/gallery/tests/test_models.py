"""What the trained models answer, straight from `predict`, in each form that a caller may use."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import digits
import numpy as np
import progress
import pytest
import tickets
import train
import yaml
from kserve import InferInput, InferRequest, Model
from kserve.errors import InvalidInput
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
from xgboost import XGBRegressor

FOLDER = Path(train.__file__).parent
KINDS = {"xgboost": progress.Progress, "text": tickets.Tickets, "images": digits.Digits}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models of each kind, and the requests."""
    folder = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "FOLDER", folder)
        train.main()
    return folder / "models"


@pytest.fixture(params=list(KINDS))
def both(
    request: pytest.FixtureRequest, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Model, Model, list[dict[str, Any]]]:
    """A kind's first model and its retrained one, as its kustomization names them; its requests."""
    [manifest] = yaml.safe_load_all((FOLDER / request.param / "kustomization.yaml").read_text())
    models = []
    for patch in manifest["patches"][1:]:
        [change, _] = yaml.safe_load(patch["patch"])
        monkeypatch.setenv("MODEL_FILE", str(trained / change["value"]["value"]))
        models.append(KINDS[request.param]("model"))
        models[-1].load()
    kind = change["value"]["value"].partition("-")[0]
    lines = (trained / f"{kind}.jsonl").read_text().splitlines()
    return models[0], models[1], [json.loads(line) for line in lines]


def test_retraining_changes_some_answers(
    both: tuple[Model, Model, list[dict[str, Any]]],
) -> None:
    """There is something for the comparison to find, and every request has an answer."""
    first, retrained, requests = both
    assert len(requests) == train.CALLS
    answers = [(first.predict(request), retrained.predict(request)) for request in requests]
    assert all(len(a["predictions"]) == len(b["predictions"]) == 1 for a, b in answers)
    assert sum(a != b for a, b in answers) > 0


def test_a_wrong_request_is_the_callers_mistake(
    both: tuple[Model, Model, list[dict[str, Any]]],
) -> None:
    """KServe answers InvalidInput with 400."""
    for wrong in ({"values": [1]}, {"instances": [{"a": 1}]}, {"instances": None}, b"{}"):
        with pytest.raises(InvalidInput, match="send "):
            both[0].predict(wrong)


def loaded(kind: type[Model], file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MODEL_FILE", str(file))
    model = kind("model")
    model.load()
    return model


def test_named_features_are_tensors_in_v2(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor for each, in any order, beside what the model does not know."""
    model = loaded(progress.Progress, trained / "progress-first.ubj", monkeypatch)
    row = json.loads((trained / "progress.jsonl").read_text().splitlines()[0])["instances"][0]
    named = {"unknown": 1.0} | dict(reversed(row.items()))
    inputs = [InferInput(name, [1], "FP64", [value]) for name, value in named.items()]
    answer = model.predict(InferRequest("model", inputs))
    expected = model.predict({"instances": [row]})["predictions"]
    assert answer.outputs[0].as_numpy().tolist() == expected


def test_texts_are_bytes_in_v2(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text over REST, as bytes over gRPC."""
    model = loaded(tickets.Tickets, trained / "tickets-first.joblib", monkeypatch)
    text = "the parcel has not arrived"
    expected = model.predict({"instances": [text]})["predictions"]
    assert expected == ["delivery"]
    over_rest = InferRequest("model", [InferInput("text", [1], "BYTES", [text])])
    assert model.predict(over_rest).outputs[0].data == expected
    message = ModelInferRequest(model_name="model")
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(text.encode())
    assert model.predict(InferRequest.from_grpc(message)).outputs[0].data == expected


def test_pixels_are_a_tensor_in_v2(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same chances for a picture's file and for its pixels."""
    model = loaded(digits.Digits, trained / "digits-first.joblib", monkeypatch)
    sent = json.loads((trained / "digits.jsonl").read_text().splitlines()[0])
    [expected] = model.predict(sent)["predictions"]
    [image] = sent["instances"]
    pixels = model.pixels(digits.base64.b64decode(image["image"]["b64"]))
    tensor = InferInput("pixels", [1, 8, 8], "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(pixels)[None], binary_data=True)
    [output] = model.predict(InferRequest("model", [tensor])).outputs
    assert output.as_numpy().tolist() == [expected]


def test_a_missing_model_file_says_to_train() -> None:
    """One line, no trace."""
    done = subprocess.run(
        [sys.executable, "-m", "tickets"],
        cwd=FOLDER,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("run train.py, or set it to your own.")
    assert "Traceback" not in done.stderr


def test_a_model_without_names_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XGBoost keeps no names of an array's columns, and callers name each."""
    unnamed = XGBRegressor(n_estimators=1).fit(np.eye(3), np.arange(3))
    unnamed.save_model(tmp_path / "unnamed.ubj")
    monkeypatch.setenv("MODEL_FILE", str(tmp_path / "unnamed.ubj"))
    with pytest.raises(ValueError, match="has no feature names"):
        progress.Progress("model").load()
