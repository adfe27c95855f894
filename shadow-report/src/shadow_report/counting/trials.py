"""What each gate counts: events among trials, what those are worth, and when they came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shadow_report import wording
from shadow_report.answers.paths import NO_VALUE, RequestField, request_parts
from shadow_report.counting.classify import Bools, Classified
from shadow_report.judging.rates import Net, Rate
from shadow_report.report import Clusters
from shadow_report.settings import Comparison, TimeUnit
from shadow_report.statistics.block_scan import BlockScan
from shadow_report.statistics.dependence import Clusters as ClusterCounts
from shadow_report.statistics.dependence import EffectiveSize, clump_effect

# Steps of a thousandth of the window tell clumps of events from a slow drift.
CLUMP_STEPS = 1000


@dataclass(frozen=True, slots=True)
class GateTrials:
    """Trials and events of one batch, one entry per row."""

    trials: Bools
    events: Bools
    reverse: Bools | None = None
    """Where the same happened to the primary alone, for a gate that counts the difference."""


# In this order everywhere: by gate, its trials and events in a batch.
Count = Callable[[Classified], GateTrials]


class GateCounts:
    """What one gate counted."""

    def __init__(self, first: int, last: int) -> None:
        self.events = self.trials = self.reverse = 0
        self.scan = BlockScan(first, last)

    def add(self, found: GateTrials, times: NDArray[np.int64], repeats: Bools) -> None:
        trials, events = found.trials, found.events & found.trials
        self.trials += int(np.count_nonzero(trials))
        self.events += int(np.count_nonzero(events))
        if found.reverse is not None:
            self.reverse += int(np.count_nonzero(found.reverse & trials))
        self.scan.add(times[trials], events[trials], repeats[trials])


class TrialTally:
    """The trials of all gates that count calls or pairs, in constant memory.

    Where everything is mirrored, a call that the shadow did not answer counts with the faults until
    the rows say otherwise. Where a share is, nobody knows which calls it should have got: the pairs
    are what can be counted there, and the coverage has a bound of its own.
    """

    def __init__(self, settings: Comparison, first: int, last: int) -> None:
        self._is_full = settings.mirrored_share == 1
        self.unit: Literal["pair", "call"] = "call" if self._is_full else "pair"
        """What faults are counted among."""
        self._slo_ms = settings.slo_ms
        self._first_token_ratio = settings.first_token_ratio
        self._cluster = settings.cluster
        self._is_named = False
        self.gates = {name: GateCounts(first, last) for name in self._names()}
        # Coverage is a fact about this window's calls, so there each of them counts.
        self._clustered = [name for name in self.gates if name != "coverage"]
        self._clusters = ClusterCounts(gates=len(self._clustered), start=first)
        self._repeats = Repeats()
        self._effective: dict[str, EffectiveSize] = {}

    def _names(self) -> tuple[str, ...]:
        slow = () if self._slo_ms is None else ("slow",)
        first_token = () if self._first_token_ratio is None else ("first_token",)
        return ("coverage", "faults", "disagreement", "bad", *slow, *first_token)

    def extend(self, last: int) -> None:
        """Make room for the calls up to `last`."""
        self._effective.clear()
        for gate in self.gates.values():
            gate.scan.extend(last)

    def add(self, classified: Classified) -> None:
        """Count a batch; with a cluster field it was read with its requests."""
        self._effective.clear()
        times = classified.primary_times
        requests = classified.batch.request_keys()
        counted = self._counted(classified)
        repeats = self._repeats.find(requests, times, classified.called)
        found = self._found(classified, counted)
        for name, gate in self.gates.items():
            gate.add(found[name], times, repeats)
        rows = np.flatnonzero(counted)
        events = np.stack(
            [(found[name].events & found[name].trials)[rows] for name in self._clustered]
        )
        self._clusters.add(self._keys(classified, requests, rows), times[rows], events)

    def _counted(self, classified: Classified) -> Bools:
        """The calls that the shadow should have answered, as far as anybody knows."""
        if self._is_full:
            return np.asarray(classified.called & ~classified.unsent)
        return classified.usable

    def _found(self, classified: Classified, counted: Bools) -> dict[str, GateTrials]:
        unanswered = classified.unanswered & self._is_full
        faults, disagreements = classified.faults, classified.disagreements
        bad = faults | disagreements | classified.unknown | unanswered
        # A new pair is known before a new call without one is: among calls that may still get
        # theirs, a mirror of a share would seem to copy more than it does.
        due = classified.called if self._is_full else classified.called & classified.settled
        found = {
            "coverage": GateTrials(due, classified.missing),
            "faults": GateTrials(counted, faults | unanswered),
            "disagreement": GateTrials(classified.compared, disagreements),
            "bad": GateTrials(counted, bad),
        }
        if self._slo_ms is not None:
            slow_primary, slow_shadow = classified.slow(self._slo_ms)
            found["slow"] = GateTrials(
                classified.usable, slow_shadow & ~slow_primary, slow_primary & ~slow_shadow
            )
        if (ratio := self._first_token_ratio) is not None:
            primary, shadow = classified.first_tokens_ms()
            streams = classified.usable & np.isfinite(primary) & np.isfinite(shadow)
            found["first_token"] = GateTrials(
                streams, shadow > ratio * primary, primary > ratio * shadow
            )
        return found

    def _keys(
        self, classified: Classified, requests: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """What the calls of these rows have in common with others, as 63 bits."""
        if isinstance(self._cluster, TimeUnit):
            return classified.primary_times[rows] // self._cluster.microseconds
        keys = requests[rows] & (2**63 - 1)
        if self._cluster is None:
            return keys
        for i, row in enumerate(rows.tolist()):
            value = self._cluster.read(*request_parts(*classified.batch.request(row)))
            # A call without the field is of no group that it tells of; its request still is one.
            if value != NO_VALUE:
                self._is_named = True
                keys[i] = hash_of(value)
        return keys

    def unmatched(self) -> tuple[str, ...]:
        """The option, when no request has its field."""
        is_field = isinstance(self._cluster, RequestField)
        if not is_field or self._is_named or not self.gates["coverage"].trials:
            return ()
        return (f"--cluster {self.by}",)

    @property
    def by(self) -> str:
        """What makes calls a cluster: `request`, a time unit, or a field."""
        return "request" if self._cluster is None else self._cluster.name

    def effective(self, name: str) -> EffectiveSize:
        """What the gate's trials are worth, by clusters or by clumps in time, whichever is less."""
        if name not in self._effective:
            self._effective[name] = self._find_effective(name)
        return self._effective[name]

    def _find_effective(self, name: str) -> EffectiveSize:
        gate = self.gates[name]
        if name not in self._clustered:
            return EffectiveSize(gate.trials, float(gate.trials), gate.trials, "independent")
        found = self._clusters.effective(self._clustered.index(name))
        trials, events = gate.scan.in_steps(CLUMP_STEPS)
        clumps = clump_effect(events, trials)
        effect, source = found.design_effect, found.source
        if clumps > effect:
            effect, source = clumps, "clumps"
        return EffectiveSize(gate.trials, gate.trials / effect, found.clusters, source)

    def rate(self, name: str) -> Rate:
        """The gate's events among its trials, with what those are worth."""
        gate = self.gates[name]
        return Rate(gate.events, gate.trials, self.effective(name).n_eff, self._grown(name))

    def net(self, name: str) -> Net | None:
        """The same less how often it happened to the primary; None where nobody counts it."""
        gate = self.gates.get(name)
        if gate is None:
            return None
        n_eff = self.effective(name).n_eff
        return Net(gate.events, gate.reverse, gate.trials, n_eff, self._grown(name))

    def _grown(self, name: str) -> Callable[[float], float] | None:
        """What so many trials will be worth when each further one is a new cluster; None where they
        are worth as much each as these.
        """
        found = self.effective(name)
        if found.source != "clusters":
            return None
        of_clusters = self._clusters.with_new_ones(self._clustered.index(name))
        calls = self._clusters.calls

        def n_eff(trials: float) -> float:
            more = trials - found.trials
            return of_clusters(more) * trials / (calls + more)

        return n_eff

    def scans(self) -> dict[str, BlockScan]:
        """By gate, its trials over time, where a run of them tells something.

        Answers near an SLO cross it both ways in any run, and first tokens their ratio. Where
        everything is mirrored, the calls without an answer are among the faults, and those that are
        never mirrored come as they come.
        """
        left_out = {"slow", "first_token"} | ({"coverage"} if self._is_full else set())
        return {name: gate.scan for name, gate in self.gates.items() if name not in left_out}

    def why(self, name: str) -> str:
        """One line on why the gate's trials are worth less than they are; empty if they are not."""
        found = self.effective(name)
        distinct = wording.counted(found.clusters, f"distinct {self.by}")
        bad = {"slow": "slow answers come", "first_token": "late first tokens come"}
        return {
            "clusters": f"{distinct}; more calls of the same add nothing yet, different ones do",
            "likeness": f"{distinct}, and the calls of one turn out alike",
            "clumps": f"{bad.get(name, 'what is bad comes')} in clumps of time",
        }.get(found.source, "")

    def further(self, name: str) -> str:
        """What further calls need to have to be worth something; empty where any are."""
        if self.effective(name).source not in {"clusters", "likeness"}:
            return ""
        if isinstance(self._cluster, TimeUnit):
            return f"in other {self.by}s"
        return "with different requests" if self._cluster is None else f"of another {self.by}"

    def further_per_second(self) -> dict[str, float]:
        """By each gate that asks `further` calls to have something, how many such come in a second,
        as they did in the later half of the window.
        """
        new_ones = self._clusters.new_ones_per_time() * 1e6
        found = {name: self.effective(name) for name in self.gates if self.further(name)}
        # By its likeness a new cluster is worth something with all of its calls, else as one.
        return {
            name: new_ones * (each.trials / each.clusters if each.source == "likeness" else 1)
            for name, each in found.items()
        }

    def report(self) -> Clusters | None:
        """How far the calls repeat each other, as it is for new faults."""
        effective = self.effective("faults")
        if not effective.trials:
            return None
        return Clusters(
            by=self.by,
            clusters=effective.clusters,
            pairs=effective.trials,
            design_effect=effective.design_effect,
            source=effective.source,
        )


