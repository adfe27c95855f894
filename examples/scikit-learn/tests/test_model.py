"""What the trained models answer, straight from `predict`."""

from pathlib import Path

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


def test_a_wrong_request_is_the_callers_mistake(models: dict[str, Classifier]) -> None:
    """KServe answers InvalidInput with 400."""
    with pytest.raises(InvalidInput, match="4 features"):
        models["first.joblib"].predict({"instances": [[6.1, 2.8]]})
