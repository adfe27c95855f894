"""Sends flowers to a predict URL, with X_API_KEY as its key: `traffic.py URL [CALLS]`."""

import os
import sys
from collections import Counter
from collections.abc import Iterable

import httpx
import numpy as np
from sklearn.datasets import load_iris

USAGE = "usage: traffic.py URL [CALLS]; URL is what `make up` prints behind `ready:`"


def main() -> int:
    """Exit code 0 when every call was answered with 200, 1 when not, 2 for wrong arguments."""
    match sys.argv[1:]:
        case [url]:
            calls = 600
        case [url, number] if number.isdecimal():
            calls = int(number)
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    try:
        answers = send(url, flowers(calls))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        print(f"{url!r} is not a URL\n{USAGE}", file=sys.stderr)
        return 2
    except httpx.TransportError as error:
        print(f"{url} does not answer ({error}); is `make up` running?", file=sys.stderr)
        return 1
    for text, count in answers.most_common():
        print(f"{count:4} {text}")
    return 0 if all(text.startswith("{") for text in answers) else 1


def flowers(count: int) -> list[list[float]]:
    """Flowers near the known ones, the same for the same count."""
    random = np.random.default_rng(0)
    known = load_iris().data
    sizes = known[random.integers(len(known), size=count)] + random.normal(0, 0.1, (count, 4))
    rounded: list[list[float]] = sizes.round(3).tolist()
    return rounded


def send(url: str, instances: Iterable[list[float]]) -> Counter[str]:
    """How often each body came with 200, and each other status."""
    answers: Counter[str] = Counter()
    with httpx.Client(headers={"x-api-key": os.environ.get("X_API_KEY", "")}) as client:
        for flower in instances:
            answer = client.post(url, json={"instances": [flower]})
            answers[answer.text if answer.is_success else f"{answer.status_code}"] += 1
    return answers


if __name__ == "__main__":
    sys.exit(main())
