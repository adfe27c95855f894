"""The fast comparer, against the plain reference and against what a comparison must be."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from values_of_kinds import READS, Reads

from shadow_report.answers.bodies import UNPARSEABLE, parse
from shadow_report.answers.comparer import OUTCOMES, Comparer
from shadow_report.answers.explain import differences, first_difference
from shadow_report.answers.figures import advice, path_reports
from shadow_report.answers.kinds import (
    TITLES,
    Floats,
    Ignored,
    Json,
    Labels,
    Patterns,
    Tolerance,
    TopClass,
    Variant,
)
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rule, Rules
from shadow_report.answers.similarity import Ranking, Text
from shadow_report.rules import KINDS

RULES = Rules(tolerance=Tolerance(1e-3, 1e-3))

numbers = (
    st.integers(-5, 5)
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.integers(2**70, 2**70 + 2)
    | st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.0005, 1e308, -1e308, float("nan"), float("inf")])
    | st.floats()
)
scalars = numbers | st.none() | st.booleans() | st.text("ab", max_size=2)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("xy.[", max_size=2), inner),
    max_leaves=12,
)
# Pairs that differ in one place are rare among independent ones, so they are made on purpose.
tensors = st.builds(
    lambda data, datatype, nested: {
        "model_name": "m",
        "outputs": [
            {
                "name": "a",
                "datatype": datatype,
                "shape": [len(data)],
                "data": [[x] for x in data] if nested else data,
            }
        ],
    },
    st.lists(numbers, max_size=4),
    st.sampled_from(["FP32", "FP64"]),
    st.booleans(),
)
answers = documents | tensors


def as_parsed(value: Any) -> Any:
    return parse(json.dumps(value).encode())


def outcomes_of(primary: Any, shadow: Any, rules: Rules = RULES) -> set[tuple[str, Outcome]]:
    """(path, outcome) of everything that the comparer marks."""
    comparer = Comparer(rules)
    comparer.compare(primary, shadow, 0)
    codes = comparer.flush().codes.tolist()
    paths = [place.path for place in comparer.places.all]
    return {(paths[code // OUTCOMES], Outcome(code % OUTCOMES)) for code in codes}


def assert_agrees_with_the_reference(one: Any, other: Any, given: Rules) -> None:
    """The gravest outcome at each path, and which places are told apart."""
    worst: dict[str, Outcome] = {}
    for difference in differences(one, other, given):
        at = difference.template
        worst[at] = max(worst.get(at, Outcome.EQUAL), difference.outcome)
    marked: dict[str, Outcome] = {}
    for path, outcome in outcomes_of(one, other, given):
        marked[path] = max(marked.get(path, Outcome.EQUAL), outcome)
    assert marked == worst, "comparer.py (left) and explain.py (right)"


@given(answers)
def test_reflexive(value: Any) -> None:
    """Any answer equals itself, whatever is in it."""
    assert outcomes_of(as_parsed(value), as_parsed(value)) == set()


OPPOSITE = {
    Outcome.MISSING: Outcome.EXTRA,
    Outcome.EXTRA: Outcome.MISSING,
    Outcome.NON_FINITE: Outcome.APPEARED,
    Outcome.APPEARED: Outcome.NON_FINITE,
}


@given(answers, answers)
def test_symmetric(first: Any, second: Any) -> None:
    """With the sides swapped the same places differ; missing and extra, broken and new swap."""
    one, other = as_parsed(first), as_parsed(second)
    there = Counter((d.path, d.outcome) for d in differences(one, other, RULES))
    back = Counter(
        (d.path, OPPOSITE.get(d.outcome, d.outcome)) for d in differences(other, one, RULES)
    )
    assert there == back
    # The gravest outcome per list may swap with another; whether a place differs may not.
    assert {path for path, _ in outcomes_of(one, other)} == {p for p, _ in outcomes_of(other, one)}


@given(answers, answers)
@example([0, 0, 1e308, 1e308], [0, 1e308, 1e308, 0])
@example([0, 1.0, math.nan], [1.0, 0, math.nan])
@example([0, 1.0, math.inf], [1.0, 0, math.inf])
@settings(max_examples=300)
def test_agrees_with_the_reference(first: Any, second: Any) -> None:
    """Batched or one by one, the gravest outcome at each path is the same."""
    one, other = as_parsed(first), as_parsed(second)
    assert_agrees_with_the_reference(one, other, RULES)
    worst = {difference.outcome for difference in differences(one, other, RULES)}
    assert (first_difference(one, other, RULES) is None) == (not worst)


paths = st.sampled_from(
    [
        "x",
        "*",
        "..x",
        "[0]",
        "[*][1]",
        "y[-1]",
        "[0:2]",
        "[?@.x]",
        "..[0]",
        "..*",
        "x[?@==1]",
        "*[*]",
        "outputs[0].datatype",
    ]
)
hows = st.sampled_from([reads.how for reads in READS])
rules = st.builds(
    Rules,
    tolerance=st.just(Tolerance(1e-3, 1e-3)),
    by_path=st.lists(st.builds(Rule.of, paths, hows, st.none() | st.just(0.1)), max_size=3).map(
        tuple
    ),
)


@given(answers, answers, rules)
@settings(max_examples=500)
def test_agrees_with_the_reference_under_any_rules(first: Any, second: Any, given: Rules) -> None:
    """Names, wildcards, positions, slices, filters, descent; also which places are told apart."""
    assert_agrees_with_the_reference(as_parsed(first), as_parsed(second), given)


def test_every_kind_has_values() -> None:
    """Without some that it reads, nothing below would try it."""
    missing = {*KINDS.split(", "), *TITLES.values()} - {reads.kind for reads in READS}
    assert not missing, f"values_of_kinds.py, READS lacks {missing}"


each_kind = pytest.mark.parametrize("reads", READS, ids=lambda reads: reads.kind)


@each_kind
def test_each_kind_agrees_with_the_reference_on_what_it_reads(reads: Reads) -> None:
    """Alone, below a rule and beside others; and it decides: without it some outcome is another."""
    decided: set[Outcome] = set()
    here = Rule.of("t", reads.how)
    others = st.builds(Rule.of, st.sampled_from(["t", "*", "..*", "t[*]", "t.x"]), hows)
    drawn = st.sampled_from(reads.values) | documents

    @example(*reads.values[:2], [], 0)
    @example(*reads.values[:3:2], [], 0)
    @given(drawn, drawn, st.lists(others, max_size=2), st.integers(0, 2))
    def hold(first: Any, second: Any, beside: list[Rule], at: int) -> None:
        one, other = as_parsed({"t": first}), as_parsed({"t": second})
        by_path = (*beside[:at], here, *beside[at:])
        assert_agrees_with_the_reference(one, other, replace(RULES, by_path=by_path))
        alone = gravest(one, other, here)
        if alone is not gravest(one, other):
            decided.add(alone)

    hold()
    assert decided or reads.how is None, f"no drawn pair is judged by {reads.kind}"


def gravest(one: Any, other: Any, *by_path: Rule) -> Outcome:
    """What the reference says of a pair."""
    found = first_difference(one, other, replace(RULES, by_path=by_path))
    return Outcome.EQUAL if found is None else found.outcome


@pytest.mark.parametrize(
    "reads",
    [reads for reads in READS if not isinstance(reads.how, Ignored | Variant)],
    ids=lambda reads: reads.kind,
)
def test_no_kind_hides_another_type(reads: Reads) -> None:
    """Wherever in a value it stands: an item of another type is not just another item. What a
    ranking does not look at is left out, and the two kinds that are meant to hide it.
    """
    for first in reads.values:
        for at, second in _with_another_type(first):
            if isinstance(reads.how, Ranking):
                beyond = at and at[0] >= reads.how.top
                if beyond or (len(at) > 1 and at[1] != reads.how.key):
                    continue
            one, other = as_parsed({"t": first}), as_parsed({"t": second})
            if gravest(one, other).is_fault:
                assert gravest(one, other, Rule.of("t", reads.how)).is_fault, (first, second)


OF_EACH_TYPE = (None, True, 1.5, "zz", [], [1], {}, {"x": 1})


def _with_another_type(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where it was changed, and the value with one of another type there."""
    own = float if type(value) is int else type(value)
    yield from (((), other) for other in OF_EACH_TYPE if type(other) is not own)
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            for at, changed in _with_another_type(value[key]):
                whole = copy.copy(value)
                whole[key] = changed
                yield (key, *at), whole


