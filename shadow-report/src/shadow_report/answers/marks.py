"""What differs in a batch, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Marks are (place, outcome) in one number.
OUTCOMES = 16


@dataclass(frozen=True, slots=True)
class Marks:
    """All differences of a batch: `rows[i]` differs by `codes[i]` = place * OUTCOMES + outcome.

    `sizes[i]` is the largest numeric difference there, relative to the larger side, else 0.
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.int64]
    sizes: NDArray[np.float64]
