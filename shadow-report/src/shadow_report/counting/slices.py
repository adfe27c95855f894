"""Parts of the traffic in which the shadow is worse than in the rest."""

from __future__ import annotations

import numpy as np

from shadow_report.answers.paths import NO_VALUE, RequestField, request_parts
from shadow_report.counting.classify import Classified
from shadow_report.report import Slice
from shadow_report.statistics.agreement import benjamini_hochberg, fisher_p

MAX_VALUES = 1000
OTHER_VALUES = "(other values)"
# Below this a slice can say nothing, and would only cost power for the others.
MIN_PAIRS = 5


class SliceTally:
    """Pairs, new faults and disagreements by each value of some request fields."""

    def __init__(self, fields: tuple[RequestField, ...]) -> None:
        self._fields = fields
        self._counts: dict[tuple[str, str], list[int]] = {}
        self._values = dict.fromkeys((field.name for field in fields), 0)
        self._pairs = self._bad = 0

    def add(self, classified: Classified) -> None:
        """Count a batch that was read with its requests."""
        if not self._fields:
            return
        faults, disagreements = classified.faults, classified.disagreements
        for row in np.flatnonzero(classified.usable).tolist():
            body, headers = request_parts(*classified.batch.request(row))
            is_fault, differs = bool(faults[row]), bool(disagreements[row])
            self._pairs += 1
            self._bad += is_fault or differs
            for field in self._fields:
                counts = self._at(field.name, field.read(body, headers))
                counts[0] += 1
                counts[1] += is_fault
                counts[2] += differs

    def _at(self, name: str, value: str) -> list[int]:
        if (name, value) not in self._counts:
            if self._values[name] >= MAX_VALUES:
                value = OTHER_VALUES
            self._values[name] += 1
        return self._counts.setdefault((name, value), [0, 0, 0])

    def unmatched(self) -> tuple[str, ...]:
        """The options whose field no request has."""
        if not self._pairs:
            return ()
        seen = {name for name, value in self._counts if value != NO_VALUE}
        return tuple(f"--slice {name}" for name in self._values if name not in seen)

    def report(self, alpha: float) -> tuple[Slice, ...]:
        """All slices, those first that are worse than the rest.

        One-sided Fisher's exact test of each slice against all other pairs; the false discovery
        rate over all slices is at most alpha (Benjamini and Hochberg 1995).
        """
        tested = [(key, c) for key, c in self._counts.items() if MIN_PAIRS <= c[0] < self._pairs]
        if not tested:
            return ()
        p_values = [fisher_p(c[1] + c[2], c[0], self._bad, self._pairs) for _, c in tested]
        adjusted = benjamini_hochberg(p_values).tolist()
        slices = [
            Slice(
                by=by,
                value=value,
                pairs=pairs,
                new_faults=faults,
                disagreements=disagreements,
                share=(faults + disagreements) / pairs,
                rest_share=(self._bad - faults - disagreements) / (self._pairs - pairs),
                p_value=p_value,
                discovered=at <= alpha,
            )
            for ((by, value), (pairs, faults, disagreements)), p_value, at in zip(
                tested, p_values, adjusted, strict=True
            )
        ]
        return tuple(sorted(slices, key=lambda s: (not s.discovered, s.p_value, -s.pairs)))
