"""XGBoost with named features: how far a disease goes within a year; MODEL_FILE is in models/."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
from kserve import InferRequest, Model
from kserve.errors import InvalidInput
from kserve.utils.utils import get_predict_response
from serving import serve_model
from xgboost import XGBRegressor

MODELS = Path(__file__).parent / "models"


class Progress(Model):
    def load(self) -> bool:
        self.model = XGBRegressor(n_jobs=1)  # one row at a time needs no threads
        self.model.load_model(MODELS / os.environ["MODEL_FILE"])
        self.features = self.model.get_booster().feature_names
        if self.features is None:
            raise ValueError(
                "the model has no feature names; set get_booster().feature_names and save it"
            )
        self.ready = True
        return True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        try:
            if isinstance(payload, InferRequest):  # v2: a tensor for each feature
                rows: Any = {part.name: part.as_numpy().ravel() for part in payload.inputs}
            else:  # v1: an object for each row
                rows = payload["instances"]
            known = pd.DataFrame(rows)[self.features].astype(float)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"send a number for each of {self.features}: {error}") from None
        return get_predict_response(payload, self.model.predict(known), self.name)


def main() -> None:
    serve_model(Progress)


if __name__ == "__main__":
    main()
