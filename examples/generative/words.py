"""A generator without weights: which word may follow which, counted in a text."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any


class Followers:
    """What follows each word of a text; the empty word stands before each sentence."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            words = sentence.split()
            for word, follower in zip(["", *words], words, strict=False):
                self.counts[word][follower] += 1


class Reply:
    """One answer to a prompt.

    At temperature 0 the prompt alone decides; above it noise does too, the same for the same seed.
    Both are Gumbel noise on the logarithm of the counts, so that a larger text changes an answer
    only from the first word on whose followers it changes.
    """

    def __init__(
        self, followers: Followers, prompt: str, temperature: float, seed: str | None
    ) -> None:
        self._followers = followers
        self._prompt = prompt
        self._temperature = temperature
        self._noise = random.Random(seed)  # noqa: S311  None: another at each call

    def words(self) -> Iterator[str]:
        """Up to three sentences, word by word."""
        word = ""
        visits: Counter[str] = Counter()
        sentences = 1 + int(3 * self._own("sentences").random())
        while sentences:
            visits[word] += 1
            # A word met again may go on in another way, so that no answer runs in a circle.
            word = self._follower(word, visits[word])
            yield word
            if word.endswith("."):
                word, sentences = "", sentences - 1

    def value(self, schema: dict[str, Any], name: str = "") -> Any:
        """A value that fits a JSON schema, as far as it says enum, type, properties and items."""
        own = self._noise if self._noise.random() < self._temperature else self._own(name)
        if "enum" in schema:
            return own.choice(schema["enum"])
        if schema.get("type") == "object":
            members = schema.get("properties", {})
            return {key: self.value(member, f"{name}.{key}") for key, member in members.items()}
        if schema.get("type") == "array":
            return [self.value(schema.get("items", {}), f"{name}[]")]
        values = {
            "integer": own.randrange(100),
            "number": round(own.uniform(0, 100), 2),
            "boolean": own.random() < 0.5,
            "null": None,
        }
        word = own.choice([word for word in self._followers.counts if word.isalpha()])
        return values.get(schema.get("type", ""), word)

    def _follower(self, word: str, visit: int) -> str:
        def score(candidate: tuple[str, int]) -> float:
            follower, count = candidate
            own = _gumbel(self._own(f"{word} {follower} {visit}"))
            return math.log(count) + own + self._temperature * _gumbel(self._noise)

        return max(self._followers.counts[word].items(), key=score)[0]

    def _own(self, place: str) -> random.Random:
        """What decides at a place of the answer, the same for the same prompt."""
        return random.Random(f"{self._prompt}\0{place}")  # noqa: S311


def _gumbel(source: random.Random) -> float:
    return -math.log(-math.log(source.random() or 0.5))
