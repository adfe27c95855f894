"""The values at one place in many pairs, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Group = TypeVar("Group")


@dataclass(frozen=True, slots=True)
class Column:
    """`primary[i]` and `shadow[i]` stand at one place in the pair of row `rows[i]`."""

    primary: list[Any]
    shadow: list[Any]
    rows: Rows

    def __len__(self) -> int:
        return len(self.primary)

    def take(self, chosen: list[int]) -> Column:
        """Only these entries."""
        p, s = self.primary, self.shadow
        return Column([p[i] for i in chosen], [s[i] for i in chosen], self.rows[chosen])

    def kinds(self) -> set[type]:
        """All types that occur on either side."""
        return {*map(type, self.primary), *map(type, self.shadow)}

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The length of each value on both sides."""
        return (
            np.fromiter(map(len, self.primary), dtype=np.int64, count=len(self)),
            np.fromiter(map(len, self.shadow), dtype=np.int64, count=len(self)),
        )

    def differing(self) -> list[int]:
        """The entries whose sides are not equal."""
        pairs = enumerate(zip(self.primary, self.shadow, strict=True))
        return [i for i, (p, s) in pairs if p != s]

    def each(self, value: Callable[[Any], Any]) -> Column:
        """Some value of each entry, taken from both sides."""
        return Column(list(map(value, self.primary)), list(map(value, self.shadow)), self.rows)

    def items(self, lengths: NDArray[np.int64]) -> Column:
        """The items of these lists end to end; lists i of both sides have `lengths[i]` items."""
        return Column(
            list(chain.from_iterable(self.primary)),
            list(chain.from_iterable(self.shadow)),
            np.repeat(self.rows, lengths),
        )

    def by_kinds(self) -> dict[tuple[type, type], Column]:
        """The entries by the types of their sides; int and float count as one type, float."""
        groups: dict[tuple[type, type], list[int]] = defaultdict(list)
        for i, (p, s) in enumerate(zip(self.primary, self.shadow, strict=True)):
            kind, shadow_kind = type(p), type(s)
            groups[
                float if kind is int else kind, float if shadow_kind is int else shadow_kind
            ].append(i)
        return {kinds: self.take(chosen) for kinds, chosen in groups.items()}

    def lists_by_kinds(self) -> list[Column]:
        """Lists grouped by the types of the items, so that one odd list leaves the others alone."""
        groups: dict[frozenset[type], list[int]] = defaultdict(list)
        for i, (p, s) in enumerate(zip(self.primary, self.shadow, strict=True)):
            groups[frozenset((*map(type, p), *map(type, s)))].append(i)
        return [self.take(chosen) for chosen in groups.values()]

    def values_by(
        self, group_of: Callable[[str], Group]
    ) -> tuple[dict[Group, Column], dict[Group, Rows], dict[Group, Rows]]:
        """The objects' values by the group of their keys: those that both sides have, the rows
        where the shadow's object lacks the key, and the rows where only the shadow's has it.
        """
        shared: dict[Group, tuple[list[Any], list[Any], list[int]]]
        shared = defaultdict(lambda: ([], [], []))
        missing: dict[Group, list[int]] = defaultdict(list)
        extra: dict[Group, list[int]] = defaultdict(list)
        for p, s, row in zip(self.primary, self.shadow, self.rows.tolist(), strict=True):
            for key in p if p.keys() == s.keys() else {**p, **s}:
                group = group_of(key)
                if key in p and key in s:
                    part = shared[group]
                    part[0].append(p[key])
                    part[1].append(s[key])
                    part[2].append(row)
                else:
                    (missing if key in p else extra)[group].append(row)
        return (
            {group: Column(p, s, np.array(rows)) for group, (p, s, rows) in shared.items()},
            {group: np.array(rows) for group, rows in missing.items()},
            {group: np.array(rows) for group, rows in extra.items()},
        )
