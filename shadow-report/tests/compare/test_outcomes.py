"""Each way in which two answers can differ is found, counted once and named."""

# ruff: noqa: E501 - cases read as a table, one a line

from __future__ import annotations

import gzip
import html
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import numpy as np
import pytest
from traffic import Command, Compare, pair, pairs

from shadow_report.answers.kinds import Tolerance
from shadow_report.answers.paths import Rule, Rules

SAME = '{"predictions": [6.6, 124.6, 648.0]}'

# name, primary's answer, shadow's answer, outcome, is a new fault, signature
CASES = [
    ("number", SAME, '{"predictions": [6.6, 124.7, 648.0]}', "number", False, "predictions[*]: number"),
    ("null for a number", SAME, '{"predictions": [6.6, null, 648.0]}', "non-finite", True, "predictions[*]: non-finite"),
    ("NaN", SAME, b'{"predictions": [6.6, NaN, 648.0]}', "non-finite", True, "predictions[*]: non-finite"),
    ("Infinity", SAME, b'{"predictions": [6.6, 124.6, -Infinity]}', "non-finite", True, "predictions[*]: non-finite"),
    ("too large for a float", SAME, b'{"predictions": [1e400, 124.6, 648.0]}', "non-finite", True, "predictions[*]: non-finite"),
    ("shorter list", SAME, '{"predictions": [6.6, 124.6]}', "length", True, "predictions: length"),
    ("missing field", SAME, '{}', "missing", True, "predictions: missing"),
    ("renamed field", SAME, '{"prediction": [6.6, 124.6, 648.0]}', "missing", True, "predictions: missing + prediction: extra"),
    ("extra field", SAME, '{"predictions": [6.6, 124.6, 648.0], "by": "me"}', "extra", False, "by: extra"),
    ("number as text", SAME, '{"predictions": ["6.6", 124.6, 648.0]}', "type", True, "predictions[*]: type"),
    ("list became a number", SAME, '{"predictions": 6.6}', "type", True, "predictions: type"),
    ("bool is not int", '{"ok": 1}', '{"ok": true}', "type", True, "ok: type"),
    ("not JSON", SAME, b"<html>502</html>", "unparseable", True, "answer: unparseable"),
    ("not UTF-8", SAME, b'{"predictions": "\xff"}', "unparseable", True, "answer: unparseable"),
    ("no body", SAME, None, "unparseable", True, "answer: unparseable"),
    ("label", '{"predictions": ["cat", "dog"]}', '{"predictions": ["cat", "cow"]}', "label", False, "predictions[*]: label"),
    ("boolean", '{"ok": true}', '{"ok": false}', "label", False, "ok: label"),
    ("order of labels", '{"top": ["cat", "dog"]}', '{"top": ["dog", "cat"]}', "order", False, "top[*]: order"),
    ("order of numbers", SAME, '{"predictions": [124.6, 6.6, 648.0]}', "order", False, "predictions[*]: order"),
    ("whole numbers past 2^53", '{"id": 9007199254740993}', '{"id": 9007199254740992}', "number", False, "id: number"),
    ("whole numbers past 2^64", '{"id": 36893488147419103233}', '{"id": 36893488147419103232}', "number", False, "id: number"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("primary", "shadow", "outcome", "is_fault", "signature"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_difference_is_counted_once_and_named(  # noqa: PLR0917 - one per column
    compared: Compare, primary: str, shadow: str, outcome: str, is_fault: bool, signature: str
) -> None:
    """One differing pair among ten is one fault or one disagreement, with its signature."""
    calls = pairs(9, answer=primary) + pair(9, {"answer": primary}, {"answer": shadow})
    report = compared(calls)
    assert report.pairs == 10
    assert report.outcomes == {"equal": 9, outcome: 1}
    assert (report.new_faults, report.disagreements) == ((1, 0) if is_fault else (0, 1))
    (found,) = report.signatures
    assert (found.signature, found.is_fault, found.pairs) == (signature, is_fault, 1)
    assert {example.pair_id for example in found.largest} == {"pair-9"}


EQUAL = [
    ("1 and 1.0", '{"predictions": [1, 2]}', '{"predictions": [1.0, 2.0]}'),
    ("key order and spaces", '{"a": 1, "b": [2]}', '{ "b":[2], "a":1 }'),
    ("both NaN", b'{"predictions": [NaN]}', b'{"predictions":  [NaN]}'),
    ("both null", '{"predictions": [null]}', '{"predictions":  [null]}'),
    ("both the same text that is not JSON", b"pong", b"pong"),
    ("empty lists", '{"predictions": []}', '{"predictions":  []}'),
    ("lone surrogates", rb'{"a": "\ud800"}', rb'{"a":  "\ud800"}'),
    (
        "v2 flat and nested, by name in any order",
        """{"model_name": "m", "id": "1", "outputs": [
            {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]},
            {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}""",
        """{"model_name": "n", "id": "2", "outputs": [
            {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["x"]},
            {"name": "a", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}""",
    ),
]


@pytest.mark.parametrize(("primary", "shadow"), [c[1:] for c in EQUAL], ids=[c[0] for c in EQUAL])
def test_the_same_answer_in_other_words_is_equal(
    compared: Compare, primary: str, shadow: str
) -> None:
    """Spelling is not a difference; what is broken on both sides alike is not a new fault."""
    report = compared(pair(0, {"answer": primary}, {"answer": shadow}))
    assert report.outcomes == {"equal": 1}


def test_rounding_within_tolerance_agrees(compared: Compare) -> None:
    """A difference within the tolerance is shown as such and judged as agreement."""
    report = compared(pair(0, {"answer": "[100.0]"}, {"answer": "[100.00001]"}))
    assert report.outcomes == {"within tolerance": 1}
    assert report.disagreements == 0


def test_calls_that_both_sides_refuse_are_named(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status, path and what the refusal says, on the first screen; for OpenAI's API, what sets the
    path. A few refusals among many calls are not worth a line.
    """
    refusal = {"status": 404, "answer": '{"detail": "Not Found"}', "protocol": "openai"}
    report = command([c for i in range(28) for c in pair(i, **refusal)] + pairs(2, first=28))
    assert report["refused"] == {
        "status": 404,
        "pairs": 28,
        "path": "/v1/models/model:predict",
        "body": '{"detail": "Not Found"}',
    }
    remark = (
        "Both sides answer 28 of 30 calls with 404, which says nothing of the models. The primary's "
        'predictor at /v1/models/model:predict said 404: {"detail": "Not Found"} (a predictor with '
        "OpenAI's API elsewhere: set OPENAI_PREDICTOR_PREFIX)"
    )
    assert remark in report["remarks"]
    assert remark in " ".join(capsys.readouterr().out.split())
    assert "set OPENAI_PREDICTOR_PREFIX" in (tmp_path / "r.html").read_text()
    assert command(pairs(30, first=30))["refused"] is None


def test_failures_are_paired(compared: Compare) -> None:
    """A failure is new, gone or on both sides; an answer that never came is a failure."""
    report = compared(
        pairs(5)
        + pair(5, {}, {"status": 500, "answer": '{"error": "x"}'})
        + pair(6, {}, {"status": None})
        + pair(7, {"status": 503}, {})
        + pair(8, {"status": 400}, {"status": 400})
    )
    table = report.errors
    assert (table.neither, table.shadow_only, table.primary_only, table.both) == (5, 2, 1, 1)
    assert report.outcomes == {"equal": 6, "failed": 2, "status": 1}
    assert report.new_faults == 2
    assert [s.signature for s in report.signatures] == [
        "failed with 500",
        "not answered",
        "status 503 became 200",
    ]
    assert {(s.primary, s.shadow): s.pairs for s in report.statuses} == {
        (200, 200): 5, (200, 500): 1, (200, None): 1, (503, 200): 1, (400, 400): 1,
    }  # fmt: skip


LEFT = "the caller left before the answer, which was 200"
CUT = "the predictor ended the stream early after 3 chunks"
STREAM = {"generation": {"stream_end": "cut"}, "protocol": "openai"}


@pytest.mark.parametrize(
    ("primary", "shadow", "said"),
    [
        ({}, {"status": 499, "error": LEFT}, f"shadow 499: {LEFT} {SAME}"),
        ({}, {"status": 503, "error": "[x] <b> late", "answer": None}, "shadow 503: [x] <b> late"),
        ({}, {"error": CUT, **STREAM}, f"shadow 200: {CUT} {SAME}"),
        ({"status": 500, "error": "ValueError : 1"}, {}, f"primary 500: ValueError : 1 {SAME}"),
        ({"error": CUT, **STREAM}, {}, f"primary 200: {CUT} {SAME}"),
        ({}, {"status": None}, "shadow no answer"),
    ],
    ids=["left", "without a body", "stream", "primary", "primary's stream", "no row"],
)
def test_a_failed_side_is_shown_with_its_error(  # noqa: PLR0917
    command: Command,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    primary: dict[str, object],
    shadow: dict[str, object],
    said: str,
) -> None:
    """Beside its status, before the body, which may be sound: on the terminal, on the page, and as
    a field of its own in the JSON.
    """
    report = command(pairs(3) + pair(3, primary, shadow))
    (example,) = report["signatures"][0]["largest"]
    for side, error in (("primary", primary.get("error")), ("shadow", shadow.get("error"))):
        assert example[f"{side}_error"] == (error or "")
    printed = " ".join(capsys.readouterr().out.partition("Worst pairs")[2].split())
    assert said in printed
    page = html.unescape((tmp_path / "r.html").read_text())
    for error in filter(None, (primary.get("error"), shadow.get("error"))):
        assert f": {error}</p>" in page


def test_values_that_appear_do_not_hide_new_faults(compared: Compare) -> None:
    """A pair in which one value appears and another breaks is a new fault."""
    report = compared(
        pair(0, {"answer": "[null, 1.0]"}, {"answer": "[1.0, null]"})
        + pair(1, {"answer": "[null, 1.0]"}, {"answer": "[1.0, 1.0]"})
    )
    assert report.outcomes == {"appeared": 1, "non-finite": 1}
    assert report.new_faults == 1


def v2(values: np.ndarray, datatype: str) -> bytes:
    header = (
        f'{{"model_name": "m", "outputs": [{{"name": "score", "shape": [{values.size}],'
        f' "datatype": "{datatype}", "parameters": {{"binary_data_size": {values.nbytes}}}}}]}}'
    )
    return header.encode() + values.tobytes()


def test_binary_tensors_are_decoded(compared: Compare) -> None:
    """v2's binary extension is compared value by value, also against its JSON form."""
    values = np.array([1.0, 2.5, 3.0], dtype="<f4")
    broken = np.array([1.0, np.nan, 3.0], dtype="<f4")
    as_json = (
        '{"outputs": [{"name": "score", "shape": [3], "datatype": "FP32", "data": [1, 2.5, 3]}]}'
    )
    report = compared(
        pair(0, {"answer": v2(values, "FP32")}, {"answer": as_json}, protocol="v2")
        + pair(1, {"answer": v2(values, "FP32")}, {"answer": v2(broken, "FP32")}, protocol="v2")
    )
    assert report.outcomes == {"equal": 1, "non-finite": 1}
    assert report.signatures[0].signature == "outputs.score.data[*]: non-finite"


def tensor(shape: str | None, datatype: str = "FP32", data: str = "[1, 2, 3, 4]") -> str:
    fields = "" if shape is None else f'"shape": {shape}, '
    return (
        f'{{"id": "1", "outputs": [{{"name": "a", {fields}"datatype": "{datatype}",'
        f' "data": {data}}}]}}'
    )


def test_a_tensors_type_is_part_of_the_answer(compared: Compare) -> None:
    """The same data as another datatype is a new fault."""
    report = compared(pair(0, {"answer": tensor("[4]")}, {"answer": tensor("[4]", "FP64")}))
    assert report.outcomes == {"type": 1}
    assert report.signatures[0].signature == "outputs.a.datatype: type"


@pytest.mark.parametrize(
    ("primary", "shadow", "outcome", "is_fault"),
    [
        ("[4]", "[2, 2]", "number", False),
        ("[4]", None, "missing", True),
        ("[4]", '"x"', "length", True),
        ("[4]", "[]", "length", True),
        ("[4]", "[99]", "length", True),
        ("[4]", "[2, 3]", "length", True),
        ("[4]", "[-1, -4]", "length", True),
        ("[4]", "[4.0]", "length", True),
        (None, None, "equal", None),
        ("[99]", "[99]", "equal", None),
        ("[2, 2]", "[2,  2]", "equal", None),
    ],
)
def test_a_shape_that_says_nothing_is_a_fault_and_another_one_a_disagreement(
    compared: Compare, primary: str | None, shadow: str | None, outcome: str, is_fault: bool | None
) -> None:
    """The same four values; a client reads them by their shape."""
    report = compared(pair(0, {"answer": tensor(primary)}, {"answer": tensor(shadow)}))
    assert report.outcomes == {outcome: 1}
    assert (report.new_faults, report.disagreements) == (is_fault is True, is_fault is False)
    if is_fault is not None:
        assert report.signatures[0].signature == f"outputs.a.shape: {outcome}"


def test_empty_binary_outputs_are_equal_whatever_the_envelope(compared: Compare) -> None:
    """An answer of no rows is a header alone; `id` and the model's name are not compared."""

    def empty(call: str) -> bytes:
        header = {
            "id": call,
            "model_name": call,
            "outputs": [
                {
                    "name": "a",
                    "shape": [0, 4],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 0},
                }
            ],
        }
        return json.dumps(header).encode()

    as_json = (
        '{"id": "c", "outputs": [{"name": "a", "shape": [0, 4], "datatype": "FP32", "data": []}]}'
    )
    report = compared(
        pair(0, {"answer": empty("a")}, {"answer": empty("b")}, protocol="v2")
        + pair(1, {"answer": empty("a").decode()}, {"answer": empty("b").decode()}, protocol="v2")
        + pair(2, {"answer": empty("a")}, {"answer": as_json}, protocol="v2")
    )
    assert report.outcomes == {"equal": 3}


def test_null_parameters_are_absent_ones(compared: Compare) -> None:
    """Servers write v2's optional `parameters` as null, as {} or not at all."""
    plain = '{"outputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]}'
    nulls = (
        '{"parameters": null, "outputs": [{"name": "a", "shape": [1], "datatype": "FP32",'
        ' "data": [1], "parameters": {}}]}'
    )
    told = plain.replace('"data"', '"parameters": {"unit": "m"}, "data"')
    report = compared(
        pair(0, {"answer": plain}, {"answer": nulls})
        + pair(1, {"answer": nulls}, {"answer": plain})
        + pair(2, {"answer": nulls}, {"answer": told})
    )
    assert report.outcomes == {"equal": 2, "extra": 1}


def test_brain_floats_are_decoded(compared: Compare) -> None:
    """BF16 is the upper half of an FP32."""
    values = np.array([1.0, 2.5, -3.0], dtype="<f4")
    halves = (values.view("<u4") >> 16).astype("<u2")
    other = halves.copy()
    other[1] += 1
    as_json = (
        '{"outputs": [{"name": "score", "shape": [3], "datatype": "BF16", "data": [1, 2.5, -3]}]}'
    )
    report = compared(
        pair(0, {"answer": v2(halves, "BF16")}, {"answer": as_json}, protocol="v2")
        + pair(1, {"answer": v2(halves, "BF16")}, {"answer": v2(other, "BF16")}, protocol="v2")
    )
    assert report.outcomes == {"equal": 1, "number": 1}
    assert (
        report.signatures[0].largest[0].what.startswith("outputs.score.data[1]: 2.5 became 2.5156")
    )


def raw_deflate(body: bytes) -> bytes:
    deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflating.compress(body) + deflating.flush()


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, raw_deflate, brotli.compress])
def test_compressed_answers_are_compared_by_their_content(
    compared: Compare, compress: Callable[[bytes], bytes]
) -> None:
    """gzip, both kinds of deflate, and br; also against an answer that is not compressed."""
    body, other = b'{"predictions": [6.6]}', b'{"predictions": [9.9]}'
    report = compared(
        pair(0, {"answer": compress(body)}, {"answer": body.decode()})
        + pair(1, {"answer": compress(body)}, {"answer": compress(b" " + body)})
        + pair(2, {"answer": compress(body)}, {"answer": compress(other)})
        + pair(3, {"answer": compress(b"<html>")}, {"answer": compress(b"<html>")})
        + pair(4, {"answer": compress(body)}, {"answer": compress(body)[:-3]})
    )
    assert report.outcomes == {"equal": 3, "number": 1, "unparseable": 1}
    found = {s.signature: s for s in report.signatures}
    example = found["predictions[*]: number"].largest[0]
    assert (example.what, example.shadow_response) == (
        "predictions[0]: 6.6 became 9.9",
        '{"predictions": [9.9]}',
    )


def test_a_decompression_bomb_is_set_aside(compared: Compare) -> None:
    """A few kilobytes that stand for 200 MB are not taken apart; the pair is counted."""
    bomb = gzip.compress(b" " * 200_000_000 + b"[1]", compresslevel=1)
    tracemalloc.start()
    report = compared(pair(0, {"answer": "[1]"}, {"answer": bomb}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.outcomes == {"unparseable": 1}
    assert peak < 100_000_000


@pytest.mark.parametrize("depth", [150, 500, 900])
def test_deeply_nested_answers_are_compared_and_shown(compared: Compare, depth: int) -> None:
    """No traceback takes the report of the others away, and what differs is found."""
    deep = "[" * depth + "1.0" + "]" * depth
    named = '{"a":' * depth + "1.0" + "}" * depth
    report = compared(
        pairs(20)
        + pair(20, {"answer": deep}, {"answer": deep.replace("1.0", "2.0")})
        + pair(21, {"answer": deep}, {"answer": deep.replace("1.0", "1.00")})
        + pair(22, {"answer": named}, {"answer": named.replace("1.0", "2.0")})
    )
    assert report.pairs == 23
    assert report.outcomes == {"equal": 21, "text": 2}
    whats = {e.pair_id: e.what for s in report.signatures for e in s.largest}
    assert whats.keys() == {"pair-20", "pair-22"}
    assert all(" became " in what for what in whats.values())


def test_a_rule_applies_to_all_of_many_places(compared: Compare) -> None:
    """More keys than places are kept apart for: the tolerance of some is not that of the others."""
    scores = {f"k{i}": 1.0 for i in range(520)}
    others = {f"k{i}": 2.0 for i in range(520)}
    rules = Rules(by_path=(Rule.of("scores", Tolerance(100.0, 0.0)),))
    primary = json.dumps({"scores": scores, "price": 1.0})
    shadow = json.dumps({"scores": others, "price": 50.0})
    report = compared(pair(0, {"answer": primary}, {"answer": shadow}), rules=rules)
    assert report.outcomes == {"number": 1}
    assert report.signatures[0].largest[0].what == "price: 1.0 became 50.0"


def test_ignored_paths_and_own_tolerances(compared: Compare) -> None:
    """What is ignored does not differ; a path's tolerance holds at and below it, nowhere else."""
    rules = Rules(
        by_path=(Rule.of("predictions", Tolerance(0.5, 0.0)), Rule.of("meta.took"), Rule.of("id"))
    )
    primary = '{"id": 1, "predictions": [1.0], "meta": {"took": 1, "n": 1.0}}'
    report = compared(
        pair(0, {"answer": primary}, {"answer": '{"id": "x", "predictions": [1.4], "meta": {"took": 2, "n": 1.0}}'})
        + pair(1, {"answer": primary}, {"answer": '{"predictions": [1.6], "meta": {"n": 1.0}}'})
        + pair(2, {"answer": primary}, {"answer": '{"id": 2, "predictions": [1.0], "meta": {"took": 1, "n": 1.4}}'}),
        rules=rules,
    )  # fmt: skip
    assert report.outcomes == {"within tolerance": 1, "number": 2}
    assert {s.signature for s in report.signatures} == {"predictions[*]: number", "meta.n: number"}


def test_figures_at_a_path(compared: Compare) -> None:
    """Bias, sizes and correlation of numbers; agreement, kappa and confusion of labels."""
    calls = []
    for i in range(100):
        label = "cat" if i % 2 else "dog"
        other = "dog" if i == 1 else label
        calls += pair(
            i,
            {"answer": f'{{"score": {i}.5, "label": "{label}"}}'},
            {"answer": f'{{"score": {i + 2}.5, "label": "{other}"}}'},
        )
    report = compared(calls)
    by_path = {path.path: path for path in report.paths}
    score, label_report = by_path["score"], by_path["label"]
    assert (score.kind, score.pairs, score.differing_pairs, score.values) == (
        "number",
        100,
        100,
        100,
    )
    assert score.numbers is not None
    assert score.numbers.bias == pytest.approx(2)
    assert score.numbers.correlation == pytest.approx(1)
    assert score.numbers.absolute_quantiles["p50"] == pytest.approx(2, rel=0.01)
    assert label_report.kind == "label"
    assert label_report.labels is not None
    assert label_report.labels.agreement == 0.99
    assert label_report.labels.classes == ("dog", "cat")
    assert label_report.labels.confusion == ((50, 0), (1, 49))
    assert label_report.labels.kappa == pytest.approx(0.98, abs=0.001)


def test_kinds_are_told_apart(compared: Compare) -> None:
    """A probability vector, a class number, a flag and free text are named as such."""
    calls = []
    for i in range(80):
        p = i / 100
        answer = (
            f'{{"proba": [{p}, {1 - p}], "class": {i % 3}, "ok": true, "why": "because {i}",'
            f' "none": null, "score": {i}.25}}'
        )
        calls += pair(i, answer=answer)
    report = compared(calls)
    assert {path.path: path.kind for path in report.paths} == {
        "proba[*]": "probability vector",
        "class": "label",
        "ok": "boolean",
        "why": "text",
        "none": "null",
        "score": "number",
    }


def test_examples_carry_both_bodies(compared: Compare) -> None:
    """The worst pair is the one with the largest difference; its bodies are cut in the report only."""
    long = ", ".join(["1.0"] * 10_000)
    report = compared(
        pair(0, {"answer": "[10.0]"}, {"answer": "[11.0]"})
        + pair(1, {"answer": "[10.0]"}, {"answer": "[90.0]"})
        + pair(2, {"answer": f"[{long}, 1.0]"}, {"answer": f"[{long}, 1.5]"})
    )
    (group,) = report.signatures
    worst = group.largest[0]
    assert (worst.pair_id, worst.what) == ("pair-1", "[0]: 10.0 became 90.0")
    assert (worst.primary_response, worst.shadow_response) == ("[10.0]", "[90.0]")
    assert worst.request == '{"values": ["1.3", "62.3", "324"]}'
    cut = next(example for example in group.largest if example.pair_id == "pair-2")
    assert cut.primary_cut
    assert cut.what == "[10000]: 1.0 became 1.5"