@pytest.mark.parametrize(
    ("primary", "shadow", "named"),
    [
        ({"own": "a", "x": 1}, {"own": "b", "x": 2}, "x"),
        ({"own": "a", "x": 1}, {"own": "b", "x": 1.0000001}, "own"),
        ({"own": "a", "x": 1}, {"x": 2}, "own"),  # a fault, which no margin allows
        ({"own": [1, 2], "x": 1}, {"own": [2, 1], "x": 2}, "x"),
        ({"c": 1, "a": 1, "b": 1}, {"a": 2, "b": 2, "c": 2}, "c"),
    ],
)
def test_the_difference_that_is_judged_is_named(primary: Any, shadow: Any, named: str) -> None:
    """One that its own margin allows only where there is no other; of equals the first of the
    primary's.
    """
    rules = Rules(by_path=(Rule.of("own", Labels(), 0.1), Rule.of("own[*]", Labels(), 0.1)))
    found = first_difference(primary, shadow, rules)
    assert found is not None
    assert found.path.partition("[")[0] == named


@pytest.mark.parametrize("margin", [None, 0.01])
def test_what_a_rule_for_lists_finds_has_that_rules_margin(margin: float | None) -> None:
    """Of the numbers in the list there is another one, which is not asked."""
    rules = Rules(by_path=(Rule.of("p", TopClass(), margin), Rule.of("p", RULES.tolerance, 0.1)))
    found = first_difference({"p": [0.4, 0.6]}, {"p": [0.6, 0.4]}, rules)
    assert found is not None
    assert found.has_own_margin is (margin is not None)


