"""Sends flowers to a v2 predict URL, with X_API_KEY as its key: `traffic.py URL [CALLS]`."""

import json
import os
import sys
import urllib.request
from collections import Counter

import numpy as np
from sklearn.datasets import load_iris


def main() -> None:
    url, calls = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600
    random = np.random.default_rng(0)
    known = load_iris().data
    flowers = known[random.integers(len(known), size=calls)] + random.normal(0, 0.1, (calls, 4))
    answers = Counter(label for flower in flowers.round(3).tolist() for label in ask(url, flower))
    for label, count in answers.most_common():
        print(f"{count:4} {label}")


def ask(url: str, flower: list[float]) -> list[str]:
    """The labels of an answer; HTTPError when it has another status than 200."""
    tensor = {"name": "sizes", "shape": [1, 4], "datatype": "FP64", "data": flower}
    headers = {"content-type": "application/json", "x-api-key": os.environ.get("X_API_KEY", "")}
    request = urllib.request.Request(url, json.dumps({"inputs": [tensor]}).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        labels: list[str] = json.load(answer)["outputs"][0]["data"]
    return labels


if __name__ == "__main__":
    main()
