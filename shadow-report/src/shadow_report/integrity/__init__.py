"""What is wrong with the evidence, and how to mend it."""

from __future__ import annotations

from shadow_report.integrity.facts import Facts
from shadow_report.integrity.pairs import clocks, missing, pairing
from shadow_report.integrity.records import bodies, losses
from shadow_report.integrity.sides import absent, services, versions
from shadow_report.report import Finding

__all__ = ["Facts", "findings"]

QUESTIONS = (absent, services, pairing, versions, bodies, losses, clocks, missing)


def findings(facts: Facts) -> tuple[Finding, ...]:
    """All that is unsound first, then what a reader should know."""
    found = [finding for question in QUESTIONS for finding in question(facts)]
    return tuple(sorted(found, key=lambda finding: not finding.unsound))
