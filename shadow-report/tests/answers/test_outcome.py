"""The tables of what a pair can be, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadow_report.answers.outcome import (
    ARE_COMPARED,
    IS_DISAGREEMENT,
    IS_FAULT,
    OUTCOME_OF,
    Answer,
    Kind,
    Outcome,
)

PAGE = Path(__file__).parents[3] / "docs" / "verdict.md"
BY_THE_BODIES = "by the bodies"


def table_of_the_page() -> dict[tuple[str, str], str]:
    """The cells of the first table of docs/verdict.md, by the primary's and the shadow's answer."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    (_, *shadow), _, *rows = rows[: 2 + len(Answer)]
    return {
        (row[0], title): cell for row in rows for title, cell in zip(shadow, row[1:], strict=True)
    }


def test_the_page_has_the_table_of_the_code() -> None:
    """Every combination, cell by cell, under the same names."""
    expected = {
        (primary.title, shadow.title): BY_THE_BODIES
        if ARE_COMPARED[primary, shadow]
        else Outcome(OUTCOME_OF[primary, shadow]).kind.value
        for primary in Answer
        for shadow in Answer
    }
    assert table_of_the_page() == expected


def test_what_a_caller_would_see_differently_is_never_equal() -> None:
    """Off the diagonal nothing is equal; what is not compared lacks one side's whole answer."""
    unknown = {Answer.NO_CALL, Answer.NO_ANSWER, Answer.ABANDONED, Answer.CUT, Answer.LEFT}
    for primary in Answer:
        for shadow in Answer:
            kind = Outcome(OUTCOME_OF[primary, shadow]).kind
            if primary is not shadow:
                assert kind is not Kind.EQUAL
            if kind is Kind.NOT_COMPARED:
                assert unknown & {primary, shadow}


def test_an_answer_that_fails_where_the_primary_does_not_is_a_new_fault() -> None:
    """The answers stand in the order of worth: a 5xx is worse than a 4xx."""
    for primary in (Answer.CLIENT_ERROR, Answer.REDIRECT, Answer.CUT, Answer.VALUES):
        for shadow in Answer:
            if Answer.NO_CALL < shadow < min(primary, Answer.CUT):
                assert Outcome(OUTCOME_OF[primary, shadow]) is Outcome.FAILED


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_is_of_one_kind(outcome: Outcome) -> None:
    """For arrays as for single ones; each has a name for people."""
    assert (IS_FAULT[outcome], IS_DISAGREEMENT[outcome]) == (
        outcome.is_fault,
        outcome.is_disagreement,
    )
    assert (outcome.kind is Kind.NEW_FAULT) == outcome.is_fault
    assert (outcome.kind is Kind.DIFFERS) == outcome.is_disagreement
    assert outcome.title == outcome.title.lower()
