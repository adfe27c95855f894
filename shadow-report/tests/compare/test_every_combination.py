"""Every combination of what both sides can do, through real tables: docs/verdict.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from traffic import START, Call, Compare, pair

from shadow_report.answers.outcome import ARE_COMPARED, OUTCOME_OF, Answer, Kind, Outcome
from shadow_report.report import Report

ERROR = '{"error": "x"}'
# What a side records for each; None: no call.
SIDES: dict[Answer, dict[str, object] | None] = {
    Answer.NO_CALL: None,
    Answer.NO_ANSWER: {"status": None},
    Answer.ABANDONED: {"status": 499, "answer": None},
    Answer.SERVER_ERROR: {"status": 500, "answer": ERROR},
    Answer.BROKEN: {"generation": {"stream_end": "cut"}, "error": "cut off after 2 chunks"},
    Answer.CLIENT_ERROR: {"status": 400, "answer": ERROR},
    Answer.REDIRECT: {"status": 302, "answer": None},
    Answer.CUT: {"cut": True, "answer": b'{"predictions": [1'},
    Answer.LEFT: {"generation": {"stream_end": "left"}, "error": "the caller left"},
    Answer.UNPARSEABLE: {"answer": b"pong"},
    Answer.VALUES: {},
}
COMBINATIONS = [(p, s) for p in Answer for s in Answer if p or s]
# What else the bodies can say where they are compared.
BODIES: dict[Answer, list[tuple[dict[str, object], Kind]]] = {
    Answer.SERVER_ERROR: [
        ({"status": 503}, Kind.DIFFERS),
        ({"answer": '{"error": "y"}'}, Kind.DIFFERS),
        ({"answer": b"y"}, Kind.DIFFERS),
        ({"answer": '{ "error":  "x" }'}, Kind.EQUAL),
        ({"cut": True}, Kind.NOT_COMPARED),
        ({"status": 700}, Kind.DIFFERS),
    ],
    Answer.CLIENT_ERROR: [
        ({"status": 404}, Kind.DIFFERS),
        ({"answer": "{}"}, Kind.DIFFERS),
        ({"answer": None}, Kind.DIFFERS),
        ({"cut": True}, Kind.NOT_COMPARED),
    ],
    Answer.REDIRECT: [({"status": 301}, Kind.DIFFERS), ({"answer": b"x"}, Kind.DIFFERS)],
    Answer.UNPARSEABLE: [
        ({"answer": b"pang"}, Kind.DIFFERS),
        ({"answer": None}, Kind.DIFFERS),
        ({"status": 204}, Kind.DIFFERS),
    ],
    Answer.VALUES: [
        ({"status": 202}, Kind.DIFFERS),
        ({"answer": '{"predictions": [6.6, 124.6, 648.00000001]}'}, Kind.WITHIN_TOLERANCE),
        ({"answer": '{"predictions": [6.6, 124.6, 649.0]}'}, Kind.DIFFERS),
        ({"answer": '{"predictions": [6.6, 124.6]}'}, Kind.NEW_FAULT),
        ({"answer": '{"predictions": [6.6]}', "status": 202}, Kind.NEW_FAULT),
    ],
}


def calls_of(i: int, primary: dict[str, object] | None, shadow: object) -> list[Call]:
    """Both calls of one pair, or one of them, an hour before any other."""
    calls = pair(i, primary or {}, shadow or {})  # type: ignore[arg-type]
    return [c for c, side in zip(calls, (primary, shadow), strict=True) if side is not None]


def kind_of(report: Report) -> Kind:
    """What became of the only call after the first pair, as the report counts it."""
    if report.primary.unpaired:
        assert report.pairs == 1
        return Kind.MISSING
    if report.pairs == 1:
        assert report.shadow.unpaired == 1
        return Kind.NOT_COMPARED
    (name,) = [n for n, count in report.outcomes.items() for _ in range(count - (n == "equal"))]
    return next(outcome.kind for outcome in Outcome if outcome.title == name)


@pytest.mark.parametrize(
    ("primary", "shadow"), COMBINATIONS, ids=[f"{p.title}-{s.title}" for p, s in COMBINATIONS]
)
def test_every_combination_is_what_the_table_says(
    compared: Compare, primary: Answer, shadow: Answer
) -> None:
    """One good pair, and the combination: its kind, and the count that a gate sees."""
    report = compared(pair(0) + calls_of(1, SIDES[primary], SIDES[shadow]))
    outcome = Outcome(OUTCOME_OF[primary, shadow])
    expected = outcome.kind
    if primary is shadow and ARE_COMPARED[primary, shadow]:
        expected = Kind.EQUAL
    assert kind_of(report) is expected
    counts = {gate.name: round((gate.estimate or 0) * gate.n) for gate in report.gates}
    assert report.new_faults == (expected is Kind.NEW_FAULT)
    assert report.disagreements == (expected is Kind.DIFFERS)
    assert counts["faults"] == (expected in {Kind.NEW_FAULT, Kind.MISSING})
    assert counts["disagreement"] == (expected is Kind.DIFFERS)
    is_unknown = expected is Kind.NOT_COMPARED and Answer.CUT in {primary, shadow}
    is_unknown &= primary not in {Answer.NO_CALL, Answer.NO_ANSWER, Answer.ABANDONED}
    is_unknown &= Answer.LEFT not in {primary, shadow}
    is_bad = expected in {Kind.NEW_FAULT, Kind.DIFFERS, Kind.MISSING} or is_unknown
    assert counts["bad"] == is_bad


def test_bodies_decide_where_the_table_leaves_it_to_them(compared: Compare) -> None:
    """Another status of the same class, and every way in which two bodies can stand."""
    first = START
    assert BODIES.keys() == {answer for answer in Answer if ARE_COMPARED[answer, answer]}
    for answer, cases in BODIES.items():
        for change, kind in cases:
            primary = SIDES[answer] or {}
            calls = calls_of(1, primary, {**primary, **change})
            first += timedelta(minutes=1)
            moved = [
                replace(call, time=first, pair_id=f"{first}-{call.pair_id}")
                for call in pair(0) + calls
            ]
            window = {"since": first, "until": first + timedelta(seconds=30)}
            assert kind_of(compared(moved, **window)) is kind, (answer, change)


ENDS = [
    ({"stream_end": "done"}, None, Answer.VALUES),
    ({"stream_end": "no_done"}, None, Answer.VALUES),
    ({"prompt_tokens": 3}, None, Answer.VALUES),
    ({"stream_end": "done"}, "CUDA out of memory", Answer.BROKEN),
    ({"stream_end": "no_done"}, "CUDA out of memory", Answer.BROKEN),
    ({"stream_end": "cut"}, "cut off", Answer.BROKEN),
    ({"stream_end": "left"}, "the caller left", Answer.LEFT),
    ({"stream_end": "stopped"}, "stopped", Answer.LEFT),
]


@pytest.mark.parametrize("side", ["primary", "shadow"])
@pytest.mark.parametrize(("generation", "error", "answer"), ENDS)
def test_every_end_of_a_stream_is_a_row_of_the_table(
    compared: Compare, side: str, generation: dict[str, object], error: str | None, answer: Answer
) -> None:
    """With status 200: a stream that broke is that side's fault, one that was left is nobody's."""
    ended = {"generation": generation, "error": error}
    report = compared(pair(0) + calls_of(1, *((ended, {}) if side == "primary" else ({}, ended))))
    row = (answer, Answer.VALUES) if side == "primary" else (Answer.VALUES, answer)
    kind = Outcome(OUTCOME_OF[row]).kind
    assert kind_of(report) is kind
    assert report.integrity.abandoned == (answer is Answer.LEFT)
    table = report.errors
    assert (table.primary_only, table.shadow_only) == (
        (answer is Answer.BROKEN) * (side == "primary"),
        (answer is Answer.BROKEN) * (side == "shadow"),
    )
    named = [s.signature for s in report.signatures]
    broken = {"primary": "status 200 (the stream broke off) became 200", "shadow": "200, and the stream broke off"}  # fmt: skip # noqa: E501
    assert named == [broken[side]] * (answer is Answer.BROKEN)