@each_kind
def test_the_page_says_which_figures_each_kind_has(reads: Reads) -> None:
    """By what the report calls its values, wherever there is something to draw."""
    page = Path(__file__).parents[3] / "docs" / "comparing.md"
    table = page.read_text().partition("| values | figures |")[2].partition("\n\n")[0]
    listed = {values for row in table.splitlines()[2:] for values in row.split("|")[1:2]}
    first, agreeing, other, *_ = reads.values
    comparer = Comparer(Rules(by_path=(Rule.of("t", reads.how),)))
    for row, second in enumerate([first, agreeing, other]):
        comparer.compare(as_parsed({"t": first}), as_parsed({"t": second}), row)
    comparer.flush()
    drawn = {
        found.kind
        for found in path_reports(comparer.places.all, Counter(), 0.05)
        if found.similarities or found.labels or found.numbers
    }
    drawn -= {"mixed"}  # a place with values of several
    unsaid = {kind for kind in drawn if not any(kind in values for values in listed)}
    assert not unsaid, f"docs/comparing.md, values and figures: no row for {unsaid}"


@each_kind
@pytest.mark.parametrize("differing", [0, 1])
def test_each_kind_counts_every_pair(reads: Reads, differing: int) -> None:
    """Those that agree too: without them a place is not shown, or as if all of it differed."""
    first, agreeing, other, *_ = reads.values
    comparer = Comparer(Rules(by_path=(Rule.of("t", reads.how),)))
    for row, second in enumerate([first, agreeing, agreeing, *[other] * differing]):
        comparer.compare(as_parsed({"t": first}), as_parsed({"t": second}), row)
    marks = comparer.flush()
    telling = marks.outcomes >= Outcome.APPEARED
    at = {*zip(marks.rows[telling].tolist(), marks.places[telling].tolist(), strict=True)}
    found = path_reports(comparer.places.all, Counter(place for _, place in at), 0.05)
    told = {p.path: (p.pairs, p.values, p.agreeing, p.differing_pairs) for p in found}
    if isinstance(reads.how, Ignored):
        assert not told
        return
    pairs = 3 + differing
    counted = pairs, pairs * reads.each, 3 * reads.each, differing
    assert told.get(reads.counted) == counted, "comparer.py, or figures.py, _kind"
    for measure in (measure for place in found for measure in place.similarities):
        is_parameter = measure.name in getattr(reads.how, "__dataclass_fields__", ())
        name = measure.name if is_parameter else "least"
        assert hasattr(reads.how, name), f"{reads.kind} has no {measure.name}, and no least"
        assert measure.least == getattr(reads.how, name), "figures.py, _least"


