"""The ways in which two values may be compared, each as a rule says it, and how it is decided.

Pure functions of one pair of values: the comparer calls them for what a rule names, and nothing
here is called for plain numbers, labels and objects.
"""

from __future__ import annotations

import base64
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
from rapidfuzz.distance import Indel


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two numbers agree when |p - s| <= absolute + relative * max(|p|, |s|)."""

    absolute: float = 1e-9
    relative: float = 1e-6


@dataclass(frozen=True, slots=True)
class Ignored:
    """Values are not compared, and may be missing."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Numbers are names of classes: equal or not, and counted as which became which."""


@dataclass(frozen=True, slots=True)
class Json:
    """Text is JSON, and compared as what it says; not a rule for what is below."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The form is a matter of content: what is missing, or of another type or length, differs and
    is not broken; such as text where the primary calls a tool.
    """


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


NO_PATTERN = "(no pattern)"


@dataclass(frozen=True, slots=True)
class Patterns:
    """Text is of the class whose regular expression is the first to be found in it."""

    patterns: tuple[tuple[str, re.Pattern[str]], ...]

    def label(self, text: str) -> str:
        """The name of the class."""
        return next((name for name, found in self.patterns if found.search(text)), NO_PATTERN)


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


@dataclass(frozen=True, slots=True)
class TopClass:
    """Two lists of numbers agree when the largest stands at the same position."""

    @staticmethod
    def label(scores: Sequence[float]) -> int:
        """The position of the largest number, of several the first."""
        return max(range(len(scores)), key=scores.__getitem__)


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
        """None when the items of one side are not all named, each once among the first."""
        p, s = self._names(primary), self._names(shadow)
        if p is None or s is None:
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
            name = item.get(self.key) if self.key and type(item) is dict else item
            if type(name) not in _NAMES or name in names:
                return None
            names[name] = rank
        return names


_NAMES = (str, int, float, bool)


@dataclass(frozen=True, slots=True)
class Unordered:
    """Lists are sets: the order of their items does not count."""

    def align(self, primary: list[Any], shadow: list[Any]) -> Aligned:
        """Equal items side by side; then, when no item is left over, the others in their order."""
        return _align(primary, shadow, _spelling, pair_rest=True)


@dataclass(frozen=True, slots=True)
class Matched:
    """Lists of objects are matched by a field, as `id`; their order does not count."""

    key: str

    def align(self, primary: list[Any], shadow: list[Any]) -> Aligned:
        """Objects with the same value of the field side by side."""
        p, s, only_p, only_s = _align(primary, shadow, self._name, pair_rest=False)
        # An object without the field lacks it, which is worse than being another object.
        nameless = [item for item in only_s if not self._has_name(item)][: len(only_p)]
        if nameless:
            p, s = p + only_p[: len(nameless)], s + nameless
            only_p = only_p[len(nameless) :]
            only_s = [item for item in only_s if all(item is not other for other in nameless)]
        return Aligned(p, s, only_p, only_s)

    def _has_name(self, item: Any) -> bool:
        return type(item) is dict and self.key in item

    def _name(self, item: Any) -> bytes:
        return _spelling([item[self.key]] if self._has_name(item) else item)


class Aligned(NamedTuple):
    """Two lists as long as each other whose items belong together, and what each side has alone."""

    primary: list[Any]
    shadow: list[Any]
    only_primary: list[Any]
    only_shadow: list[Any]


def _align(primary: list[Any], shadow: list[Any], name: Any, *, pair_rest: bool) -> Aligned:
    places: dict[bytes, list[int]] = defaultdict(list)
    for i, item in enumerate(shadow):
        places[name(item)].append(i)
    for found in places.values():
        found.reverse()
    # The k-th of several with one name belongs to the k-th on the other side.
    p, s, only_p, taken = [], [], [], set()
    for item in primary:
        if found := places.get(name(item), []):
            p.append(item)
            s.append(shadow[found[-1]])
            taken.add(found.pop())
        else:
            only_p.append(item)
    only_s = [item for i, item in enumerate(shadow) if i not in taken]
    kinds = {*map(type, only_p), *map(type, only_s)}
    if pair_rest and len(only_p) == len(only_s) and not kinds & {str, bool, type(None)}:
        # Numbers that differ a little stand in the same order on both sides.
        p += sorted(only_p, key=_rank)
        s += sorted(only_s, key=_rank)
        only_p, only_s = [], []
    return Aligned(p, s, only_p, only_s)


def _rank(item: Any) -> tuple[bool, float, bytes]:
    is_number = type(item) in (int, float) and item == item  # noqa: PLR0124 - NaN has no rank
    return (not is_number, item if is_number else 0.0, b"" if is_number else _spelling(item))


def _spelling(item: Any) -> bytes:
    """The item as text, the same for equal ones: 1 is 1.0, and keys have no order."""
    kind = type(item)
    if kind is float and item.is_integer():
        return b"%d" % int(item)
    if kind is str or kind is int or kind is float:
        return repr(item).encode("utf-8", "surrogatepass")
    try:
        return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Whole numbers past 64 bits, lone surrogates, and what is nested beyond all sense.
        try:
            return repr(item).encode("utf-8", "surrogatepass")
        except RecursionError:
            return kind.__name__.encode()


ListKind = Cosine | TopClass | Ranking | Unordered | Matched
How = Tolerance | Labels | Ignored | Variant | Json | Text | Patterns | ListKind

TITLES: dict[type, str] = {
    Tolerance: "number",
    Labels: "label",
    Ignored: "ignore",
    Variant: "variant",
    Json: "json",
    Text: "text",
    Patterns: "pattern",
    Cosine: "cosine",
    TopClass: "top_class",
    Ranking: "ranking",
    Unordered: "unordered",
    Matched: "matched",
}
"""How each is called in a rule."""


def are_equal(primary: object, shadow: object) -> bool:
    """Equality at any depth; Python's own gives up after some hundred levels."""
    left = [(primary, shadow)]
    while left:
        p, s = left.pop()
        if type(p) is dict and type(s) is dict:
            if p.keys() != s.keys():
                return False
            left += [(p[key], s[key]) for key in p]
        elif type(p) is list and type(s) is list:
            if len(p) != len(s):
                return False
            left += zip(p, s, strict=True)
        elif p != s or isinstance(p, bool) != isinstance(s, bool):
            return False
    return True


def are_vectors(primary: list[Any], shadow: list[Any]) -> bool:
    """Whether both lists hold as many finite numbers, and at least one."""
    return len(primary) == len(shadow) > 0 and _all_finite(primary) and _all_finite(shadow)


def _all_finite(values: list[Any]) -> bool:
    if not {*map(type, values)} <= {int, float}:
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:
        return False
