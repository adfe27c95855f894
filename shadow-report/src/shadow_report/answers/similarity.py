"""How alike two texts or two lists are."""

from __future__ import annotations

import base64
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rapidfuzz.distance import Indel

# Characters of both texts together beyond which they are compared word by word: the time grows
# with the product of the lengths.
MOST_CHARACTERS = 40_000


@dataclass(frozen=True, slots=True)
class Text:
    """Two texts agree when they are at least so similar, from 0 to 1.

    The similarity is Indel's: twice the length of the longest common subsequence over the length of
    both. normalize: width, case and white space do not count.
    """

    least: float = 1.0
    normalize: bool = True

    def similarity(self, primary: str, shadow: str) -> float:
        """1 for equal texts, 0 for texts with no character in common."""
        if self.normalize:
            primary, shadow = normalized(primary), normalized(shadow)
        if primary == shadow:
            return 1.0
        if len(primary) + len(shadow) > MOST_CHARACTERS:
            return Indel.normalized_similarity(primary.split(), shadow.split())
        return Indel.normalized_similarity(primary, shadow)


def normalized(text: str) -> str:
    """The text without what does not count in it: width, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


# A short name may be base64 by chance.
LEAST_ENCODED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Cosine:
    """Two lists of numbers agree when the cosine of their angle is at least this.

    Text is a list of numbers too when it is base64 of some FP32, as embeddings are often sent.
    """

    least: float = 0.99

    @staticmethod
    def vector(text: str) -> list[float] | None:
        """The numbers that a text encodes; None when it is any other text."""
        try:
            octets = base64.b64decode(text, validate=True)
        except ValueError:
            return None
        if len(octets) < LEAST_ENCODED_BYTES or len(octets) % 4:
            return None
        values: list[float] = np.frombuffer(octets, dtype="<f4").tolist()
        return values

    @staticmethod
    def similarity(primary: Sequence[float], shadow: Sequence[float]) -> float:
        """The cosine of two vectors of one length; two zero vectors are alike, one is not."""
        p, s = np.asarray(primary, dtype=np.float64), np.asarray(shadow, dtype=np.float64)
        largest = float(np.abs(p).max()), float(np.abs(s).max())
        if not all(largest):
            return float(largest[0] == largest[1])
        # Squares of the largest floats overflow; scaling does not change the angle.
        p, s = p / largest[0], s / largest[1]
        cosine = float((p * s).sum() / math.sqrt(float((p * p).sum()) * float((s * s).sum())))
        return min(1.0, max(-1.0, cosine))


class Ranks(NamedTuple):
    """How two rankings agree: the share of common items, and Spearman's rank correlation of these,
    1 while there are fewer than two.
    """

    overlap: float
    correlation: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Two lists, best first, agree when their first `top` items have at least this share in common
    and the common ones come in about the same order. key: of objects, the field that names one.
    """

    top: int = 10
    overlap: float = 0.8
    correlation: float = -1.0
    key: str | None = None

    def ranks(self, primary: list[Any], shadow: list[Any]) -> Ranks | None:
        """None when the items of one side are not all named, each once among the first, or by names
        of another type than the other side's.
        """
        p, s = self._names(primary), self._names(shadow)
        if p is None or s is None or {*map(json_type, p)} != {*map(json_type, s)}:
            return None
        common = [name for name in p if name in s]
        overlap = len(common) / max(len(p), len(s))
        n = len(common)
        if n < 2:
            return Ranks(overlap, 1.0)
        # Without ties Spearman's coefficient is this; the tests hold it against scipy's, which
        # takes a hundred times as long for a list.
        order = {name: rank for rank, name in enumerate(sorted(common, key=s.__getitem__))}
        squares = sum((rank - order[name]) ** 2 for rank, name in enumerate(common))
        return Ranks(overlap, 1 - 6 * squares / (n * (n * n - 1)))

    def _names(self, items: list[Any]) -> dict[Any, int] | None:
        """The rank of each of the first items by its name."""
        names: dict[Any, int] = {}
        for rank, item in enumerate(items[: self.top]):
            name = item
            if self.key is not None:
                name = item.get(self.key) if type(item) is dict else None
            if json_type(name) not in _NAMES or name in names:
                return None
            names[name] = rank
        return names


_NAMES = {str, float, bool}


def json_type(value: Any) -> object:
    """One for all finite numbers, another for each that is not."""
    if type(value) is float and not math.isfinite(value):
        return str(value)
    return float if type(value) is int else type(value)
