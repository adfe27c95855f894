"""A batch with what became of each of its pairs: what all tallies read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.marks import Marks
from shadow_report.answers.outcome import Outcome
from shadow_report.evidence.batch import Batch

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Judged:
    """Entry i of every array is row i of the batch.

    called: the primary was called (after the warm-up, not in flight).
    missing: it was, and there is no usable pair: no shadow call, or one with another request.
    usable: both sides took the same request; only these are judged.
    compared: both sides answered, whole and readable; only these can agree or disagree.
    """

    batch: Batch
    called: Bools
    missing: Bools
    usable: Bools
    compared: Bools
    outcomes: NDArray[np.int8]
    mended: Bools
    primary_times: NDArray[np.int64]
    primary_durations_ms: NDArray[np.float64]
    shadow_durations_ms: NDArray[np.float64]
    marks: Marks

    @property
    def faults(self) -> Bools:
        return np.asarray(self.usable & (self.outcomes >= Outcome.LENGTH))

    @property
    def disagreements(self) -> Bools:
        return np.asarray(
            self.compared & (self.outcomes >= Outcome.EXTRA) & (self.outcomes <= Outcome.NUMBER)
        )

    def slow(self, slo_ms: float) -> tuple[Bools, Bools]:
        """Which answers were slower than the SLO on the primary's and on the shadow's side."""
        with np.errstate(invalid="ignore"):
            return (
                np.asarray(self.usable & (self.primary_durations_ms > slo_ms)),
                np.asarray(self.usable & (self.shadow_durations_ms > slo_ms)),
            )
