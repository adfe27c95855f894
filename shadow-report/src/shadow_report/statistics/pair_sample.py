"""A bounded random sample of pairs, for figures that need the values themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


class PairSample:
    """Keeps at most `capacity` pairs, each pair seen with the same chance; memory stays constant.

    Up to `capacity` pairs it keeps them all. The same seed and the same batches give the same
    sample (reservoir sampling, Vitter 1985, ACM TOMS 11, 37-57).
    """

    def __init__(self, capacity: int = 200_000, seed: int = 0) -> None:
        self.capacity = capacity
        self.seen = 0
        self._primary: NDArray[np.float64] = np.empty(0)
        self._shadow: NDArray[np.float64] = np.empty(0)
        self._random = np.random.default_rng(seed)

    def add(self, primary: ArrayLike, shadow: ArrayLike) -> None:
        """Offer a batch of pairs; both arrays have the same length."""
        x = np.atleast_1d(np.asarray(primary, dtype=np.float64))
        y = np.atleast_1d(np.asarray(shadow, dtype=np.float64))
        room = min(x.size, max(0, self.capacity - self.seen))
        if room:
            self._primary = np.concatenate([self._primary, x[:room]])
            self._shadow = np.concatenate([self._shadow, y[:room]])
        # The i-th pair ever seen (from 0) takes a slot from 0 to i, if that slot exists.
        positions = np.arange(self.seen + room, self.seen + x.size)
        slots = self._random.integers(0, positions + 1) if positions.size else positions
        kept = slots < self.capacity
        self._primary[slots[kept]] = x[room:][kept]
        self._shadow[slots[kept]] = y[room:][kept]
        self.seen += x.size

    @property
    def primary(self) -> NDArray[np.float64]:
        """The sampled primary values; entry i belongs to entry i of `shadow`."""
        return self._primary

    @property
    def shadow(self) -> NDArray[np.float64]:
        """The sampled shadow values."""
        return self._shadow
