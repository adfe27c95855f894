"""The margins that a shadow must keep, with the contract's defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """What is tolerated, fixed before looking: all rates are shares of pairs from 0 to 1.

    `alpha` is the chance, over all looks together, that a shadow beyond a margin is promoted.
    Raises ValueError with the name, the value and the remedy when a value makes no sense.
    """

    min_coverage: float = 0.99
    max_faults: float = 0.001
    max_disagreement: float = 0.01
    max_slow: float = 0.01
    alpha: float = 0.05
    min_duration: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        for name in ("min_coverage", "max_faults", "max_disagreement", "max_slow"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(
                    f"{name} is {value}; set it to a share from 0 to 1, like 0.1 for 10 %."
                )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; set it between 0 and 1, say 0.05.")
        if self.min_duration < timedelta(0):
            raise ValueError(f"min_duration is {self.min_duration}; set it to zero or more.")
