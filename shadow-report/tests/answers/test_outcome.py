"""The tables of what a pair can be."""

from __future__ import annotations

import pytest

from shadow_report.answers.outcome import IS_DISAGREEMENT, IS_FAULT, OUTCOME_OF, Answer, Outcome

SOUND = [Answer.CUT, Answer.UNPARSEABLE, Answer.VALUES]
FAULTY = [Answer.NO_CALL, Answer.NONE, Answer.FAILED]


def test_every_combination_of_answers_has_an_outcome() -> None:
    """Only the shadow's faults are faults; what neither side can show is left to the values."""
    assert OUTCOME_OF.shape == (len(Answer), len(Answer))
    for primary in Answer:
        for shadow in Answer:
            outcome = Outcome(OUTCOME_OF[primary, shadow])
            if primary in SOUND and shadow in FAULTY:
                assert outcome is Outcome.FAILED
            elif primary in FAULTY:
                assert outcome is (Outcome.MENDED if shadow in SOUND else Outcome.BOTH_FAULTY)
            elif Answer.CUT in (primary, shadow) or primary == shadow == Answer.VALUES:
                assert outcome is Outcome.EQUAL
            elif primary == shadow:
                assert outcome is Outcome.TEXT
            else:
                broken = shadow is Answer.UNPARSEABLE
                assert outcome is (Outcome.UNPARSEABLE if broken else Outcome.MENDED)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_is_a_fault_or_a_disagreement_or_harmless(outcome: Outcome) -> None:
    assert (IS_FAULT[outcome], IS_DISAGREEMENT[outcome]) == (
        outcome.is_fault,
        outcome.is_disagreement,
    )
    harmless = {Outcome.EQUAL, Outcome.WITHIN_TOLERANCE, Outcome.MENDED, Outcome.BOTH_FAULTY}
    assert outcome.is_fault + outcome.is_disagreement == (outcome not in harmless)
    assert outcome.title == outcome.title.lower()
