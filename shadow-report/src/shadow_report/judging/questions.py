"""Questions: what each gate asks of the evidence, before it is judged.

A new gate is a count in `Evidence`, a margin in `Margins` and a `Question` in `questions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from shadow_report.judging.rates import Count, Excess, Net, Rate, Unmirrored
from shadow_report.report import PathMargin, Slice
from shadow_report.statistics.block_scan import WORST_FACTOR, BlockScan
from shadow_report.wording import counted, percent

NoiseFloor = float | Literal["auto", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """What is tolerated, fixed before looking: all rates are shares of calls or pairs from 0 to 1.

    max_bad: of all that is bad together; None is the largest of the single allowances.
    newest_factor, worst_factor: how many times its margin each rate may have in the newest calls
        and in any past run of calls; 0 does not look.
    noise_floor: disagreement counts as far as it exceeds this share, or what is known of the
        primary's with itself (`auto`); `off` takes nothing off.
    allow_worse_slices: a discovered slice does not hold a promotion up.
    max_judged_worse: of the differing answers, how many more a judge may call worse than better;
        None judges by no opinion.
    alpha: the chance, over all looks together, that a shadow beyond a margin is promoted.

    Raises ValueError with the name, the value and the remedy when a value makes no sense.
    """

    min_coverage: float = 0.99
    max_faults: float = 0.001
    max_disagreement: float = 0.01
    max_slow: float = 0.01
    max_late_first_tokens: float = 0.1
    max_bad: float | None = None
    newest_factor: float = 1.0
    worst_factor: float = WORST_FACTOR
    noise_floor: NoiseFloor = "off"
    max_judged_worse: float | None = None
    allow_worse_slices: bool = False
    alpha: float = 0.05
    min_duration: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        for name in (
            "min_coverage",
            "max_faults",
            "max_disagreement",
            "max_slow",
            "max_late_first_tokens",
            "max_bad",
            "max_judged_worse",
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(
                    f"{name} is {value}; set it to a share from 0 to 1, like 0.1 for 10 %."
                )
        for name in ("newest_factor", "worst_factor"):
            value = getattr(self, name)
            if not (value == 0 or 1 <= value < math.inf):
                raise ValueError(
                    f"{name} is {value}; set it to 1 or more times the margin, or to 0 for any."
                )
        if not isinstance(self.noise_floor, str) and not 0 <= self.noise_floor < 1:
            raise ValueError(
                f"noise_floor is {self.noise_floor}; set it to a share from 0 to below 1, like "
                "0.12 or 12%, or to auto or off."
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; set it between 0 and 1, say 0.05.")
        if self.min_duration < timedelta(0):
            raise ValueError(f"min_duration is {self.min_duration}; set it to zero or more.")

    @property
    def allowed_bad(self) -> float:
        """The largest share of calls whose caller is worse off, in whatever way."""
        if self.max_bad is not None:
            return self.max_bad
        # As the others are written: 1 - 0.99 is 0.010000000000000009.
        unpaired = round(1 - self.min_coverage, 12)
        return max(unpaired, self.max_faults, self.max_disagreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All the counts that the verdict rests on.

    missing: primary calls without a shadow call, among the primary's calls.
    faults: pairs whose answer is broken on the shadow's side only, and where everything is mirrored
        the `unanswered` calls: those that the shadow should have got and did not answer.
    disagreement: pairs whose answers differ beyond the tolerance, among the pairs compared; the
        `errors_alike`, which both sides fail or refuse alike, are not.
    bad: calls or pairs that are any of these, or that nobody could compare.
    slow: pairs slower than the SLO on one side only, among all pairs; None without an SLO.
    first_token: pairs of streams in which one side's first token took more than `first_token_ratio`
        times the other's; None where nobody asked.
    opinion: pairs of a sample of those that differ in which a judge calls the shadow's answer
        worse, and better; None where none was asked. opinion_asked: of how many it was asked.
    noise: how often the primary disagrees with itself; None where nobody knows.
    scans: by gate, its trials over time; slices: what was found in slices of the requests, None
        where nobody asked. why: by gate, why its trials are worth less than they are; further:
        what further ones need to have to be worth something.
    margins: by rule with a margin, the pairs that differ where it holds, among those that have a
        value there.
    """

    missing: Rate | Unmirrored
    faults: Rate
    disagreement: Rate
    bad: Rate
    unanswered: int = 0
    errors_alike: int = 0
    unknown: int = 0
    slow: Net | None = None
    first_token: Net | None = None
    first_token_ratio: float = 0.0
    opinion: Net | None = None
    opinion_asked: int = 0
    noise: Rate | None = None
    scans: Mapping[str, BlockScan] = field(default_factory=dict)
    slices: tuple[Slice, ...] | None = None
    why: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[str, str] = field(default_factory=dict)
    margins: tuple[tuple[PathMargin, Rate], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A gate before it is judged.

    count: how often the bad thing happened.
    margin: the largest share of it; with `is_minimum` the least share of its absence, which is
        then also what the gate shows.
    seen: the count in words, as in "3 of 9 pairs disagree". besides: what follows it, such as what
        is not among them. unit: what is counted.
    bad: the bad thing alone, in words that follow a number of them, as in "disagree".
    nothing: what would have to change while there are no trials. hint: how to know sooner.
    stuck: why no number of trials settles it. share: how many trials of it come with each pair.
    sampled: of how many pairs its trials are, where further pairs bring none and only a larger
        --judge-sample does.
    further: what further trials need to have to be worth something.
    """

    name: str
    count: Count
    margin: float
    seen: str
    bad: str
    besides: str = ""
    unit: str = "pair"
    is_minimum: bool = False
    nothing: str = ""
    hint: str = ""
    stuck: str = ""
    share: float = 1.0
    sampled: int = 0
    further: str = ""
    path: str | None = None

    @property
    def maximum(self) -> float:
        """The largest share of the bad thing."""
        return 1 - self.margin if self.is_minimum else self.margin


def questions(evidence: Evidence, margins: Margins) -> tuple[Question, ...]:
    """Every gate of a rate, in the order of the report; `slow` only with an SLO, and
    `first_token` only where both sides streamed.

    New faults are judged whatever the shadow does better. Slow answers are judged net of those that
    are slow on the primary's side only: near an SLO both sides cross it by chance, and an identical
    shadow must be able to pass. So are late first tokens.
    """
    faults, differing, bad = evidence.faults, evidence.disagreement, evidence.bad
    unit = "pair" if isinstance(evidence.missing, Unmirrored) else "call"
    unanswered = f", {evidence.unanswered:,} of them without an answer" * bool(evidence.unanswered)
    alike = evidence.errors_alike
    errors = f", {alike:,} more without a sound answer on either side"
    errors *= bool(alike)
    unknown = f", {evidence.unknown:,} of them not compared" * bool(evidence.unknown)
    noise: Rate | float | None = None
    if margins.noise_floor != "off":
        noise = evidence.noise if margins.noise_floor == "auto" else margins.noise_floor
    asked = [
        _coverage(evidence.missing, margins),
        Question(
            name="faults",
            count=faults,
            margin=margins.max_faults,
            seen=f"{_of(faults.events, faults.trials, unit)} have a new fault",
            besides=unanswered,
            bad="have a new fault or no answer",
            unit=unit,
        ),
        Question(
            name="disagreement",
            count=differing,
            margin=margins.max_disagreement,
            seen=f"{_of(differing.events, differing.trials)} disagree",
            besides=errors,
            bad="disagree",
            nothing=_nothing_compared(faults),
            share=_share_that_answers(differing.trials, evidence.errors_alike),
        ),
        Question(
            name="bad",
            count=bad,
            margin=margins.allowed_bad,
            seen=f"{_of(bad.events, bad.trials, unit)} are bad in some way",
            besides=unknown,
            bad="are bad in some way",
            unit=unit,
        ),
    ]
    if noise is not None:
        asked[-2:] = [_above(asked[-2], differing, noise), _above(asked[-1], bad, noise)]
    if (slow := evidence.slow) is not None:
        asked.append(_slow(slow, margins))
    if (first := evidence.first_token) is not None and first.trials:
        asked.append(_first_token(first, evidence, margins))
    if (opinion := evidence.opinion) is not None and margins.max_judged_worse is not None:
        asked.append(_judge(opinion, evidence, margins.max_judged_worse))
    some = bool(differing.trials)
    return (*asked, *(_of_margin(found, rate, some) for found, rate in evidence.margins))


def _above(question: Question, differing: Rate, noise: Rate | float) -> Question:
    """The same, of what exceeds the noise floor."""
    count = Excess(differing, noise)
    if isinstance(noise, float):
        floor = f"the noise floor is {percent(noise)}"
    elif count.is_measured:
        floor = f"the primary differs from itself in {percent(count.floor)}"
    else:
        few = counted(round(noise.n_eff), "repeated request")
        floor = f"the noise is not measured yet ({few})"
    return replace(
        question,
        count=count,
        seen=f"{question.seen} ({percent(differing.rate)})",
        besides=f"{question.besides}, {floor}: excess",
        hint=""
        if isinstance(noise, float)
        else "fewer where more are sent to the primary again: make noise, or replay --itself",
        stuck=""
        if isinstance(noise, float)
        else "the noise floor is known too roughly for this "
        "margin: send the primary more of its own calls (make noise, or shadow-report replay "
        "--itself; the same once more add little: where all were sent, let new ones come first)",
    )


def _of_margin(found: PathMargin, rate: Rate, is_compared: bool) -> Question:
    nothing = (
        f"no answer has {found.path}, a nearer rule has the margin there, or one for lists takes "
        "it whole: mend the rule's path, or take it out"
    )
    share = percent(rate.rate) if rate.trials else "none"
    return Question(
        name=found.gate,
        count=rate,
        margin=found.margin,
        seen=f"{found.place} differs in {share} of {counted(rate.trials, 'pair')}",
        besides=", whose numbers are not judged" * found.any_number,
        bad=f"differ at {found.place}",
        nothing=nothing if is_compared else "",
        path=found.place,
    )


def _slow(count: Net, margins: Margins) -> Question:
    bad = "are newly slow"
    return Question(
        name="slow",
        count=count,
        margin=margins.max_slow,
        seen=f"{_of(count.gained, count.trials)} {bad}, {count.lost:,} no longer slow",
        bad=bad,
    )


def _judge(count: Net, evidence: Evidence, maximum: float) -> Question:
    bad, asked, differing = "are worse", evidence.opinion_asked, evidence.disagreement
    return Question(
        name="judge",
        count=count,
        margin=maximum,
        seen=f"{_of(count.gained, count.trials, 'judged pair')} {bad}, {count.lost:,} better",
        bad=bad,
        unit="judged pair",
        nothing=f"the judge has no opinion of {counted(asked, 'pair')}, and the remark on it says "
        "why: mend it, or leave out --judge-margin",
        sampled=asked if asked < differing.events else 0,
        share=count.trials / max(count.trials, differing.trials),
    )


def _first_token(count: Net, evidence: Evidence, margins: Margins) -> Question:
    wait = f"{evidence.first_token_ratio:g} times the primary's wait"
    bad = f"have their first token after more than {wait}"
    return Question(
        name="first_token",
        count=count,
        margin=margins.max_late_first_tokens,
        seen=f"{_of(count.gained, count.trials, 'stream')} {bad}, {count.lost:,} the other way "
        "round",
        bad=bad,
        unit="stream",
        share=count.trials / max(count.trials, evidence.faults.trials),
    )


def _coverage(missing: Rate | Unmirrored, margins: Margins) -> Question:
    per_pair = 1.0
    if isinstance(missing, Rate):
        seen = f"{_of(missing.trials - missing.events, missing.trials, 'primary call')} are paired"
        hint = ""
    else:
        per_pair = 1 / missing.share
        seen = (
            f"{counted(missing.pairs, 'pair')} among {counted(missing.trials, 'primary call')}, "
            f"of which {percent(missing.share)} are mirrored"
        )
        hint = (
            f"a mirror of {percent(missing.share)} hides its losses behind chance: mirror "
            "everything, or ask for less with --min-coverage, to know sooner"
        )
    return Question(
        name="coverage",
        count=missing,
        margin=margins.min_coverage,
        seen=seen,
        bad="have no shadow call",
        unit="call",
        is_minimum=True,
        hint=hint,
        share=per_pair,
    )


def _share_that_answers(compared: int, errors_alike: int) -> float:
    """Of the pairs to come; 1 while there are no answers."""
    return compared / (compared + errors_alike) if compared else 1.0


def _nothing_compared(faults: Rate) -> str:
    if not faults.trials:
        return ""
    calls = counted(faults.trials, "call")
    if faults.events == faults.trials:
        return f"all of the {calls} have a new fault, which leaves no answers to compare: mend that"
    return (
        f"none of the {calls} has an answer of the primary's to agree with: send "
        "requests that it answers with 2xx, and store bodies whole"
    )


def _of(events: int, trials: int, noun: str = "pair") -> str:
    return f"{events:,} of {counted(trials, noun)}"
