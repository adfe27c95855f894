"""A classifier of texts: which team a ticket is for; MODEL_FILE is in models/."""

import os
from pathlib import Path
from typing import Any

import joblib
from kserve import InferRequest, Model
from kserve.errors import InvalidInput
from kserve.utils.utils import get_predict_response
from serving import serve_model

MODELS = Path(__file__).parent / "models"


class Tickets(Model):
    def load(self) -> bool:
        self.model = joblib.load(MODELS / os.environ["MODEL_FILE"])
        self.ready = True
        return True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        try:
            if isinstance(payload, InferRequest):  # v2: a BYTES tensor, bytes where it is binary
                found = payload.inputs[0].as_numpy().ravel()
                texts = [text.decode() if isinstance(text, bytes) else str(text) for text in found]
            else:
                texts = payload["instances"]
            teams = self.model.predict(texts).tolist()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(f'send {{"instances": ["text", ...]}}: {error!r}') from None
        return get_predict_response(payload, teams, self.name)


def main() -> None:
    serve_model(Tickets)


if __name__ == "__main__":
    main()
