"""What repeated pairs are worth: pairs of one user, payload or minute are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

# With fewer clusters on both sides of the outcome, the design effect is a guess and each cluster
# counts as one observation, the worst case.
MIN_MIXED_CLUSTERS = 20


@dataclass(frozen=True, slots=True)
class ClusterCounts:
    """Sufficient statistics of clusters with `size` pairs and `events` among them; mergeable for
    lots without a common cluster.
    """

    clusters: int = 0
    trials: int = 0
    events: int = 0
    size_squares: float = 0.0
    event_squares: float = 0.0
    products: float = 0.0
    with_event: int = 0
    without_event: int = 0

    @classmethod
    def of(cls, sizes: ArrayLike, events: ArrayLike) -> Self:
        """Counts of these clusters, one entry per cluster; empty clusters are ignored."""
        m, y = np.asarray(sizes, dtype=np.float64), np.asarray(events, dtype=np.float64)
        m, y = m[m > 0], y[m > 0]
        return cls(
            clusters=m.size,
            trials=round(float(m.sum())),
            events=round(float(y.sum())),
            size_squares=float(m @ m),
            event_squares=float(y @ y),
            products=float(m @ y),
            with_event=int(np.count_nonzero(y)),
            without_event=int(np.count_nonzero(y < m)),
        )

    def merge(self, other: Self) -> Self:
        """Both lots together."""
        return type(self)(
            self.clusters + other.clusters,
            self.trials + other.trials,
            self.events + other.events,
            self.size_squares + other.size_squares,
            self.event_squares + other.event_squares,
            self.products + other.products,
            self.with_event + other.with_event,
            self.without_event + other.without_event,
        )


def design_effect(counts: ClusterCounts) -> float:
    """How many times larger the variance of the rate is than with independent pairs, at least 1.

    The ratio of the linearised cluster variance to the binomial one (Kish 1965, Survey Sampling;
    Rao, Scott 1992, Biometrics 48, 577-585). While fewer than `MIN_MIXED_CLUSTERS` clusters have
    an event, or have a pair without one, it is the worst case: every cluster is one observation.
    """
    if counts.trials == 0:
        return 1.0
    if min(counts.with_event, counts.without_event) < MIN_MIXED_CLUSTERS:
        return counts.size_squares / counts.trials
    rate = counts.events / counts.trials
    between = counts.event_squares - 2 * rate * counts.products + rate**2 * counts.size_squares
    between *= counts.clusters / (counts.clusters - 1)
    return max(1.0, between / (counts.trials * rate * (1 - rate)))


def effective_trials(counts: ClusterCounts) -> float:
    """How many independent pairs these are worth; never more than there are."""
    return counts.trials / design_effect(counts)


class ClusterBuckets:
    """Counts per cluster in constant memory: cluster keys are hashed into a fixed set of buckets.

    Clusters that share a bucket count as one larger cluster. That can only lower the effective
    number of pairs, so the promise of the gates holds with any number of clusters.
    """

    def __init__(self, buckets: int = 65_536) -> None:
        self._sizes = np.zeros(buckets, dtype=np.int64)
        self._events = np.zeros(buckets, dtype=np.int64)

    def add(self, key_hashes: ArrayLike, sizes: ArrayLike, events: ArrayLike) -> None:
        """Add pairs: an integer hash of each cluster key, how many pairs, how many with event."""
        keys = np.atleast_1d(np.asarray(key_hashes)).astype(np.int64) % self._sizes.size
        np.add.at(self._sizes, keys, np.broadcast_to(np.asarray(sizes), keys.shape))
        np.add.at(self._events, keys, np.broadcast_to(np.asarray(events), keys.shape))

    def counts(self) -> ClusterCounts:
        """The sufficient statistics of everything added so far."""
        return ClusterCounts.of(self._sizes, self._events)
