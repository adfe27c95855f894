"""Effective sample size: calls that repeat each other are worth fewer than they are.

Two sources are bounded, and the larger design effect counts. *Clusters* share a key (the hash of
the request, a user, a session): before their likeness can be measured, all calls of one cluster
are taken for one observation. *Clumps* are events that come together in time although their
requests differ. They can be seen only once there are events, so a burst of one cause that nothing
in the rows gives away is beyond any statistic until the first event.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Room for so many clusters. Up to some 400,000 each has its own; further ones share, and clusters
# that share count as one larger cluster, which can only lower the effective number.
SLOTS = 1 << 19
_MOST_PROBES = 16
# Time is cut into 16 to 32 equal blocks, one bit each; the blocks double as the window grows.
_MOST_BLOCKS = 32
_FEWEST_BLOCKS = 16
# With fewer clusters on either side of the outcome, their likeness is a guess: the worst case.
MIN_MIXED_CLUSTERS = 20
# The chance of one window to be the extreme of 200 is 0.5 %, exactly, whatever its blocks hold.
_SHUFFLES = 199
_MOST_SHUFFLED = 1_000_000_000


@dataclass(frozen=True, slots=True)
class EffectiveSize:
    """What `trials` are worth.

    clusters: distinct keys seen, at most `SLOTS`. design_effect: `trials / n_eff`, at least 1.
    source: what sets it: "independent", "clusters" (worst case: each is one observation),
    "likeness" (measured within clusters) or "clumps" (events close in time).
    """

    trials: int
    n_eff: float
    clusters: int
    source: str

    @property
    def design_effect(self) -> float:
        return self.trials / self.n_eff if self.n_eff else 1.0


def effective_size(
    sizes: ArrayLike,
    events: ArrayLike,
    recurring: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> EffectiveSize:
    """What calls in clusters of these sizes, with these numbers of events, are worth.

    `clusters` says how many clusters each entry stands for; None is one.

    While fewer than `MIN_MIXED_CLUSTERS` clusters have an event, or have a call without one, the
    worst case holds: a cluster is one observation, and the larger it is the likelier it is bad.
    Then events come in lots of sum m^3 / sum m^2, the design effect; for clusters of one size it
    is that size. (If size and badness were unrelated it would be Kish's sum m^2 / sum m, and
    bursts among single calls would promote a bad shadow in 12 to 22 % of the runs.) After that
    the design effect is measured, as the variance between clusters over the binomial one (Rao,
    Scott 1992, Biometrics 48, 577-585), and enlarged by twice its standard error.

    `recurring` marks clusters that are there all through the window, such as the most frequent
    requests of real traffic. Either they are a sample of all clusters as the others are, or they
    are known and will be there tomorrow; then they say nothing about the others and are worth
    nothing, while their events count in full. The larger of both numbers is taken, so that one
    frequent request does not take the worth of a million others.
    """
    m, y = np.asarray(sizes, dtype=np.float64), np.asarray(events, dtype=np.float64)
    known = np.zeros(m.size, dtype=bool) if recurring is None else np.asarray(recurring, dtype=bool)
    weights = np.ones(m.size) if clusters is None else np.asarray(clusters, dtype=np.float64)
    filled = m > 0
    m, y, known, weights = m[filled], y[filled], known[filled], weights[filled]
    trials = float((weights * m).sum())
    if not trials:
        return EffectiveSize(0, 0.0, 0, "independent")
    worst = _worst_case(m, weights)
    measured = trials / _design_effect(m, y, weights, np.zeros(m.size, dtype=bool))
    if known.any():
        worst = max(worst, _worst_case(m[~known], weights[~known]))
        measured = max(measured, trials / _design_effect(m, y, weights, known))
    n_eff = min(trials, max(worst, measured))
    source = "clusters" if worst >= measured else "likeness"
    return EffectiveSize(
        round(trials),
        n_eff,
        round(float(weights.sum())),
        "independent" if n_eff >= 0.999 * trials else source,
    )


def _worst_case(m: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    calls = weights * m
    squares = calls * m
    return float(calls.sum() * squares.sum() / (squares * m).sum()) if calls.any() else 0.0


def _design_effect(
    m: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> float:
    """The measured design effect, enlarged for its own error; infinite while it is a guess.

    Known clusters have a variance within themselves only.
    """
    rest_m, rest_y, rest = m[~known], y[~known], weights[~known]
    mixed = min(float(rest[rest_y > 0].sum()), float(rest[rest_y < rest_m].sum()))
    if mixed < MIN_MIXED_CLUSTERS:
        return math.inf
    trials, size = float((weights * m).sum()), float(rest.sum())
    rate = float((weights * y).sum()) / trials
    rest_rate = float((rest * rest_y).sum() / (rest * rest_m).sum())
    between = float((rest * np.square(rest_y - rest_rate * rest_m)).sum())
    between *= size / (size - 1)
    within = float((weights[known] * y[known] * (1 - y[known] / m[known])).sum())
    effect = (between + within) / (trials * rate * (1 - rate))
    # A variance from `mixed` clusters has a relative standard error of sqrt(2 / mixed).
    return max(1.0, effect * (1 + 2 * math.sqrt(2 / mixed)))


def clump_effect(events: ArrayLike, trials: ArrayLike) -> float:
    """How many events come together on average, from counts per block of time; 1 where so many
    would come together by chance.

    It is 1 plus the pairs of events in one block beyond those of chance, for each event
    (the index of dispersion of counts, Cox, Lewis 1966), where more events share a block than in
    any of `_SHUFFLES` random orders of the same trials: events that do not depend on time are said
    to clump in at most one window of 200, however few they are. A burst shows from its first block
    on. Blocks of 0.1 % of the window or so tell clumps from a slow drift; they are the caller's.
    """
    y, n = np.asarray(events, dtype=np.int64), np.asarray(trials, dtype=np.int64)
    total, all_trials = int(y.sum()), int(n.sum())
    if total < 2 or total == all_trials:
        return 1.0
    rate = total / all_trials
    by_chance = rate * rate * float(_pairs(n))
    together = float(_pairs(y))
    if together <= by_chance or _comes_by_chance(together, total, n[n > 0]):
        return 1.0
    return 1 + (together - by_chance) / (total * (1 - rate))


def _comes_by_chance(together: float, events: int, trials: NDArray[np.int64]) -> bool:
    """Whether some random order of the trials has so many pairs of events in one block."""
    # Past what numpy shuffles the excess counts, whatever its chance: n is worth less, never more.
    if trials.sum() >= _MOST_SHUFFLED:
        return False
    # The same window has the same answer at every look.
    random = np.random.default_rng(0)
    # One at a time: without a burst one of the first few has as many, and the rest are spared.
    orders = (
        random.multivariate_hypergeometric(trials, events, method="marginals")
        for _ in range(_SHUFFLES)
    )
    return any(float(_pairs(order)) >= together for order in orders)


def _pairs(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Ordered pairs within a block, summed over the blocks (the last axis)."""
    some = counts.astype(np.float64)
    return np.asarray((some * (some - 1)).sum(axis=-1))


