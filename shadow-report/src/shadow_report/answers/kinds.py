"""The ways in which two values may be compared, each as a rule says it, and how it is decided.

Pure functions of one pair of values: the comparer calls them for what a rule names, and nothing
here is called for plain numbers and labels.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from shadow_report.answers.similarity import Cosine, Ranking, Text, json_type

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Two numbers agree when |p - s| <= absolute + relative * max(|p|, |s|).

    A kind of numbers with a difference of its own, such as one of angles, overrides `difference`,
    one that adds the two up otherwise `allowed`: verdict, worst pairs and the figures of the
    difference rest on these alone; the correlation, KS, Wasserstein and PSI are of the values as
    they stand.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def difference(self, primary: Floats, shadow: Floats) -> Floats:
        """How far each of the shadow's is from the primary's, above 0 where it is more."""
        return shadow - primary

    def allowed(self, larger: Floats) -> Floats:
        """How far apart two may be, the larger of which is so far from 0."""
        return self.absolute + self.relative * larger

    def sizes(self, difference: Floats, larger: Floats) -> Floats:
        """How large each difference is to who gave this tolerance: where that is absolute alone the
        difference itself, else relative to the larger side.
        """
        if self.absolute and not self.relative:
            return difference
        return np.where(difference > 0, difference / np.where(larger > 0, larger, 1.0), 0.0)


UNRULED = Tolerance(absolute=1e-9, relative=1e-6)
"""Of numbers for which there is no rule."""


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


NO_PATTERN = "(no pattern)"


@dataclass(frozen=True, slots=True)
class Patterns:
    """Text is of the class whose regular expression is the first to be found in it."""

    patterns: tuple[tuple[str, re.Pattern[str]], ...]

    @property
    def title(self) -> str:
        """What they tell: `refusal`, or `refund, complaint`."""
        return ", ".join(name for name, _ in self.patterns)

    def label(self, text: str) -> str:
        """The name of the class."""
        return next((name for name, found in self.patterns if found.search(text)), NO_PATTERN)


@dataclass(frozen=True, slots=True)
class TopClass:
    """Two lists of numbers agree when the largest stands at the same position, two objects of
    numbers when it has the same name.
    """

    @staticmethod
    def label(scores: Sequence[float] | Mapping[str, float]) -> int | str:
        """The position of the largest number, of several the first; or its name, of several the
        first by the alphabet, since names have no order of their own.
        """
        if isinstance(scores, Mapping):
            largest = max(scores.values())
            return min(name for name, score in scores.items() if score == largest)
        return max(range(len(scores)), key=scores.__getitem__)


@dataclass(frozen=True, slots=True)
class Unordered:
    """Lists are sets: the order of their items does not count."""

    def align(self, primary: list[Any], shadow: list[Any]) -> Aligned:
        """Equal items side by side; then, when no item is left over, the others in their order."""
        return _align(primary, shadow, _spelling, json_type, pair_rest=True)


@dataclass(frozen=True, slots=True)
class Matched:
    """Lists of objects are matched by a field, as `id`; their order does not count."""

    key: str

    def align(self, primary: list[Any], shadow: list[Any]) -> Aligned:
        """Objects with the same value of the field side by side."""
        return _align(primary, shadow, self._name, self._type, pair_rest=False)

    def _has_name(self, item: Any) -> bool:
        return type(item) is dict and self.key in item

    def _name(self, item: Any) -> bytes:
        return _spelling([item[self.key]] if self._has_name(item) else item)

    def _type(self, item: Any) -> object:
        return json_type(item[self.key]) if self._has_name(item) else None


class Aligned(NamedTuple):
    """Two lists as long as each other whose items belong together, and what each side has alone."""

    primary: list[Any]
    shadow: list[Any]
    only_primary: list[Any]
    only_shadow: list[Any]


def _align(
    primary: list[Any],
    shadow: list[Any],
    name: Callable[[Any], bytes],
    type_of: Callable[[Any], object],
    *,
    pair_rest: bool,
) -> Aligned:
    """By their names; type_of: a name's type, None without one."""
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
    # Without a name, or with one of a type that none of the primary's has, an item is broken, which
    # is worse than being another one.
    types = {type_of(item) for item in only_p} - {None}
    sound = [item for item in only_s if type_of(item) in types]
    broken = [item for item in only_s if type_of(item) not in types]
    p += only_p[: len(broken)]
    s += broken[: len(only_p)]
    only_p, only_s = only_p[len(broken) :], sound + broken[len(only_p) :]
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
# The nearest of these holds for a text. One with a `similarity`, 1 for equal texts and at least -1,
# and a `least`, as `Text` has, is judged, explained and drawn by them.
TextKind = Text
How = Tolerance | Labels | Ignored | Variant | Json | TextKind | Patterns | ListKind

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


def are_vectors(primary: Collection[Any], shadow: Collection[Any]) -> bool:
    """Whether both hold as many finite numbers, and at least one."""
    return len(primary) == len(shadow) > 0 and _all_finite(primary) and _all_finite(shadow)


def are_scores(primary: list[Any] | dict[str, Any], shadow: list[Any] | dict[str, Any]) -> bool:
    """Whether both hold a finite number for each of the same classes, by position or by name.

    One number has no other to be larger than.
    """
    if isinstance(primary, dict) and isinstance(shadow, dict):
        if primary.keys() != shadow.keys():
            return False
        return len(primary) > 1 and are_vectors(primary.values(), shadow.values())
    return len(primary) > 1 and are_vectors(primary, shadow)


# How far from 1 the sum of rounded probabilities may be.
ROUNDED_SUM = 1e-3


def are_probabilities(scores: dict[str, Any]) -> bool:
    """Whether it holds the probabilities of several classes by name."""
    values = scores.values()
    # Of NaN the sum is none; what is past 1 may be past all floats.
    return (
        len(values) > 1
        and {*map(type, values)} <= {int, float}
        and 0 <= min(values) <= max(values) <= 1
        and abs(sum(values) - 1) <= ROUNDED_SUM
    )


def _all_finite(values: Collection[Any]) -> bool:
    if not {*map(type, values)} <= {int, float}:
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:
        return False