# A request that comes again within this is the same event in a past block.
REPEAT_MICROSECONDS = 60_000_000


class Repeats:
    """Tells calls whose request came in the same minute before; it forgets some, in half a MiB."""

    def __init__(self, slots: int = 1 << 16) -> None:
        self._seen: NDArray[np.int64] = np.zeros(slots, dtype=np.int64)

    def find(self, keys: NDArray[np.int64], times: NDArray[np.int64], rows: Bools) -> Bools:
        """Which of these rows repeat an earlier one of this batch, or one of a batch before."""
        chosen = np.flatnonzero(rows)
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
        # An odd factor spreads neighbouring minutes over all bits; zero marks a free slot.
        both = (keys[chosen] ^ (times[chosen] // REPEAT_MICROSECONDS * ODD)) | 1
        _, firsts = np.unique(both, return_index=True)
        slots = (both >> 1) % self._seen.size
        repeats = np.ones(chosen.size, dtype=bool)
        repeats[firsts] = self._seen[slots[firsts]] == both[firsts]
        self._seen[slots] = both
        found = np.zeros(rows.size, dtype=bool)
        found[chosen] = repeats
        return found


ODD = np.int64(0x1E3779B97F4A7C15)


def hash_of(value: str) -> int:
    """63 bits of a value."""
    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
