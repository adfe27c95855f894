"""The whole verdict, simulated: who is promoted at any of 1,000 looks.

Who is called INVALID in error, `test_mirror_share` simulates.
"""

from __future__ import annotations

import numpy as np
import pytest
from looks import ALPHA, clears, share_ever
from numpy.typing import NDArray

from shadow_report.judging.gates import judge
from shadow_report.judging.questions import Evidence, Margins
from shadow_report.judging.rates import Excess, Rate, Unmirrored
from shadow_report.judging.verdict import Verdict, decide
from shadow_report.statistics.block_scan import BlockScan
from shadow_report.statistics.dependence import effective_size

MARGINS = Margins(max_faults=0.01, min_coverage=0.5)
MARGIN = 0.01
RUNS = 60
CALLS = 40_000

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def independent(random: np.random.Generator, rate: float) -> tuple[Ints, Flags]:
    return np.arange(CALLS), random.random(CALLS) < rate


def bursts(random: np.random.Generator, rate: float) -> tuple[Ints, Flags]:
    """50 calls of one cause each."""
    bad = random.random(CALLS // 50) < rate
    return np.repeat(np.arange(bad.size), 50), np.repeat(bad, 50)


def returning_users(random: np.random.Generator, rate: float) -> tuple[Ints, Flags]:
    """2,000 users who come back again and again, and are alike to themselves."""
    strength = 1 / 0.3 - 1
    rates = random.beta(rate * strength, (1 - rate) * strength, 2_000)
    rates = np.minimum(1, rates * rate / rates.mean())
    keys = random.integers(0, 2_000, CALLS)
    return keys, random.random(CALLS) < rates[keys]


def ever_promoted(keys: Ints, events: Flags, mirrored: float, random: np.random.Generator) -> bool:
    """Whether the verdict is PROMOTE at any of 1,000 looks.

    A smaller effective size never makes a pass of a fail, so it is asked only where counting every
    pair would pass.
    """
    is_paired = random.random(keys.size) < mirrored
    looks = np.unique(np.geomspace(100, keys.size, 1_000).round().astype(np.int64))
    pairs = is_paired.cumsum()[looks - 1]
    bad = (events & is_paired).cumsum()[looks - 1]
    passes = clears(bad.astype(np.float64), pairs.astype(np.float64), MARGIN)
    for look in np.flatnonzero(passes).tolist():
        calls, n, k = int(looks[look]), int(pairs[look]), int(bad[look])
        chosen = is_paired[:calls]
        found, flags = keys[:calls][chosen], events[:calls][chosen]
        sizes = np.bincount(found)
        worth = effective_size(sizes, np.bincount(found, weights=flags, minlength=sizes.size))
        share = worth.n_eff / n
        # The gates are asked where the rule that they follow says pass; it is a few looks.
        if not clears(np.array([k * share]), np.array([worth.n_eff]), MARGIN)[0]:
            continue
        rate = Rate(k, n, worth.n_eff)
        missing = Rate(0, calls) if mirrored == 1 else Unmirrored(n, calls, mirrored)
        evidence = Evidence(missing=missing, faults=rate, disagreement=rate, bad=rate)
        if decide(judge(evidence, MARGINS), MARGINS).verdict is Verdict.PROMOTE:
            return True
    return False


@pytest.mark.parametrize("mirrored", [1.0, 0.1], ids=["full", "a tenth"])
@pytest.mark.parametrize("times_margin", [1.0, 1.05])
@pytest.mark.parametrize("traffic", [independent, bursts, returning_users])
def test_a_shadow_at_the_margin_is_promoted_in_at_most_alpha(
    traffic: object, times_margin: float, mirrored: float
) -> None:
    """Whatever its calls have in common, and without the help of the gates for runs of calls."""
    random = np.random.default_rng(11)
    promoted = sum(
        ever_promoted(*traffic(random, MARGIN * times_margin), mirrored, random)  # type: ignore[operator]
        for _ in range(RUNS)
    )
    # One run more than alpha of them: what chance makes of a true rate of alpha.
    assert promoted <= ALPHA * RUNS + 1


def test_a_shadow_that_dies_for_its_last_30_calls_is_never_promoted() -> None:
    """Of 60,000, at every look from the fourth dead call on, in each of 20 runs."""
    random = np.random.default_rng(13)
    margins = Margins()
    for _ in range(20):
        events = random.random(60_000) < 0.0001
        events[-30:] = True
        for dead in (4, 8, 16, 30):
            part = events[: 60_000 - 30 + dead]
            scan = BlockScan(0, part.size)
            scan.add(np.arange(part.size), part)
            rate = Rate(int(part.sum()), part.size)
            evidence = Evidence(
                missing=Rate(dead, part.size),
                faults=rate,
                disagreement=Rate(0, part.size - dead),
                bad=rate,
                scans={"faults": scan},
            )
            assert decide(judge(evidence, margins), margins).verdict is not Verdict.PROMOTE


def test_the_runs_of_a_good_shadow_hold_nothing_up() -> None:
    """At a fifth of the margin every run is promoted by 40,000 calls, with all gates."""
    random = np.random.default_rng(14)
    promoted = []
    for _ in range(20):
        events = random.random(CALLS) < MARGIN / 5
        scan = BlockScan(0, CALLS)
        scan.add(np.arange(CALLS), events)
        rate = Rate(int(events.sum()), CALLS)
        evidence = Evidence(
            missing=Rate(0, CALLS), faults=rate, disagreement=rate, bad=rate, scans={"faults": scan}
        )
        promoted.append(decide(judge(evidence, MARGINS), MARGINS).verdict is Verdict.PROMOTE)
    assert share_ever(np.array([promoted]).T) == 1


NOISE_RUNS = 200
NOISE_MARGIN = 0.05


def promoted_above_noise(excess: float, random: np.random.Generator) -> bool:
    """Whether the excess over a noise floor is below the margin at any of 20 looks.

    Each look has new pairs and new answers of the primary to itself: both grow.
    """
    floor = 0.29
    differs = (random.random(30_000) < floor + excess).cumsum()
    noise = (random.random(15_000) < floor).cumsum()
    for look in np.geomspace(200, differs.size, 20).astype(int).tolist():
        itself = Rate(int(noise[look // 2 - 1]), look // 2)
        found = Excess(Rate(int(differs[look - 1]), look), itself)
        # The bound lies above the estimate, and takes longer to find.
        if (found.rate or 0) < NOISE_MARGIN and found.bounds(ALPHA, ALPHA).upper <= NOISE_MARGIN:
            return True
    return False


def test_a_shadow_whose_excess_is_at_the_margin_is_promoted_in_at_most_alpha() -> None:
    """The noise floor is counted too, and looked at as often."""
    random = np.random.default_rng(17)
    promoted = sum(promoted_above_noise(NOISE_MARGIN, random) for _ in range(NOISE_RUNS))
    assert promoted <= ALPHA * NOISE_RUNS


def test_a_shadow_that_is_as_noisy_as_the_primary_is_promoted() -> None:
    """In nine runs of ten, within 30,000 pairs and half as many answers to itself."""
    random = np.random.default_rng(18)
    assert sum(promoted_above_noise(0.0, random) for _ in range(50)) >= 45
