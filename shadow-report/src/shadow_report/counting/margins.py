"""Pairs that differ where a rule says how many may: each such rule is judged by its own margin."""

from __future__ import annotations

from collections import Counter

from shadow_report.answers.paths import Rules
from shadow_report.counting.classify import Classified
from shadow_report.report import PathMargin


class MarginTally:
    """By rule with a margin: in how many pairs its place stands, and in how many it differs."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._pairs: Counter[int] = Counter()
        self._differing: Counter[int] = Counter()

    def add(self, classified: Classified) -> None:
        for rule, (standing, differing) in classified.by_margin.items():
            self._pairs[rule] += standing.size
            self._differing[rule] += differing.size

    def report(self) -> tuple[PathMargin, ...]:
        """One per rule, in their order; a rule that named nothing has no pairs."""
        return tuple(
            PathMargin(rule.spelling, rule.kind, rule.margin, self._pairs[i], self._differing[i])
            for i, rule in enumerate(self._rules.by_path)
            if rule.margin is not None
        )