of_texts = pytest.mark.parametrize(
    "reads", [reads for reads in READS if reads.is_of_texts], ids=lambda reads: reads.kind
)


@of_texts
def test_the_nearest_kind_of_texts_counts(reads: Reads) -> None:
    """Not one above it, however little that asks; and one that is nearer takes its place."""
    first, agreeing, other, *_ = reads.values
    loose, here = Rule.of("a", Text(0.0)), Rule.of("a.t", reads.how)

    def under(second: str, *by_path: Rule) -> Outcome:
        return gravest({"a": {"t": first}}, {"a": {"t": second}}, *by_path)

    assert under(agreeing, loose, here) <= Outcome.WITHIN_TOLERANCE
    assert under(other, loose, here) is under(other, here) >= Outcome.APPEARED
    if not isinstance(reads.how, Json | Patterns):  # which are asked beside another kind
        above, near = Rule.of("a", reads.how), Rule.of("a.t", Text(0.0))
        assert under(other, above, near) is Outcome.WITHIN_TOLERANCE


@of_texts
def test_a_kind_beside_json_is_of_the_text_alone(reads: Reads) -> None:
    """It takes what is not JSON, and says nothing of the texts in what is."""
    first, agreeing, *_ = reads.values
    one, other = ({"t": json.dumps({"x": text})} for text in (first, agreeing))
    json_rule, beside = Rule.of("t", Json()), Rule.of("t", reads.how)
    for by_path in ((json_rule, beside), (beside, json_rule)):
        assert gravest(one, other, *by_path) is gravest(one, other, json_rule) is Outcome.LABEL
    if not isinstance(reads.how, Json):
        assert gravest({"t": first}, {"t": agreeing}, json_rule, beside) < Outcome.APPEARED


def test_a_record_below_a_top_class_keeps_its_numbers() -> None:
    """Its fields are not classes, unless a rule names it or they are probabilities."""
    box, other_box = {"x": 1.0, "y": 5.0}, {"x": 1.0, "y": 4.0}
    spam, less = {"spam": 0.9, "ham": 0.1}, {"spam": 0.8, "ham": 0.2}
    above, named = Rule.of("a", TopClass()), Rule.of("a.box", TopClass())
    assert gravest({"a": {"box": box}}, {"a": {"box": other_box}}, above) is Outcome.NUMBER
    assert gravest({"a": {"box": box}}, {"a": {"box": other_box}}, named) is Outcome.EQUAL
    assert gravest({"a": {"p": spam}}, {"a": {"p": less}}, above) is Outcome.EQUAL
    assert gravest({"a": {"p": spam}}, {"a": {"p": {"spam": 0.8, "ham": 0.9}}}, above) is (
        Outcome.NUMBER
    )


@of_texts
def test_a_margin_of_a_text_is_not_that_of_the_fields_of_json(reads: Reads) -> None:
    """What differs there counts as if the text had none: alone, or by a margin that is above."""
    first, agreeing, *_ = reads.values
    one, other = ({"a": {"t": json.dumps({"x": text})}} for text in (first, agreeing))
    above, beside = Rule.of("a", None, 0.3), Rule.of("a.t", reads.how, 0.2)
    alone, field = Rule.of("a.t", None, 0.2), Rule.of("a.t.x", None, 0.1)

    def margins(*by_path: Rule) -> set[int | None]:
        comparer = Comparer(Rules(by_path=(Rule.of("a.t", Json()), *by_path)))
        comparer.compare(as_parsed(one), as_parsed(other), 0)
        comparer.flush()
        return {place.rules.margin for place in comparer.places.all if place.path == "a.t.x"}

    assert margins() == {None}
    assert margins(alone) == {1}
    assert margins(beside, field) == {2}
    if not isinstance(reads.how, Json):
        assert margins(beside) == {None}
        assert margins(above, beside) == {1}


