"""A scikit-learn model as a KServe predictor; MODEL_FILE names its file in models/."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import joblib
from kserve import Model, model_server
from kserve.errors import InvalidInput

from minimal_predictor.server import serve

MODELS = Path(__file__).parent / "models"


class Classifier(Model):
    def load(self) -> bool:
        self.model = joblib.load(MODELS / os.environ["MODEL_FILE"])
        self.ready = True
        return True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            return {"predictions": self.model.predict(payload["instances"]).tolist()}
        except (KeyError, TypeError, ValueError) as error:  # the caller's mistake: a 400, not a 500
            reason = f'send {{"instances": [[...]]}} as application/json: {error!r}'
            raise InvalidInput(reason) from None


def main() -> None:
    arguments = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    model = Classifier(arguments.model_name)
    try:
        model.load()
    except (KeyError, FileNotFoundError) as error:
        sys.exit(f"MODEL_FILE is not in models/ ({error}); run train.py, or set it to your own.")
    serve(model)  # KServe's own server, closed: nobody can make it unload the model


if __name__ == "__main__":
    main()
