"""The noise floor: how often the primary disagrees with itself on the same request.

Two sources. Requests that came more than once are there for nothing, and are not like all others:
who asks again asks something common. A replay to the primary itself asks the same as the traffic.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.bodies import UNPARSEABLE, parse
from shadow_report.answers.comparer import NOTHING_SEEN, Comparer, Seen
from shadow_report.answers.outcome import IS_DISAGREEMENT, Outcome
from shadow_report.answers.paths import Rules
from shadow_report.counting.classify import ANY_TIME, Classified, Classifier
from shadow_report.evidence.batch import PRIMARY_BROKEN, PRIMARY_CUT, PRIMARY_LEFT, Batch
from shadow_report.judging.rates import Rate
from shadow_report.report import Noise
from shadow_report.statistics.sequences import beta_binomial_interval

# Enough for an interval of a percent or so; more would only cost time and memory.
EXPECTED_CALLS = 20_000
MAX_REQUESTS, MAX_ANSWERS = 2000, 5
MAX_BODY_BYTES = 4_000
# Requests fall into buckets by the first two bytes of their hash.
BUCKETS = 65_536
_NOT_WHOLE = PRIMARY_CUT | PRIMARY_BROKEN | PRIMARY_LEFT

# When the call came, the hash of its pair id, and the primary's answer.
Answer = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """How often the primary disagrees with itself; each request is one observation, however often
    it came.
    """

    source: Literal["repeats", "replay"]
    rate: Rate
    seen: Seen
    """What there was in the answers that it compared by the rules."""

    def report(self, shadow_share: float | None, alpha: float) -> Noise:
        """The share with its interval, next to the shadow's."""
        n, k = self.rate.trials, self.rate.events
        return Noise(
            source=self.source,
            repeated_requests=round(self.rate.n_eff),
            comparisons=n,
            disagreements=k,
            share=self.rate.rate,
            interval=beta_binomial_interval(k, n, alpha) if n else None,
            shadow_share=shadow_share,
        )


def replayed_floor(batches: Iterable[Batch], rules: Rules) -> NoiseFloor | None:
    """From the primary's answers to its own calls, sent once more; None without any."""
    classifier = Classifier(Comparer(rules), rules, ANY_TIME)
    comparisons = disagreements = 0
    requests: set[int] = set()
    for batch in batches:
        found = classifier.classify(batch)
        comparisons += int(np.count_nonzero(found.compared))
        disagreements += int(np.count_nonzero(found.compared & found.disagreements))
        requests.update(batch.request_keys()[found.compared].tolist())
    if not comparisons:
        return None
    rate = Rate(disagreements, comparisons, float(len(requests)))
    return NoiseFloor("replay", rate, classifier.seen)


class NoiseTally:
    """The primary's first answer to each request of a sample, against its next answers to it.

    The sample is by content, sized for the number of calls, and the same in whatever order they
    come; memory is bounded.
    """

    def __init__(self, rules: Rules, calls: int) -> None:
        self._rules = rules
        self._below = BUCKETS
        self._answers: dict[bytes, list[Answer]] = {}
        self._disagreements: int | None = 0
        """Counted when it is asked for, since an earlier answer may come later."""
        self._seen = NOTHING_SEEN
        self.extend(calls)

    def __deepcopy__(self, _: dict[int, object]) -> NoiseTally:
        twin = copy(self)
        # The answers themselves never change.
        twin._answers = {request: [*answers] for request, answers in self._answers.items()}
        return twin

    def extend(self, calls: int) -> None:
        """Thin the sample to that of so many calls."""
        below = max(1, BUCKETS >> (max(0, calls - 1) // EXPECTED_CALLS).bit_length())
        if below < self._below:
            self._below = below
            kept = {r: a for r, a in self._answers.items() if int.from_bytes(r[:2], "big") < below}
            self._answers, self._disagreements = kept, None

    def add(self, classified: Classified) -> None:
        batch = classified.batch
        status = batch.integers("primary_status")
        chosen = classified.called & (batch.integers("request_bucket") < self._below)
        chosen &= (status >= 200) & (status < 300) & (batch.integers("flags") & _NOT_WHOLE == 0)
        rows = np.flatnonzero(chosen)
        times, pairs = classified.primary_times[rows], batch.integers("pair_hash")[rows]
        for row, time, pair in zip(rows.tolist(), times.tolist(), pairs.tolist(), strict=True):
            request, body = batch.primary_request_and_body(row)
            if request:
                self._add(request, (time, pair), body or b"")
        if len(self._answers) > MAX_REQUESTS:
            # The least hashes are as good a sample as any, and the same one in any order.
            least = sorted(self._answers)[:MAX_REQUESTS]
            self._answers = {request: self._answers[request] for request in least}

    def _add(self, request: bytes, came: tuple[int, int], body: bytes) -> None:
        answers = self._answers.get(request, [])
        if len(answers) == MAX_ANSWERS and came > answers[-1][:2]:
            return
        if len(body) > MAX_BODY_BYTES:
            return
        # Equal answers are one in memory.
        body = next((other for *_, other in answers if other == body), body)
        insort(answers, (*came, body))
        self._answers[request] = answers[:MAX_ANSWERS]
        self._disagreements = None

    def _count_disagreements(self) -> int:
        comparer, count = Comparer(self._rules), 0
        repeated = (answers for answers in self._answers.values() if len(answers) > 1)
        changed = [(a[0][2], body) for a in repeated for *_, body in a[1:] if body != a[0][2]]
        for row, bodies in enumerate(changed):
            one, other = map(parse, bodies)
            if one is UNPARSEABLE or other is UNPARSEABLE:
                count += one is UNPARSEABLE
            else:
                comparer.compare(one, other, row)
        marks = comparer.flush()
        self._seen = comparer.seen
        counted = comparer.own_margins(marks) < 0
        # A broken answer is not noise: as disagreement of the shadow's it would not count either.
        gravest: NDArray[np.int64] = np.full(len(changed), Outcome.EQUAL, dtype=np.int64)
        np.maximum.at(gravest, marks.rows[counted], marks.outcomes[counted])
        return count + int(np.count_nonzero(IS_DISAGREEMENT[gravest]))

    @property
    def _found(self) -> tuple[int, int]:
        """Disagreements and comparisons."""
        if self._disagreements is None:
            self._disagreements = self._count_disagreements()
        return self._disagreements, sum(len(a) - 1 for a in self._answers.values())

    def floor(self) -> NoiseFloor | None:
        """From the requests that came more than once; None without one."""
        disagreements, comparisons = self._found
        if not comparisons:
            return None
        repeated = sum(len(answers) > 1 for answers in self._answers.values())
        rate = Rate(disagreements, comparisons, float(repeated))
        return NoiseFloor("repeats", rate, self._seen)