class Clusters:
    """Calls and events by cluster for several gates at once, in constant memory.

    Some 8 MiB, and 2 for each gate, whatever is added. Batches may come in any order; the times
    serve only to tell which clusters are there all through the window, which begins at `start`
    (that of the first batch, unless it is given), and which are new in its later half.
    """

    def __init__(self, gates: int, slots: int = SLOTS, start: int | None = None) -> None:
        self._keys = np.zeros(slots, dtype=np.int64)
        self._sizes = np.zeros(slots, dtype=np.int32)
        self._seen = np.zeros(slots, dtype=np.uint32)
        self._events = np.zeros((gates, slots), dtype=np.int32)
        self._start = start
        self._width = 1
        self._last = 0
        self._last_block = 0

    def add(self, keys: ArrayLike, times: ArrayLike, events: ArrayLike) -> None:
        """Count calls: a 63-bit hash of each cluster's key, its time (any integer, such as
        microseconds), and for each gate (rows) whether the call is an event.
        """
        hashes, at = np.asarray(keys, dtype=np.int64), np.asarray(times, dtype=np.int64)
        if not hashes.size:
            return
        flags = np.asarray(events, dtype=bool).reshape(len(self._events), hashes.size)
        # Zero marks a free slot.
        distinct, inverse = np.unique(hashes | 1 << 62, return_inverse=True)
        slots = self._slots(distinct)
        # First, since it may replace what was seen.
        bits = np.uint32(1) << self._blocks(at).astype(np.uint32)
        # Several calls may be of one slot: counted before, or one by one, which takes longer.
        np.add.at(self._sizes, slots, np.bincount(inverse).astype(np.int32))
        for counts, flag in zip(self._events, flags, strict=True):
            if flag.any():
                np.add.at(counts, slots[inverse[flag]], np.int32(1))
        np.bitwise_or.at(self._seen, slots[inverse], bits)

    @property
    def calls(self) -> int:
        """How many were added."""
        return int(self._sizes.sum(dtype=np.int64))

    def effective(self, gate: int) -> EffectiveSize:
        """What the calls are worth for this gate."""
        return effective_size(*self._kinds(gate))

    def with_new_ones(self, gate: int) -> Callable[[float], float]:
        """In the worst case, what the calls would be worth after so many more of new clusters."""
        sizes, _, recurring, clusters = self._kinds(gate)
        m, known = np.append(sizes, 1).astype(np.float64), np.append(recurring, False)

        def n_eff(more: float) -> float:
            weights = np.append(clusters, more).astype(np.float64)
            return max(_worst_case(m, weights), _worst_case(m[~known], weights[~known]))

        return n_eff

    def _kinds(
        self, gate: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Sizes, events and whether they recur, of each kind of cluster, and how many are of it.

        Most clusters are alike: hundreds of thousands are a few kinds of them.
        """
        used = self._sizes > 0
        kinds = self._sizes[used].astype(np.int64) << 32
        kinds |= self._events[gate, used].astype(np.int64) << 1
        kinds |= self.recurring()[used]
        kinds, clusters = np.unique(kinds, return_counts=True)
        return kinds >> 32, (kinds & 0xFFFFFFFF) >> 1, kinds & 1 > 0, clusters

    def recurring(self) -> NDArray[np.bool_]:
        """Which slots were seen in at least half of the blocks of time; none while few passed."""
        blocks = self._last_block + 1
        if blocks < _FEWEST_BLOCKS:
            return np.zeros(self._seen.size, dtype=bool)
        return np.asarray(np.bitwise_count(self._seen) >= blocks / 2)

    def new_ones_per_time(self) -> float:
        """How many clusters came up per unit of time in the later half of the window; 0 while no
        time has passed.
        """
        if self._start is None:
            return 0.0
        earlier = (self._last_block + 1) // 2
        before = self._seen & np.uint32((1 << earlier) - 1)
        new = np.count_nonzero((self._seen > 0) & (before == 0))
        time = self._last - self._start - earlier * self._width
        return new / time if time > 0 else 0.0

    def _slots(self, distinct: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slot of each key, claimed on first sight (open addressing with linear probing)."""
        slots = distinct % self._keys.size
        open_ = np.arange(distinct.size)
        for _ in range(_MOST_PROBES):
            at = slots[open_]
            free = self._keys[at] == 0
            # Of several new keys that want one slot the last one gets it; the others go on.
            self._keys[at[free]] = distinct[open_[free]]
            open_ = open_[self._keys[at] != distinct[open_]]
            if not open_.size:
                break
            slots[open_] = (slots[open_] + 1) % self._keys.size
        return np.asarray(slots)

    def _blocks(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._start is None:
            self._start = int(times.min())
        self._last = max(self._last, int(times.max()))
        while self._last - self._start >= self._width * _MOST_BLOCKS:
            self._double()
        # A call from before the start counts with the first block.
        blocks = np.maximum(times - self._start, 0) // self._width
        self._last_block = max(self._last_block, int(blocks.max()))
        return np.asarray(blocks)

    def _double(self) -> None:
        """Make each block twice as long: bits 2i and 2i + 1 become bit i."""
        self._width *= 2
        self._last_block //= 2
        if not self._seen.any():
            return
        folded = np.zeros_like(self._seen)
        for bit in range(_FEWEST_BLOCKS):
            either = (self._seen >> np.uint32(2 * bit)) & np.uint32(3)
            folded |= (either > 0).astype(np.uint32) << np.uint32(bit)
        self._seen = folded
