"""Gates: one share, its interval, its margin, and whether it passes, fails or waits.

A gate passes when its anytime interval at `alpha` lies within the margin. To promote, every gate
must pass, so a shadow that is beyond one margin is promoted with chance at most `alpha`, however
many gates there are and however often one looks (an intersection-union test). One failing gate
rejects, so failing is asked at `alpha` divided by the number of gates (Bonferroni). The
sentences give the bounds of the interval at `alpha`, which the gate shows, whatever decided it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shadow_report.counts import ChangeTally, Evidence, Tally
from shadow_report.margins import Margins
from shadow_report.needs import Need, what_settles
from shadow_report.statistics.interval import Interval
from shadow_report.wording import counted, percent

__all__ = [
    "ChangeTally",
    "Evidence",
    "Gate",
    "Need",
    "Status",
    "Tally",
    "change_gate",
    "coverage_gate",
    "judge",
    "rate_gate",
]

Status = Literal["pass", "fail", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One line of the report.

    name: `coverage`, `faults`, `disagreement` or `slow`.
    estimate: the observed share; None without a single trial.
    interval: holds the true share at every look together with chance 1 - alpha.
    margin: a minimum for `coverage` (`is_minimum`), a maximum for the others.
    n: pairs (calls for `coverage`); n_eff: what they are worth after clustering.
    reason: one sentence for a person.
    need: for a waiting gate, what would settle it; else None.
    """

    name: str
    estimate: float | None
    interval: Interval
    margin: float
    is_minimum: bool
    n: int
    n_eff: float
    status: Status
    reason: str
    need: Need | None = None


def judge(evidence: Evidence, margins: Margins) -> tuple[Gate, ...]:
    """Every gate, in the order coverage, faults, disagreement, slow (only with an SLO).

    New faults are judged whatever the shadow mends. Slow answers are judged net of those that are
    slow on the primary's side only: near an SLO both sides cross it by chance, and an identical
    shadow must be able to pass.
    """
    alpha, slow = margins.alpha, evidence.slow
    reject_alpha = alpha / (3 if slow is None else 4)
    mended = f" ({evidence.faults.lost:,} mended)" if evidence.faults.lost else ""
    gates = [
        coverage_gate(evidence.missing, margins.min_coverage, alpha, reject_alpha),
        rate_gate(
            "faults",
            evidence.faults.gains,
            margins.max_faults,
            alpha,
            reject_alpha,
            what=f"have a new fault{mended}",
        ),
        rate_gate(
            "disagreement",
            evidence.disagreement,
            margins.max_disagreement,
            alpha,
            reject_alpha,
            what="disagree",
        ),
    ]
    if slow is not None:
        gates.append(change_gate("slow", slow, margins.max_slow, alpha, reject_alpha, what="slow"))
    return tuple(gates)


def rate_gate(
    name: str, tally: Tally, maximum: float, alpha: float, reject_alpha: float, *, what: str
) -> Gate:
    """A share of pairs that must stay at or under `maximum`; `what` as in "3 of 9 pairs differ"."""
    seen = f"{tally.events:,} of {counted(tally.trials, 'pair')} {what}"
    return _gate(name, tally, maximum, alpha, reject_alpha, seen=seen)


def change_gate(
    name: str, tally: ChangeTally, maximum: float, alpha: float, reject_alpha: float, *, what: str
) -> Gate:
    """A share of pairs gained minus lost that must stay at or under `maximum`; `what` is an
    adjective, as in "9 of 200 pairs are newly slow, 2 no longer slow".
    """
    seen = (
        f"{tally.gained:,} of {counted(tally.trials, 'pair')} are newly {what}, "
        f"{tally.lost:,} no longer {what}"
    )
    return _gate(name, tally, maximum, alpha, reject_alpha, seen=seen)


def coverage_gate(missing: Tally, minimum: float, alpha: float, reject_alpha: float) -> Gate:
    """The share of primary calls that have a shadow call must stay at or over `minimum`."""
    interval = missing.interval(alpha)
    covered = Interval(1 - interval.upper, 1 - interval.lower)
    status = _status(missing, 1 - minimum, alpha, reject_alpha)
    paired = missing.trials - missing.events
    seen = f"{paired:,} of {counted(missing.trials, 'primary call')} are paired"
    need = None
    if status == "wait":
        need = what_settles(missing, 1 - minimum, alpha, reject_alpha, "call")
        found = f"between {percent(covered.lower)} and {percent(covered.upper)}"
    elif status == "pass":
        found = f"at least {percent(covered.lower)}"
    else:
        found = f"at most {percent(covered.upper)}"
    return Gate(
        name="coverage",
        estimate=None if missing.rate is None else 1 - missing.rate,
        interval=covered,
        margin=minimum,
        is_minimum=True,
        n=missing.trials,
        n_eff=missing.n_eff,
        status=status,
        reason=_sentence(seen, found, f"needed {percent(minimum)}", need),
        need=need,
    )


def _gate(
    name: str,
    tally: Tally | ChangeTally,
    maximum: float,
    alpha: float,
    reject_alpha: float,
    *,
    seen: str,
) -> Gate:
    interval = tally.interval(alpha)
    status = _status(tally, maximum, alpha, reject_alpha)
    need = None
    if status == "wait":
        need = what_settles(tally, maximum, alpha, reject_alpha, "pair")
        found = f"between {percent(interval.lower)} and {percent(interval.upper)}"
    elif status == "pass":
        found = f"at most {percent(interval.upper)}"
    else:
        found = f"at least {percent(interval.lower)}"
    return Gate(
        name=name,
        estimate=tally.rate,
        interval=interval,
        margin=maximum,
        is_minimum=False,
        n=tally.trials,
        n_eff=tally.n_eff,
        status=status,
        reason=_sentence(seen, found, f"allowed {percent(maximum)}", need),
        need=need,
    )


def _status(
    tally: Tally | ChangeTally, maximum: float, alpha: float, reject_alpha: float
) -> Status:
    if not tally.trials:
        return "wait"
    if tally.interval(alpha).upper <= maximum:
        return "pass"
    return "fail" if tally.interval(reject_alpha).lower > maximum else "wait"


def _sentence(seen: str, found: str, margin: str, need: Need | None) -> str:
    after = "" if need is None else f"; {need.reason}"
    return f"{seen}: {found}, {margin}{after}."
