"""Gates: one share, its bounds, its margin, and whether it passes, fails or waits.

A gate passes when the upper bound at `alpha` lies within the margin, and fails when the lower bound
at `alpha` over the number of gates lies beyond it; both hold at every look, and the gate shows just
these two. To promote, every gate must pass, so a shadow that is beyond one margin is promoted with
chance at most `alpha`, however many gates there are and however often one looks (an
intersection-union test). One failing gate rejects, hence Bonferroni for failing.

Gates of runs of calls and of slices of the requests hold a promotion up and never reject, since
what an outage of last night means is for a person to judge.

What a gate asks is in `questions`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from shadow_report.judging.questions import Evidence, Margins, Question, questions
from shadow_report.judging.rates import Excess, Rate, Unmirrored
from shadow_report.report import Gate, Need, Slice, Status
from shadow_report.statistics.block_scan import (
    NEWEST_LEVEL,
    WORST_LEVEL,
    WORST_MAXIMUM,
    Block,
    BlockScan,
)
from shadow_report.statistics.sequences import TRIALS_LIMIT, UNKNOWN, Interval, trials_until
from shadow_report.wording import EPOCH, counted, instant, pasted, percent, second_after

# Of a shadow that always differs, the excess over so much noise is within the margin as well.
BLIND = Need(
    pairs=None,
    towards=None,
    reason="beside so much noise no shadow could exceed that: compare more loosely (such as by a "
    "text's least) until the primary mostly agrees with itself, or leave the noise floor out and "
    "ask a judge (--judge)",
)


def judge(evidence: Evidence, margins: Margins) -> tuple[Gate, ...]:
    """Every gate of `questions`, then those of runs of calls and of slices, judged."""
    asked = [
        replace(each, further=evidence.further.get(each.name, ""))
        for each in questions(evidence, margins)
    ]
    reject_alpha = margins.alpha / len(asked)
    gates = [
        judge_one(each, margins.alpha, reject_alpha, evidence.why.get(each.name, ""))
        for each in asked
    ]
    scanned = [
        Scanned(each, evidence.scans[each.name])
        for each, gate in zip(asked, gates, strict=True)
        if each.name in evidence.scans and _asks_for_runs(each, gate)
    ]
    fails = any(gate.status == "fail" and gate.name in evidence.scans for gate in gates)
    but_for = "But for what fails by its average, " if fails else ""
    if margins.newest_factor and evidence.scans:
        gates.append(_newest_gate(scanned, margins.newest_factor, but_for))
    if margins.worst_factor and evidence.scans:
        gates.append(_worst_gate(scanned, margins.worst_factor, but_for))
    if evidence.slices is not None:
        gates.append(_slices_gate(evidence.slices, is_allowed=margins.allow_worse_slices))
    return tuple(gates)


def _asks_for_runs(question: Question, gate: Gate) -> bool:
    """What fails by its average needs no run to tell, and what would pass but for a noise that is
    not measured yet has none that could be told from noise.
    """
    count = question.count
    is_open = isinstance(count, Excess) and not count.is_measured and gate.status == "wait"
    return gate.status != "fail" and not is_open


def judge_one(question: Question, alpha: float, reject_alpha: float, why: str = "") -> Gate:
    """One gate: passing is asked at `alpha`, failing at `reject_alpha`."""
    count, maximum = question.count, question.maximum
    interval, rate = count.bounds(alpha, reject_alpha), count.rate
    status: Status = "wait"
    is_blind = isinstance(count, Excess) and 1 - count.floor <= maximum < 1
    if count.trials and interval.upper <= maximum and not is_blind:
        status = "pass"
    elif count.trials and interval.lower > maximum:
        status = "fail"
    need = None
    if status == "wait":
        need = BLIND if is_blind else _need(question, alpha, reject_alpha)
    if isinstance(count, Excess) and not count.is_measured and status != "fail":
        # The noise alone would make it: as much as minus 99 % of a single request.
        interval = Interval(math.nan, interval.upper)
    if question.is_minimum:
        interval = Interval(1 - interval.upper, 1 - interval.lower)
        rate = None if rate is None else 1 - rate
    return Gate(
        name=question.name,
        estimate=rate,
        interval=interval,
        margin=question.margin,
        is_minimum=question.is_minimum,
        n=count.trials,
        n_eff=count.n_eff,
        n_eff_reason=why,
        status=status,
        reason=_reason(question, interval, status, need),
        need=need,
        path=question.path,
    )


def _reason(question: Question, interval: Interval, status: Status, need: Need | None) -> str:
    if status == "wait" and math.isfinite(interval.lower):
        found = f"between {percent(interval.lower)} and {percent(interval.upper)}"
    elif status != "wait" and (status == "pass") == question.is_minimum:
        found = f"at least {percent(interval.lower)}"
    else:
        found = f"at most {percent(interval.upper)}"
    margin = f"{'needed' if question.is_minimum else 'allowed'} {percent(question.margin)}"
    colon = "" if isinstance(question.count, Excess) else ":"
    seen = f"{question.seen}{question.besides}{colon}"
    return f"{seen} {found}, {margin}{'' if need is None else f'; {need.reason}'}."


def _need(question: Question, alpha: float, reject_alpha: float) -> Need:
    """The fewest further trials after which the gate passes, or fails, at its present rate;
    clusters are taken to grow in number as the trials do. Without trials: the fewest that can pass.
    """
    count, maximum, unit = question.count, question.maximum, question.unit
    rate = count.outlook
    if rate is None:
        return _need_from_nothing(question, alpha)
    margin = percent(question.margin)
    if maximum == 0 and rate == 0:
        ask = f"{'ask for less' if question.is_minimum else 'allow more'} than {margin}"
        reason = f"{ask}: no number of samples proves a share of zero"
        return Need(pairs=None, towards=None, reason=reason)
    towards: Literal["pass", "fail"] = "pass" if rate < maximum else "fail"

    def is_settled(trials: int) -> bool:
        found = count.bounds(alpha, reject_alpha, trials)
        return found.upper <= maximum if towards == "pass" else found.lower > maximum

    total = trials_until(is_settled, count.trials)
    if total is None:
        if question.stuck:
            return Need(pairs=None, towards=None, reason=question.stuck)
        ask = f"{'ask for' if question.is_minimum else 'allow'} more or less than {margin}"
        found = percent(1 - rate if question.is_minimum else rate)
        reason = f"{ask}: {found} is too near to be told apart in {TRIALS_LIMIT:,} {unit}s"
        return Need(pairs=None, towards=None, reason=reason)
    more = max(1, total - count.trials)
    which = f" {question.further}" * bool(question.further)
    reason = f"{counted(more, f'more {unit}')}{which} at this rate would {towards} it"
    if question.hint and (towards == "pass" or isinstance(count, Excess)):
        reason += f" ({question.hint})"
    if question.sampled:
        sample = math.ceil(question.sampled * total / count.trials)
        reason = f"raise --judge-sample to {sample:,}: {reason}"
        return Need(pairs=None, towards=towards, reason=reason)
    pairs = math.ceil(more / question.share)
    return Need(pairs=pairs, towards=towards, reason=reason, further=question.further)


def _need_from_nothing(question: Question, alpha: float) -> Need:
    if question.nothing:
        return Need(pairs=None, towards=None, reason=question.nothing)

    def passes(trials: int) -> bool:
        if isinstance(question.count, Unmirrored):
            found = question.count.bounds(alpha, alpha, trials)
        else:
            found = Rate(0, trials).bounds(alpha, alpha)
        return found.upper <= question.maximum

    fewest = trials_until(passes, 1)
    reason = f"there are no {question.unit}s yet"
    if fewest is None:
        return Need(pairs=None, towards=None, reason=reason)
    least = f"{reason}; it takes {counted(fewest, question.unit)} at the least to pass it"
    if question.hint:
        least += f" ({question.hint})"
    return Need(pairs=math.ceil(fewest / question.share), towards="pass", reason=least)


@dataclass(frozen=True, slots=True)
class Scanned:
    """A gate's trials over time, and what a run of them may have."""

    question: Question
    scan: BlockScan

    def maximum(self, factor: float) -> float:
        """The largest share of events in a run of calls; at most one half more than without it."""
        count, allowed = self.question.count, self.question.maximum
        by_chance = 0.0
        if isinstance(count, Unmirrored):
            # Nine calls of ten are without a pair where a tenth is mirrored.
            by_chance = 1 - count.share
            allowed *= count.share
        elif isinstance(count, Excess):
            by_chance = count.floor
        ceiling = max(allowed, WORST_MAXIMUM * (1 - by_chance))
        return min(1.0, by_chance + min(factor * allowed, ceiling))


