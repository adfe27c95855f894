"""The noise floor: how often the primary disagrees with itself on the same request."""

from __future__ import annotations

import numpy as np

from shadow_report.answers.bodies import UNPARSEABLE, parse
from shadow_report.answers.comparer import Comparer
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rules
from shadow_report.counting.classify import Classified
from shadow_report.evidence.batch import PRIMARY_CUT
from shadow_report.judging.gates import Rate
from shadow_report.report import Noise
from shadow_report.statistics.sequences import beta_binomial_interval

# Enough for an interval of a percent or so; more would only cost time and memory.
EXPECTED_CALLS = 20_000
MAX_REQUESTS, MAX_ANSWERS = 2000, 5
MAX_BODY_BYTES = 10_000
# Requests fall into buckets by the first two bytes of their hash.
BUCKETS = 65_536


class NoiseTally:
    """One answer by the primary to each request of a sample, against its other answers to it.

    The sample is by content and sized for the expected number of calls; memory is bounded.
    """

    def __init__(self, rules: Rules, calls: int) -> None:
        self._below = min(BUCKETS, BUCKETS * EXPECTED_CALLS // max(1, calls) + 1)
        self._comparer = Comparer(rules)
        self._first: dict[bytes, bytes | None] = {}
        self._seen: dict[bytes, int] = {}
        self._comparisons = 0
        self._disagreements = 0

    def add(self, classified: Classified) -> None:
        batch = classified.batch
        status = batch.integers("primary_status")
        chosen = classified.called & (batch.integers("request_bucket") < self._below)
        chosen &= (status >= 200) & (status < 300) & (batch.integers("flags") & PRIMARY_CUT == 0)
        for row in np.flatnonzero(chosen).tolist():
            if request := batch.request_hash(row):
                self._add(request, batch.primary_body(row), row)
        marks = self._comparer.flush()
        differing = (marks.outcomes >= Outcome.APPEARED) & (self._comparer.own_margins(marks) < 0)
        self._disagreements += np.unique(marks.rows[differing]).size

    def _add(self, request: bytes, body: bytes | None, row: int) -> None:
        if request not in self._first:
            if len(self._first) < MAX_REQUESTS and len(body or b"") <= MAX_BODY_BYTES:
                self._first[request], self._seen[request] = body, 1
            return
        if self._seen[request] >= MAX_ANSWERS:
            return
        self._seen[request] += 1
        self._comparisons += 1
        first = self._first[request]
        if first == body:
            return
        values = parse(first), parse(body)
        if UNPARSEABLE in values:
            self._disagreements += 1
        else:
            self._comparer.compare(*values, row)

    def rate(self) -> Rate | None:
        """How often it disagrees with itself; each request is one observation, however often it
        came. None without a request that came twice.
        """
        if not self._comparisons:
            return None
        return Rate(self._disagreements, self._comparisons, float(self._repeated))

    @property
    def _repeated(self) -> int:
        return sum(answers > 1 for answers in self._seen.values())

    def report(self, shadow_share: float | None, alpha: float) -> Noise:
        """The share with its interval, next to the shadow's."""
        n, k = self._comparisons, self._disagreements
        return Noise(
            repeated_requests=self._repeated,
            comparisons=n,
            disagreements=k,
            share=k / n if n else None,
            interval=beta_binomial_interval(k, n, alpha) if n else None,
            shadow_share=shadow_share,
        )