@given(st.lists(st.tuples(answers, answers), max_size=6))
def test_a_batch_is_the_sum_of_its_pairs(batch: list[tuple[Any, Any]]) -> None:
    """Pairs compared together are marked as each alone."""
    comparer = Comparer(RULES)
    parsed = [(as_parsed(a), as_parsed(b)) for a, b in batch]
    for row, (one, other) in enumerate(parsed):
        comparer.compare(one, other, row)
    marks = comparer.flush()
    paths = [place.path for place in comparer.places.all]
    for row, (one, other) in enumerate(parsed):
        codes = marks.codes[marks.rows == row].tolist()
        assert {(paths[c // OUTCOMES], Outcome(c % OUTCOMES)) for c in codes} == outcomes_of(
            one, other
        )


def test_the_tree_of_places_is_bounded() -> None:
    """Answers whose keys are data do not grow memory; they are still compared."""
    comparer = Comparer(Rules())
    for row in range(2_000):
        comparer.compare({f"customer-{row}": 1.0}, {f"customer-{row}": 2.0}, row)
    assert np.unique(comparer.flush().rows).size == 2_000
    assert len(comparer.places.all) < 600


def test_deep_documents_are_compared_as_a_whole() -> None:
    """Nesting beyond all sense neither fails nor hides a difference."""
    deep = b"[" * 500 + b"1" + b"]" * 500
    other = b"[" * 500 + b"2" + b"]" * 500
    assert outcomes_of(parse(deep), parse(deep)) == set()
    ((_, outcome),) = outcomes_of(parse(deep), parse(other))
    assert outcome is Outcome.TEXT
    assert parse(b"[" * 100_000) is UNPARSEABLE


def test_nothing_is_kept_from_batch_to_batch() -> None:
    """After a flush the next batch starts clean, and totals go on."""
    comparer = Comparer(Rules())
    for _ in range(3):
        comparer.compare([1.0, 2.0], [1.0, 3.0], 0)
        assert comparer.flush().rows.tolist() == [0]
    assert comparer.flush().rows.size == 0
    place = comparer.places.all[1]
    assert (place.numbers.tally.values, place.numbers.tally.agreeing, place.pairs) == (6, 3, 3)


class Angle(Tolerance):
    """Degrees: 359 and 1 are two apart."""

    def difference(self, primary: Floats, shadow: Floats) -> Floats:
        return (shadow - primary + 180) % 360 - 180


def test_a_kind_of_numbers_is_its_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it overrides decides, explains, and is what the figures are of; no advice of others."""
    monkeypatch.setitem(TITLES, Angle, "angle")
    rules = Rules(by_path=(Rule.of("a", Angle(3.0, 0.0)),))
    pairs = [(359.0, 1.0), (10.0, 9.0), (355.0, 90.0), (90.0, 356.0)]
    answers = [({"a": primary}, {"a": shadow}) for primary, shadow in pairs]
    comparer = Comparer(rules)
    for row, (primary, shadow) in enumerate(answers):
        comparer.compare(primary, shadow, row)
    marks = comparer.flush()
    assert marks.rows[marks.outcomes == Outcome.NUMBER].tolist() == [2, 3]
    explained = [first for pair in answers for first in differences(*pair, rules)]
    assert [found.outcome for found in explained] == marks.outcomes.tolist()
    [report] = path_reports(comparer.places.all, Counter(marks.places[2:].tolist()), 0.05)
    assert (report.kind, report.differing_pairs) == ("angle", 2)
    assert report.numbers is not None
    assert report.numbers.absolute_quantiles["max"] == 95.0
    assert report.numbers.bias == pytest.approx((2 - 1 + 95 - 94) / 4)
    assert advice([report]) == ""


def test_a_kind_of_numbers_allows_what_its_rule_says_and_no_more() -> None:
    """One with a difference of its own, of large values too: what is allowed without a rule is for
    those alone.
    """

    class Whole(Tolerance):
        def difference(self, primary: Floats, shadow: Floats) -> Floats:
            return np.round(shadow) - np.round(primary)

    far, near = np.array([1e12, 1e12 + 1]), np.array([1e12 + 1, 1e12 + 1.1])
    differs = np.abs(Whole().difference(far, near)) > Whole().allowed(near)
    assert differs.tolist() == [True, False]
