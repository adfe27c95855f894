"""Paths read and written, and what the options say by path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow_report.answers.bodies import parse
from shadow_report.answers.comparer import MAX_PLACES, OUTCOMES, Comparer
from shadow_report.answers.explain import differences
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import (
    RequestField,
    Rule,
    Rules,
    Tolerance,
    compile_path,
    join,
    spell,
)


@pytest.mark.parametrize(
    ("spellings", "written"),
    [
        (
            ("predictions[*]", "$.predictions[*]", "predictions.*", "$['predictions'].*"),
            "predictions[*]",
        ),
        (("outputs.score.data[*]", '$["outputs"].score["data"][*]'), "outputs.score.data[*]"),
        (("values[0]", "$.values[0]", " values[0] "), "values[0]"),
        (("request_id", "$.request_id", '["request_id"]', "$['request_id']"), "request_id"),
        (('a["b.c"][2]', "$.a['b.c'][2]"), 'a["b.c"][2]'),
        (("[*][*].x", "$[*][*].x", "*.*.x", "$.*.*.x"), "[*][*].x"),
        (("..score", "$..score", "$..['score']"), "..score"),
        (("a..b", "$.a..b", "a..['b']"), "a..b"),
        (('..["a b"]', "$..['a b']"), '..["a b"]'),
        (("a[-1]", "$.a[-1]"), "a[-1]"),
        (("a[1:]", "$.a[1::1]"), "a[1::1]"),
        (('a[?@.b == "x"].c', "$.a[?(@.b=='x')].c"), "a[?@['b'] == 'x'].c"),
        (("größe", "$.größe"), "größe"),
        (("request-id", '["request-id"]'), '["request-id"]'),
    ],
)
def test_every_spelling_of_a_path_is_the_same_path(
    spellings: tuple[str, ...], written: str
) -> None:
    assert {spell(compile_path(text)) for text in spellings} == {written}
    assert spell(compile_path(written)) == written


@pytest.mark.parametrize(
    "text", ["", ".", "a[", "a[x]", "a]b", "a.", "$a", "a[01]", "[]", "a b", "a | b"]
)
def test_what_is_not_a_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        compile_path(text)


@pytest.mark.parametrize(
    "text", ["a[2:1]", "a[::0]", "[3:3]", "a[-1:-2].b", "a[:0]", "a[1:2:-1]", "a[?1 == 2]"]
)
def test_a_path_that_can_never_match_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="can never name a value"):
        compile_path(text)


def test_the_whole_body_is_not_a_place() -> None:
    with pytest.raises(ValueError, match="names the whole body"):
        compile_path("$")


steps = st.lists(
    st.none() | st.integers(0, 99) | st.text("ab.[]*0 '\"\\\n\tü$?@", max_size=4), min_size=1
)


@given(steps)
def test_a_written_path_is_read_back(taken: list[str | int | None]) -> None:
    """What the report shows can be given to --ignore and --tolerance."""
    path = ""
    for step in taken:
        path = join(path, step)
    assert spell(compile_path(path)) == path


def test_a_request_field_is_the_first_value_at_its_path() -> None:
    document = {"meta": {"country": "de"}, "rows": [{"no": 1}, {"id": 7}, {"id": 8}], "flag": False}

    def read(path: str) -> str:
        return RequestField.of(path).read(document, None)

    assert read("meta.country") == read("$['meta']['country']") == "de"
    assert read("rows[1].id") == read("rows[-2].id") == read("rows[*].id") == "7"
    assert read("..id") == read("rows[?@.id].id") == "7"
    assert read("rows[2:].id") == read("rows[?@.id == 8].id") == "8"
    assert read("flag") == "false"
    assert {read("rows[9].id"), read("meta.country.x"), read("meta[0]"), read("rows.id")} == {
        "(none)"
    }


ANSWER = {
    "predictions": [1.0, 2.0, 3.0],
    "meta": {"took": 3, "request_id": "p", "a.b": 1, "inner": {"took": 5}},
    "rows": [{"kind": "x", "score": 1.0}, {"kind": "y", "score": 2.0}],
}
OTHER = {
    "predictions": [10.0, 20.0, 30.0],
    "meta": {"took": 4, "request_id": "s", "a.b": 2, "inner": {"took": 6}},
    "rows": [{"kind": "x", "score": 10.0}, {"kind": "y", "score": 20.0}],
}
EVERYWHERE = {
    "predictions[*]",
    "meta.took",
    "meta.request_id",
    'meta["a.b"]',
    "meta.inner.took",
    "rows[*].score",
}


def compared(primary: Any, shadow: Any, rules: Rules) -> tuple[dict[str, Outcome], Comparer]:
    """The gravest outcome at each path, which must be what the reference walker says."""
    comparer = Comparer(rules)
    comparer.compare(primary, shadow, 0)
    found: dict[str, Outcome] = {}
    marks = comparer.flush()
    for code in marks.codes.tolist():
        path, outcome = comparer.places.all[code // OUTCOMES].path, Outcome(code % OUTCOMES)
        found[path] = max(found.get(path, outcome), outcome)
    walked: dict[str, Outcome] = {}
    for difference in differences(primary, shadow, rules):
        worst = walked.get(difference.template, difference.outcome)
        walked[difference.template] = max(worst, difference.outcome)
    assert walked == found
    return found, comparer


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("predictions", EVERYWHERE - {"predictions[*]"}),
        ("$.predictions[*]", EVERYWHERE - {"predictions[*]"}),
        ("meta['took']", EVERYWHERE - {"meta.took"}),
        ('$["meta"]["a.b"]', EVERYWHERE - {'meta["a.b"]'}),
        ("meta.*", EVERYWHERE - {"meta.took", "meta.request_id", 'meta["a.b"]', "meta.inner.took"}),
        ("..took", EVERYWHERE - {"meta.took", "meta.inner.took"}),
        ("meta..took", EVERYWHERE - {"meta.took", "meta.inner.took"}),
        ("*.took", EVERYWHERE - {"meta.took"}),
        ("predictions[0]", EVERYWHERE),
        ("predictions[0:3]", EVERYWHERE - {"predictions[*]"}),
        ("predictions[0, 1, -1]", EVERYWHERE - {"predictions[*]"}),
        ("rows[0]", EVERYWHERE),
        ('rows[?@.kind == "y"]', EVERYWHERE),
        ('rows[?@.kind == "x" || @.kind == "y"].score', EVERYWHERE - {"rows[*].score"}),
        ('meta[?@ == "p"]', EVERYWHERE - {"meta.request_id"}),
        ("rows[?@.score < $.predictions[2]]", EVERYWHERE - {"rows[*].score"}),
    ],
)
def test_ignoring_by_path(path: str, left: set[str]) -> None:
    found, comparer = compared(ANSWER, OTHER, Rules(by_path=(Rule.of(path),)))
    assert set(found) == left
    assert comparer.unmatched() == ()
    assert comparer.ignored() == (spell(compile_path(path)),)


@pytest.mark.parametrize(
    ("path", "within"),
    [
        ("predictions[0]", {"predictions[0]"}),
        ("predictions[-1]", {"predictions[-1]"}),
        ("predictions[1:]", {"predictions[1::1]"}),
        ("$..[0]", {"predictions[0]", "rows[0].score"}),
        ('rows[?@.kind == "y"].score', {"rows[?@['kind'] == 'y'].score"}),
        ("rows", {"rows[*].score"}),
    ],
)
def test_a_tolerance_holds_where_it_says_and_nowhere_else(path: str, within: set[str]) -> None:
    """Places that a rule singles out are places of their own, in figures and signatures too."""
    found, _ = compared(ANSWER, OTHER, Rules(by_path=(Rule.of(path, Tolerance(100, 0)),)))
    assert {place for place, o in found.items() if o is Outcome.WITHIN_TOLERANCE} == within
    numbers = {"predictions[*]", "meta.took", 'meta["a.b"]', "meta.inner.took", "rows[*].score"}
    assert {place for place, o in found.items() if o is Outcome.NUMBER} == numbers - within


def test_the_nearest_tolerance_counts_and_then_the_last() -> None:
    near, wide, last = Tolerance(1, 0), Tolerance(100, 0), Tolerance(100, 0)
    rules = Rules(by_path=(Rule.of("rows[*].score", near), Rule.of("rows", wide)))
    assert compared(ANSWER, OTHER, rules)[0]["rows[*].score"] is Outcome.NUMBER
    rules = Rules(by_path=(Rule.of("predictions[*]", near), Rule.of("$.predictions.*", last)))
    assert compared(ANSWER, OTHER, rules)[0]["predictions[*]"] is Outcome.WITHIN_TOLERANCE


@pytest.mark.parametrize("path", ["scores", "scores.*", "..price", 'scores["item-519"].price'])
def test_a_rule_applies_however_many_places_there_are(path: str) -> None:
    """Past the bound on the tree of places too, and only where it says."""
    count = MAX_PLACES + 20
    one, other = (
        {"scores": {f"item-{i}": {"price": price} for i in range(count)}, "z": {"cost": price}}
        for price in (1.0, 50.0)
    )
    comparer = Comparer(Rules(by_path=(Rule.of(path),)))
    comparer.compare(one, other, 0)
    marks = comparer.flush()
    differing = sum(place.faults[Outcome.NUMBER] for place in comparer.places.all)
    assert differing == (count if "519" in path else 1)
    assert marks.rows.size
    assert comparer.unmatched() == ()
    assert len(comparer.places.all) < MAX_PLACES + 20


def test_outputs_of_v2_are_found_by_name_position_and_filter() -> None:
    one, other = (
        parse(
            b'{"outputs": [{"name": "a", "datatype": "FP32", "shape": [2], "data": [1, %d]},'
            b'{"name": "b", "datatype": "FP32", "shape": [1], "data": [%d]}]}' % (value, value)
        )
        for value in (2, 3)
    )
    for path in (
        "outputs.b",
        "outputs[1]",
        "outputs[-1].data",
        '$.outputs[?@.name == "b"].data[0]',
        "outputs[1:].data",
    ):
        found, comparer = compared(one, other, Rules(by_path=(Rule.of(path),)))
        assert set(found) == {"outputs.a.data[*]"}, path
        assert comparer.unmatched() == ()


def test_a_rule_that_named_nothing_is_known() -> None:
    """Once something was compared; and what is not compared anyway has no rule either."""
    rules = Rules(
        by_path=(
            Rule.of("meta.tok"),
            Rule.of("predictions.x", Tolerance(1, 0)),
            Rule.of("predictions[3]"),
            Rule.of("..score"),
        )
    )
    assert Comparer(rules).unmatched() == ()
    _, comparer = compared(ANSWER, OTHER, rules)
    unmatched = (
        "rule meta.tok (did you mean meta.took?)",
        "rule predictions.x (did you mean predictions?)",
        "rule predictions[3] (did you mean predictions[*]?)",
    )
    assert comparer.unmatched() == unmatched
    assert comparer.ignored() == ("..score",)
