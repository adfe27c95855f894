"""Findings about what was recorded of the calls."""

from __future__ import annotations

from collections.abc import Iterator

from shadow_report.integrity.facts import Facts
from shadow_report.report import Finding
from shadow_report.wording import counted


def bodies(facts: Facts) -> Iterator[Finding]:
    """Answers that cannot be compared."""
    if facts.cut_pairs:
        beyond = facts.cut_pairs > (1 - facts.min_coverage) * max(1, facts.pairs)
        yield Finding(
            "cut-bodies",
            beyond,
            f"{facts.cut_pairs:,} of {counted(facts.pairs, 'pair')} have a response stored cut; "
            "their answers are not compared.",
            "Raise RECORD_MAX_BODY_BYTES on both transformers.",
        )
    both = min(facts.primary.unparseable, facts.shadow.unparseable)
    if both > (1 - facts.min_coverage) * max(1, facts.pairs):
        yield Finding(
            "unparseable",
            True,
            f"{facts.primary.unparseable:,} answers of the primary are neither JSON nor tensors, "
            "so they can only be compared byte for byte.",
            "Compare JSON answers, or let the model answer in JSON.",
        )


def losses(facts: Facts) -> Iterator[Finding]:
    """Records that are lost, repeated or incomplete."""
    for side in (facts.primary, facts.shadow):
        if side.lost_records:
            beyond = side.lost_records > (1 - facts.min_coverage) * (side.calls + side.lost_records)
            yield Finding(
                "lost-records",
                beyond,
                f"{counted(side.lost_records, 'record')} of the {side.role} lost (inference_gaps).",
                "Was the spool full or its disk failing? Raise SPOOL_MAX_BYTES and look at "
                'prediction_db_records_total{outcome="dropped"}.',
            )
        if side.duplicates:
            beyond = side.duplicates > (1 - facts.min_coverage) * (side.calls + side.duplicates)
            yield Finding(
                "duplicates",
                beyond,
                f"{counted(side.duplicates, 'call')} of the {side.role} with a repeated pair id; "
                "only the first of each counts.",
                "Is a retry policy on, or does a client repeat its ids? Set retries to 0 on the "
                "entry route.",
            )
        if side.unanswered:
            yield Finding(
                "unanswered",
                False,
                f"{counted(side.unanswered, 'call')} of the {side.role} without a response record, "
                "counted as failed.",
                "Did the process die in the middle of them?",
            )
    if facts.in_flight:
        yield Finding(
            "in-flight",
            False,
            f"{counted(facts.in_flight, 'call')} of the last {facts.settle_seconds:g} s left out "
            "as incomplete.",
            "Look again once they have arrived.",
        )
