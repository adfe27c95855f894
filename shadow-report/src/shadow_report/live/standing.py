"""Where a candidate stands: its last report, how old that is, and what may be concluded from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import orjson

from shadow_report.output.files import as_json
from shadow_report.output.page import CandidateLink, Live, render_first_page, render_page
from shadow_report.report import SCHEMA_VERSION, Report
from shadow_report.wording import NOT_RECORDED, counted, duration, moment

# Argo's and Flagger's checks want a 4xx for all that is not PROMOTE; these say which.
STATUS_OF = {"PROMOTE": 200, "REJECT": 412, "INVALID": 422, "WAIT": 425}
REASONS_AT_THE_GATE = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one candidate; a look replaces it.

    seen_at: when its last look began, on the caller's clock in seconds. waiting: calls that no
    follower has come to. another: why the report is of another comparison than the calls are that
    came since, which are still to be counted, no sooner than at recounted_after. fault: why there
    is no newer one.
    """

    name: str
    report: Report | None = None
    seen_at: float | None = None
    waiting: int = 0
    another: str | None = None
    recounted_after: float = 0.0
    fault: str | None = None

    @property
    def candidate(self) -> str:
        """The shadow's service, as its rows or the settings name it."""
        return (self.report.shadow.service if self.report else "") or self.name

    def age(self, now: float) -> float | None:
        """Seconds since its last look, to the millisecond as shown; None before the first."""
        return None if self.seen_at is None else round(max(0.0, now - self.seen_at), 3)

    @property
    def version(self) -> str | None:
        """The shadow's, when all calls that were judged recorded the same one."""
        versions = set(self.report.shadow.model_versions) if self.report else set()
        return versions.pop() if len(versions) == 1 and versions != {NOT_RECORDED} else None

    def conclude(self, now: float, max_age: timedelta, version: str | None = None) -> Conclusion:
        """What may be concluded now: the last verdict, or WAIT when that is too old, when calls of
        another comparison came, or, with a version, when it is not of that one alone.
        """
        age = self.age(now)
        if self.report is None or age is None:
            why = self.fault or "The tables are being read for the first time."
            return Conclusion(self, "WAIT", (why,), None)
        if age <= max_age.total_seconds():
            verdict, reasons = self.report.verdict, self.report.reasons
            if self.another is not None:
                left = self.recounted_after - now
                verdict, reasons = "WAIT", (_of_before(verdict, self.another, left),)
            elif version is not None and version != self.version:
                verdict, reasons = "WAIT", (_of_others(version, self.report),)
            return Conclusion(self, verdict, reasons, age)
        why = (
            f"The last verdict, {self.report.verdict}, is {duration(timedelta(seconds=age))} old; "
            f"past {duration(max_age)} nothing is promoted on it."
        )
        reasons = (why, *([self.fault] if self.fault else []))
        return Conclusion(self, "WAIT", reasons, age)


def _of_before(verdict: str, why: str, left: float) -> str:
    """left: the seconds until all calls may be counted."""
    when = f"in about {duration(timedelta(seconds=round(left)))}, " if left > 1 else ""
    return (
        f"The last verdict, {verdict}, is of the calls before: {why}. The next one comes {when}"
        "once all calls have been counted from the start."
    )


def _of_others(version: str, report: Report) -> str:
    """That this version is not what was judged, and what makes it so."""
    judged = report.shadow.model_versions
    what_then = (
        "Judge the calls since its rollout alone: --since."
        if version in judged
        else f"The first call that the shadow records as {version} changes that; if none comes, "
        "see manifests/README.md at When no pair arrives."
    )
    said = " and ".join(judged) or "none"
    return f"Asked about version {version}; the calls judged are of {said}. {what_then}"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """A candidate's verdict at one moment."""

    standing: Standing
    verdict: str
    reasons: tuple[str, ...]
    age_seconds: float | None

    @property
    def status(self) -> int:
        """The HTTP status at the gate."""
        return STATUS_OF[self.verdict]

    def gate(self) -> bytes:
        """The verdict and its reasons as JSON."""
        return orjson.dumps(
            {
                "verdict": self.verdict,
                "reasons": self.reasons[:REASONS_AT_THE_GATE],
                "candidate": self.standing.candidate,
                "version": self.standing.version,
                "age_seconds": self.age_seconds,
            }
        )

    def document(self) -> bytes:
        """The report as JSON, as `compare --json` writes it, with its age."""
        report = self.standing.report
        if report is None:
            nothing = {"schema_version": SCHEMA_VERSION, "pairs": 0, "gates": []}
            verdict = {"verdict": self.verdict, "reasons": self.reasons, "age_seconds": None}
            return orjson.dumps(nothing | verdict, option=orjson.OPT_INDENT_2) + b"\n"
        text = as_json(replace(report, verdict=self.verdict, reasons=self.reasons))
        head = b'{\n  "age_seconds": %.3f,\n  "waiting_calls": %d,\n'
        return head % (self.age_seconds or 0.0, self.standing.waiting) + text.removeprefix(b"{\n")

    def age_text(self) -> str:
        """How old the figures are, for a reader."""
        report = self.standing.report
        if report is None or self.age_seconds is None:
            return ""
        age = duration(timedelta(seconds=self.age_seconds))
        text = f"Calls up to {moment(report.window.until)} UTC, looked at {age} ago."
        if waiting := self.standing.waiting:
            text += f" {counted(waiting, 'call')} not sent to the shadow yet."
        return f"{text} {self.standing.fault}" if self.standing.fault else text

    def page(self, every: timedelta, age_mark: str, links: tuple[CandidateLink, ...]) -> str:
        """The page, with a mark where `age_text` belongs; a few words before the first look."""
        report, seconds = self.standing.report, max(1, round(every.total_seconds()))
        if report is None:
            return render_first_page(self.reasons[0], seconds)
        progress = None
        if report.more_pairs:
            progress = int(100 * report.pairs / (report.pairs + report.more_pairs))
        live = Live(seconds, age_mark, links, progress)
        return render_page(replace(report, verdict=self.verdict, reasons=self.reasons), live)
