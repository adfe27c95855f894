"""A classifier of images: which digit is on a picture; MODEL_FILE is in models/."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from kserve import InferRequest, Model
from kserve.errors import InvalidInput
from kserve.utils.utils import get_predict_response
from PIL import Image
from serving import serve_model

MODELS = Path(__file__).parent / "models"
SIDE = 8  # pixels


class Digits(Model):
    def load(self) -> bool:
        self.model = joblib.load(MODELS / os.environ["MODEL_FILE"])
        self.ready = True
        return True

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        try:
            if isinstance(payload, InferRequest):  # v2: pixels, as a UINT8 tensor of n x 8 x 8
                pixels = payload.inputs[0].as_numpy()
            else:  # v1: files, as text
                files = [base64.b64decode(one["image"]["b64"]) for one in payload["instances"]]
                pixels = np.array([self.pixels(file) for file in files])
            chances = self.model.predict_proba(pixels.reshape(-1, SIDE * SIDE) / 255)
        except (KeyError, TypeError, ValueError, OSError) as error:
            reason = 'send {"instances": [{"image": {"b64": "..."}}]}'
            raise InvalidInput(f"{reason}: {error!r}") from None
        return get_predict_response(payload, chances.round(4), self.name)

    @staticmethod
    def pixels(file: bytes) -> Any:
        return np.asarray(Image.open(io.BytesIO(file)).convert("L").resize((SIDE, SIDE)))


def main() -> None:
    serve_model(Digits)


if __name__ == "__main__":
    main()
