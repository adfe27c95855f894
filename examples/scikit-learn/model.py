"""A scikit-learn model as a KServe predictor; MODEL_FILE names its file in this folder."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import joblib
from kserve import Model, ModelServer, model_server
from kserve.errors import InvalidInput


class Classifier(Model):
    def load(self) -> bool:
        self.model = joblib.load(Path(__file__).parent / os.environ["MODEL_FILE"])
        self.ready = True
        return True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            return {"predictions": self.model.predict(payload["instances"]).tolist()}
        except (KeyError, TypeError, ValueError) as error:  # the caller's mistake: a 400, not a 500
            raise InvalidInput(f'send {{"instances": [[...]]}}: {error!r}') from None


def main() -> None:
    arguments = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    model = Classifier(arguments.model_name)
    try:
        model.load()
    except (KeyError, FileNotFoundError) as error:
        sys.exit(f"MODEL_FILE names no file here ({error}); run train.py, or set it to your own.")
    ModelServer().start([model])


if __name__ == "__main__":
    main()
