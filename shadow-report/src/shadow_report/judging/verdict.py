"""The verdict: may the shadow replace the primary?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from shadow_report.judging.questions import Margins
from shadow_report.report import Gate, Need
from shadow_report.wording import counted
from shadow_report.wording import duration as in_words


class Verdict(StrEnum):
    """The four answers; `exit_code` is the process's exit code of `shadow-report compare`."""

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    WAIT = "WAIT"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """The contract's exit code: PROMOTE 0, REJECT 10, WAIT 11, INVALID 12."""
        return {"PROMOTE": 0, "REJECT": 10, "WAIT": 11, "INVALID": 12}[self.value]


def gravest(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that speaks for several, in the order in which a verdict is found: INVALID, REJECT,
    WAIT, and PROMOTE where all of them are.
    """
    order = (Verdict.INVALID, Verdict.REJECT, Verdict.WAIT, Verdict.PROMOTE)
    return min(verdicts, key=order.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer, why, and when it may change.

    reasons: sentences, the most important first; never empty.
    gates: all gates, in the order of the report.
    more_pairs: for WAIT, how many more pairs settle the verdict at the present rates; None when
        nothing does, or when the verdict is not WAIT.
    eta: for WAIT, the time until then at the present rate of such pairs; None when unknown.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    gates: tuple[Gate, ...]
    more_pairs: int | None = None
    eta: timedelta | None = None


def decide(
    gates: Sequence[Gate],
    margins: Margins,
    *,
    problems: Sequence[str] = (),
    duration: timedelta = timedelta(0),
    pairs_per_second: float | None = None,
    further_per_second: Mapping[str, float] | None = None,
    details: Mapping[str, str] | None = None,
) -> Decision:
    """The verdict on these gates.

    Unsound evidence comes first: a problem or failing coverage is INVALID whatever the others say.
    Then one failing gate rejects; to promote, all must pass and the window be long enough.

    problems: sentences that make the evidence unsound (what is wrong and how to mend it).
    duration: how long the window of the evidence is, for `margins.min_duration`.
    pairs_per_second: the present rate of new pairs, for the time that a WAIT takes.
    further_per_second: by gate name, the rate of those that its need counts, where it asks for
        what not all have, such as other requests.
    details: by gate name, a sentence on what it saw; follows the reason of one not passing.
    """
    details = details or {}
    kept = tuple(gates)
    failed = [gate for gate in kept if gate.status == "fail"]
    # What is bad in one way is bad altogether: the sum is a reason only where no part of it is.
    told = [gate for gate in failed if gate.name != "bad" or len(failed) == 1]
    failures = tuple(_reason(gate, details) for gate in told)
    if problems or not kept or any(gate.name == "coverage" for gate in failed):
        reasons = (*problems, *failures, *_least(kept)) or ("There is nothing to judge.",)
        return Decision(verdict=Verdict.INVALID, reasons=reasons, gates=kept)
    if failed:
        return Decision(verdict=Verdict.REJECT, reasons=failures, gates=kept)
    waits = [_reason(gate, details) for gate in kept if gate.status == "wait"]
    missing_time = max(timedelta(0), margins.min_duration - duration)
    if missing_time:
        waits.append(
            f"The window is {in_words(duration)} long; "
            f"the least duration asked for is {in_words(margins.min_duration)}."
        )
    if waits:
        further = further_per_second or {}
        rates = {gate.name: further.get(gate.name, pairs_per_second) for gate in kept}
        return _wait(kept, waits, missing_time, rates)
    rated = [gate for gate in kept if gate.has_figures]
    reason = f"All {len(rated)} gates pass at alpha {margins.alpha:g}, however often one looks"
    reason += f"{_nothing_found(kept)}."
    reason = " ".join((reason, *(gate.reason for gate in kept if gate.path is not None)))
    return Decision(verdict=Verdict.PROMOTE, reasons=(reason,), gates=kept)


def _nothing_found(gates: Sequence[Gate]) -> str:
    """What was looked for besides, and is in no figure."""
    names = {gate.name for gate in gates if not gate.has_figures}
    found = (
        "no run of calls" * bool(names & {"newest", "worst"}),
        "no slice" * ("slices" in names),
    )
    nothing = " and ".join(filter(None, found))
    return f"; {nothing} is worse than allowed" if nothing else ""


def _wait(
    gates: tuple[Gate, ...],
    waits: Sequence[str],
    missing_time: timedelta,
    per_second: Mapping[str, float | None],
) -> Decision:
    waiting = [gate for gate in gates if gate.status == "wait"]
    needs, towards = _settling(waiting)
    more, eta = _more_pairs(needs), _time_for(needs, per_second)
    if towards is Verdict.PROMOTE and (eta is not None or not waiting):
        eta = max(missing_time, eta or timedelta(0))
    summary = _least(gates)
    if waiting and more is not None and not summary:
        when = f", {in_words(eta)} at the present rate" if eta is not None else ""
        # Where the newest calls are bad, more like them promote nothing.
        is_bad_now = towards is Verdict.PROMOTE and any(gate.name == "newest" for gate in waiting)
        kinds = [gate.need.further for gate in waiting if gate.need and gate.need.further]
        like = "" if is_bad_now else f" {kinds[0] if kinds else 'like these'}"
        pairs = counted(more, "more good pair" if is_bad_now else "more pair")
        summary = (f"{pairs}{like} would settle it as {towards}{when}.",)
    elif (stuck := _stuck(waiting)) and not summary:
        summary = (f"More pairs like these settle nothing. What would: {stuck}.",)
    return Decision(
        verdict=Verdict.WAIT, reasons=(*summary, *waits), gates=gates, more_pairs=more, eta=eta
    )


def _stuck(waiting: Sequence[Gate]) -> str:
    """What would have to change for the first gate that no number of such pairs settles."""
    needs = [gate.need for gate in waiting if gate.need is not None and gate.need.pairs is None]
    is_bad_now = any(gate.name == "newest" for gate in waiting)
    return ("a shadow that is well again; then " * is_bad_now + needs[0].reason) if needs else ""


def _least(gates: Sequence[Gate]) -> tuple[str, ...]:
    """Without a single pair: how many a promotion takes at the least."""
    needs, _ = _settling(gates)
    fewest = _more_pairs(needs)
    if not fewest or any(gate.n for gate in gates):
        return ()
    return (f"There are no pairs yet; {Verdict.PROMOTE} takes {fewest:,} at the least.",)


def _settling(waiting: Sequence[Gate]) -> tuple[dict[str, Need], Verdict]:
    """By gate what it needs until the first one fails, if one is on its way there, else until all
    of them pass.
    """
    needs = {gate.name: gate.need for gate in waiting if gate.need is not None}
    failing = {name: need.pairs for name, need in needs.items() if need.towards == "fail"}
    fewest = min((pairs for pairs in failing.values() if pairs is not None), default=None)
    if fewest is None:
        return needs, Verdict.PROMOTE
    first = {name: needs[name] for name, pairs in failing.items() if pairs == fewest}
    return first, Verdict.INVALID if "coverage" in first else Verdict.REJECT


def _more_pairs(needs: Mapping[str, Need]) -> int | None:
    """As many as the last gate needs; None where no number does."""
    pairs = [need.pairs for need in needs.values() if need.pairs is not None]
    return None if len(pairs) < len(needs) else max(pairs, default=0)


def _time_for(
    needs: Mapping[str, Need], per_second: Mapping[str, float | None]
) -> timedelta | None:
    """Until the last of these gates has what it needs; None where one never has, or as far as
    anybody knows.
    """
    longest = 0.0
    for name, need in needs.items():
        rate = per_second[name]
        if need.pairs is None or rate is None or rate <= 0:
            return None
        longest = max(longest, need.pairs / rate)
    # A timedelta holds 999,999,999 days; past a million the figure says nothing anyway.
    return None if longest > 86_400e6 else timedelta(seconds=longest)


def _reason(gate: Gate, details: Mapping[str, str]) -> str:
    """Under the gate's name, which is the place of what a pattern finds: the sentence begins so."""
    named = "" if gate.path == gate.name else f"{gate.name}: "
    return " ".join(filter(None, (f"{named}{gate.reason}", details.get(gate.name))))
