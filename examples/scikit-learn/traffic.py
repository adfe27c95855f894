"""Sends flowers to a predict URL, with X_API_KEY as its key: `traffic.py URL [CALLS]`."""

import os
import sys
from collections import Counter

import httpx
import numpy as np
from sklearn.datasets import load_iris


def main() -> int:
    """Exit code 0 when every call was answered with 200."""
    url, calls = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600
    random = np.random.default_rng(0)
    known = load_iris().data
    flowers = known[random.integers(len(known), size=calls)] + random.normal(0, 0.1, (calls, 4))
    answers: Counter[str] = Counter()
    with httpx.Client(headers={"x-api-key": os.environ.get("X_API_KEY", "")}) as client:
        for flower in flowers.round(1).tolist():
            answer = client.post(url, json={"instances": [flower]})
            answers[answer.text if answer.is_success else f"{answer.status_code}"] += 1
    for text, count in answers.most_common():
        print(f"{count:4} {text}")
    return 0 if all(text.startswith("{") for text in answers) else 1


if __name__ == "__main__":
    sys.exit(main())
