"""For every kind of comparison, values that it reads: what the tests of all kinds draw from."""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass
from typing import Any

from shadow_report.answers.kinds import (
    How,
    Json,
    Labels,
    ListKind,
    Matched,
    Patterns,
    Tolerance,
    TopClass,
    Unordered,
    Variant,
)
from shadow_report.answers.paths import IGNORED, Rule
from shadow_report.answers.similarity import Cosine, Ranking, Text


@dataclass(frozen=True)
class Reads:
    """A kind with values of one form, as they stand at `t`.

    The first two agree under it and are not equal; the first and the third differ in all that is
    counted, beyond what it allows.
    """

    how: How | None
    values: tuple[Any, Any, Any, *tuple[Any, ...]]
    counted: str = "t"
    """The place that counts them."""
    each: int = 1
    """How many a pair has there."""

    @property
    def kind(self) -> str:
        """As a rule says it."""
        return Rule.of("t", self.how).kind

    @property
    def is_of_texts(self) -> bool:
        """Whether the kind reads a text as no other kind beside it does."""
        is_text = all(type(value) is str for value in self.values[:3])
        return is_text and not isinstance(self.how, ListKind)


def encoded(*values: float) -> str:
    """As embeddings are often sent."""
    return base64.b64encode(struct.pack("<8f", *values, *[0.0] * (8 - len(values)))).decode()


READS = [
    Reads(None, (1.0, 1.0000001, 2.0, "a", None)),
    Reads(IGNORED, (1.0, "a", None, [], {})),
    Reads(Tolerance(3.0, 0.0), (1.0, 3.5, 9.0, 4, -2)),
    Reads(Labels(), (1.0, 1, 2.0, 1.0000001, 1.0005)),
    Reads(TopClass(), ([0.2, 0.8], [0.4, 0.6], [0.6, 0.4], [0.5, 0.5], [1, 0, 0], [])),
    Reads(
        TopClass(),
        (
            {"x": 0.2, "y": 0.8},
            {"y": 0.6, "x": 0.4},
            {"x": 0.6, "y": 0.4},
            {"x": 0.5, "y": 0.5},
            {"y": 1.0, "x": 1},
            {"x": 0.1},
            {"x": 0.1, "": 0.2},
            {"x": 0.1, "y": None},
            {"x": 0.1, "y": "a"},
            {},
        ),
    ),
    Reads(Cosine(0.9), ([1.0, 0.0], [3.0, 0.1], [0.0, 1.0], [1, 1], [-1.0], [0.0, 0.0], [None])),
    Reads(Cosine(0.9), (encoded(1, 0), encoded(3, 0.1), encoded(0, 1), encoded(1, 1), "ab", "")),
    Reads(
        Ranking(2, 0.6, 0.5),
        (["a", "b", "c"], ["a", "b"], ["x", "y"], ["b", "a"], ["a", 1], [1, 2], [True, 2], []),
    ),
    Reads(
        Ranking(3, 0.5, key="x"),
        (
            [{"x": 1}, {"x": 2}],
            [{"x": 1, "y": 0}, {"x": 2}],
            [{"x": 3}],
            [{"x": 1}],
            [{"x": 2}, {"x": 1}],
            [{"y": 1}],
        ),
    ),
    Reads(Unordered(), ([1, 2], [2, 1], [3, 4], ["a", "b"], ["b", "a"], [2]), "t[*]", each=2),
    Reads(
        Matched("x"),
        (
            [{"x": 1, "y": 1}, {"x": 2, "y": 2}],
            [{"x": 2, "y": 2}, {"x": 1, "y": 1}],
            [{"x": 2, "y": 3}, {"x": 1, "y": 4}],
            [{"x": 1, "y": 1}],
            [{"y": 1}, {"x": 2}],
            [],
        ),
        "t[*].y",
        each=2,
    ),
    Reads(Variant(), (1.0, 1.0000001, "a", None, [1], [1, 2], {"x": 1}, {})),
    Reads(Text(0.5), ("the cat sat", "The cat  sits", "no idea", "the cat", "", "no")),
    Reads(Patterns((("a", re.compile("a")),)), ("ab", "ba", "b", "c", "", "a"), "t (a)"),
    Reads(Json(), ('{"x": 1}', '{"x":1.0}', '{"x": 2}', "{}", "[1]", "[1, 2]", "ab", "1"), "t.x"),
]
