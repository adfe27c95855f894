"""Trains two models of each kind into models/, and writes requests for `make traffic`."""

import base64
import io
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from xgboost import XGBRegressor

FOLDER = Path(__file__).parent
CALLS = 600

# Openings, things and troubles: each combination is a ticket for the team of its trouble.
OPENINGS = ["Hello,", "Please help:", "Since Monday", "Again", "Dear team,", "I think that"]
THINGS = ["my order", "the last invoice", "the app", "my account", "the parcel", "our plan"]
TROUBLES = {
    "billing": ["was charged twice", "shows a wrong amount", "needs a refund", "has no receipt"],
    "delivery": ["has not arrived", "went to another town", "came open", "is late by a week"],
    "support": ["does not open", "forgot my password", "is slow", "shows an error"],
}


def main() -> None:
    (FOLDER / "models").mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for train in (progress, tickets, digits):
        name, requests = train.__name__, train(random)
        lines = [json.dumps(request) + "\n" for request in itertools.islice(requests, CALLS)]
        (FOLDER / "models" / f"{name}.jsonl").write_text("".join(lines))
        print(f"{name}: two models, {len(lines)} requests")


def progress(random: np.random.Generator) -> Iterable[Any]:
    """The second knows all patients, the first those of the first months."""
    patients, after_a_year = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    for name, count in {"first": 300, "retrained": len(patients)}.items():
        model = XGBRegressor(n_estimators=60, max_depth=3, learning_rate=0.1, random_state=0)
        model.fit(patients[:count], after_a_year[:count])
        model.save_model(FOLDER / "models" / f"progress-{name}.ubj")
    for _ in range(CALLS):
        row = patients.iloc[random.integers(len(patients))].to_dict()
        row["age"] = int(random.integers(20, 80))
        yield {"instances": [row]}


def tickets(random: np.random.Generator) -> Iterable[Any]:
    """The second has read more tickets."""
    texts = [
        (f"{opening} {thing} {trouble}", team)
        for team, troubles in TROUBLES.items()
        for opening, thing, trouble in itertools.product(OPENINGS, THINGS, troubles)
    ]
    shuffled = [texts[at] for at in random.permutation(len(texts))]
    for name, count in {"first": 60, "retrained": 200}.items():
        model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
        model.fit(*zip(*shuffled[:count], strict=True))
        joblib.dump(model, FOLDER / "models" / f"tickets-{name}.joblib")
    for number in range(CALLS):
        text, _ = shuffled[number % len(shuffled)]
        yield {"instances": [f"{text} ({number})"]}


def digits(random: np.random.Generator) -> Iterable[Any]:
    """The second has seen more pictures."""
    known = load_digits()
    pixels = (known.images * 255 / 16).astype(np.uint8)
    flat = pixels.reshape(len(pixels), -1) / 255
    for name, count in {"first": 800, "retrained": len(flat)}.items():
        model = LogisticRegression(max_iter=1000).fit(flat[:count], known.target[:count])
        joblib.dump(model, FOLDER / "models" / f"digits-{name}.joblib")
    for at in random.permutation(len(pixels))[:CALLS]:
        yield {"instances": [{"image": {"b64": as_png(pixels[at])}}]}


def as_png(pixels: Any) -> str:
    """A picture as the text of its file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main()