Find = Callable[[Scanned, float, float], Block | None]


def _looked_at(scanned: Iterable[Scanned], factor: float) -> list[Scanned]:
    """Those in which a run of calls can be too bad."""
    return [each for each in scanned if each.maximum(factor) < 1]


def _trials(scanned: Iterable[Scanned], factor: float) -> int:
    """The calls among which a bad run was looked for."""
    return max((each.question.count.trials for each in _looked_at(scanned, factor)), default=0)


def _surest(
    scanned: Iterable[Scanned], factor: float, level: float, find: Find
) -> tuple[Scanned, Block] | None:
    """The run that is most surely too bad, of whichever gate; the gates share the level."""
    looked = _looked_at(scanned, factor)
    found = [
        (each, block)
        for each in looked
        if (block := find(each, each.maximum(factor), level / len(looked)))
    ]
    return min(found, key=lambda both: both[1].p_value, default=None)


def _newest_gate(scanned: list[Scanned], factor: float, but_for: str) -> Gate:
    found = _surest(scanned, factor, NEWEST_LEVEL, lambda s, m, a: s.scan.newest_bad(m, a))
    if found is None:
        the = "the" if but_for else "The"
        reason = f"{but_for}{the} newest calls are not worse than allowed."
        return _passing("newest", reason, _trials(scanned, factor))
    bad, block = found
    level = NEWEST_LEVEL / len(scanned)
    clear = bad.scan.trials_until_newest_clears(bad.maximum(factor), level)
    need = Need(
        pairs=clear,
        towards="pass",
        reason=f"{counted(clear, f'further {bad.question.unit}')} without one would pass it, "
        "for it may be chance then",
    )
    what = (
        f"the newest {counted(block.trials, bad.question.unit)} (since {instant(block.first_time)})"
    )
    return _block_gate("newest", bad, block, bad.maximum(factor), what, need)


