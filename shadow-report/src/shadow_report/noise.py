"""The noise floor: how often the primary disagrees with itself on the same request."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from shadow_report.answers.bodies import UNPARSEABLE, parse
from shadow_report.answers.comparer import OUTCOMES, Comparer
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rules
from shadow_report.evidence.database import Scope, Tables
from shadow_report.report import Noise
from shadow_report.statistics.binomial_sequence import beta_binomial_interval
from shadow_report.statistics.interval import Interval

# Enough for an interval of a percent or so; more would only cost time.
BODIES, ANSWERS = 2000, 5
EXPECTED_CALLS = 20_000
HASHES = 65_536


def noise_floor(
    tables: Tables,
    scope: Scope,
    rules: Rules,
    *,
    calls: int,
    shadow_share: float | None,
    alpha: float,
) -> Noise:
    """Each repeated request's first answer by the primary against its next ones.

    Only requests whose hash begins below a limit are looked at, so that any number of calls costs
    the same; the choice is by content, so all repeats of a request are in or out together.
    """
    hash_below = min(HASHES, HASHES * EXPECTED_CALLS // max(1, calls) + 1)
    rows = tables.repeats(scope, hash_below=hash_below, bodies=BODIES, answers=ANSWERS)
    repeated = comparisons = disagreements = 0
    comparer = Comparer(rules)
    for _, answers in groupby(rows, key=lambda row: row[0]):
        bodies = [body for _, status, body in answers if 200 <= status < 300]
        repeated += len(bodies) > 1
        for body in bodies[1:]:
            disagreements += _compare(comparer, bodies[0], body, comparisons)
            comparisons += 1
    marks = comparer.flush()
    disagreements += np.unique(marks.rows[marks.codes % OUTCOMES >= Outcome.MENDED]).size
    share = disagreements / comparisons if comparisons else None
    interval: Interval | None = (
        beta_binomial_interval(disagreements, comparisons, alpha) if comparisons else None
    )
    return Noise(
        repeated_requests=repeated,
        comparisons=comparisons,
        disagreements=disagreements,
        share=share,
        interval=interval,
        shadow_share=shadow_share,
    )


def _compare(comparer: Comparer, first: bytes | None, other: bytes | None, row: int) -> bool:
    """True when the two differ and cannot be parsed; what can is compared at the flush."""
    if first == other:
        return False
    values = parse(first), parse(other)
    if UNPARSEABLE in values:
        return True
    comparer.compare(*values, row)
    return False