def _worst_gate(scanned: list[Scanned], factor: float, but_for: str) -> Gate:
    found = _surest(scanned, factor, WORST_LEVEL, lambda s, m, a: s.scan.worst_bad(m, a))
    if found is None:
        no = "no" if but_for else "No"
        reason = f"{but_for}{no} past run of calls is worse than allowed."
        return _passing("worst", reason, _trials(scanned, factor))
    bad, block = found
    over = EPOCH + timedelta(microseconds=block.over)
    need = Need(
        pairs=None,
        towards=None,
        reason="find out what happened then, and judge a window after it (--since "
        f"{pasted(second_after(over))}), or allow it (--max-worst-block)",
    )
    what = (
        f"{counted(block.trials, bad.question.unit)} from {instant(block.first_time)} to "
        f"{instant(block.last_time)}"
    )
    return _block_gate("worst", bad, block, bad.maximum(factor), what, need)


def _block_gate(  # noqa: PLR0917 - one gate's parts
    name: str, bad: Scanned, block: Block, maximum: float, what: str, need: Need
) -> Gate:
    seen = f"{block.events:,} of {what} {bad.question.bad}"
    return Gate(
        name=name,
        estimate=block.rate,
        interval=UNKNOWN,
        margin=maximum,
        is_minimum=False,
        n=block.trials,
        n_eff=float(block.trials),
        n_eff_reason="",
        status="wait",
        reason=f"{seen}, allowed {percent(maximum)}; {need.reason}.",
        need=need,
    )


def _slices_gate(slices: tuple[Slice, ...], *, is_allowed: bool) -> Gate:
    found = [each for each in slices if each.discovered]
    if not found:
        by_field: Counter[str] = Counter()
        for each in slices:
            by_field[each.by] += each.pairs
        reason = f"None of {counted(len(slices), 'slice')} is worse than the rest."
        return _passing("slices", reason, max(by_field.values(), default=0))
    worst = found[0]
    more = f", and {counted(len(found) - 1, 'other slice')}" if len(found) > 1 else ""
    seen = (
        f"{worst.by} = {worst.value}: {worst.new_faults + worst.disagreements:,} of "
        f"{counted(worst.pairs, 'pair')} have a new fault or disagree ({percent(worst.share)}, "
        f"elsewhere {percent(worst.rest_share)}){more}"
    )
    reason = "mend the shadow for these requests, or allow worse slices (--allow-worse-slices)"
    need = None if is_allowed else Need(pairs=None, towards=None, reason=reason)
    return Gate(
        name="slices",
        estimate=worst.share,
        interval=UNKNOWN,
        margin=None,
        is_minimum=False,
        n=worst.pairs,
        n_eff=float(worst.pairs),
        n_eff_reason="",
        status="pass" if is_allowed else "wait",
        reason=f"{seen}; {'allowed' if is_allowed else reason}.",
        need=need,
    )


def _passing(name: str, reason: str, looked_at: int) -> Gate:
    return Gate(
        name=name,
        estimate=None,
        interval=UNKNOWN,
        margin=None,
        is_minimum=False,
        n=looked_at,
        n_eff=float(looked_at),
        n_eff_reason="",
        status="pass",
        reason=reason,
    )
