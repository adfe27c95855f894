"""Rules by path, in options and in a file: what agrees, what differs, what is shown."""

# ruff: noqa: E501 - cases read as a table, one a line

from __future__ import annotations

import base64
import html
import json
import math
import random
import re
import struct
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ks_2samp, spearmanr, wasserstein_distance
from traffic import Call, Command, pair, pairs

from shadow_report import SettingWrong
from shadow_report.__main__ import main
from shadow_report.answers.kinds import TITLES
from shadow_report.answers.similarity import Ranking
from shadow_report.rules import IN_FILES, KINDS, read_rules


def answers(*pairs_of: tuple[object, object]) -> list[Call]:
    """A pair of calls for each pair of answers, given as values."""
    return [
        call
        for i, (primary, shadow) in enumerate(pairs_of)
        for call in pair(
            i, {"answer": json.dumps(primary)}, {"answer": json.dumps(shadow)}, request=f"[{i}]"
        )
    ]


def path_of(report: dict[str, Any], path: str) -> dict[str, Any]:
    return next(found for found in report["paths"] if found["path"] == path)


# rule, primary, shadow, outcome without the rule, outcome with it
CASES = [
    ("x=label", {"x": 1.0}, {"x": 1.0000001}, "within tolerance", "label"),
    ("x=number,absolute=0.5", {"x": 1.0}, {"x": 1.4}, "number", "within tolerance"),
    ("x=number,relative=0.5", {"x": 100}, {"x": 140}, "number", "within tolerance"),
    ("x=number,absolute=inf", {"x": 100}, {"x": 9e9}, "number", "within tolerance"),
    ("x=ignore", {"x": 1, "y": 2}, {"y": 2}, "missing", "equal"),
    ("t=unordered", {"t": ["a", "b"]}, {"t": ["b", "a"]}, "order", "equal"),
    ("t=unordered", {"t": ["a", "b"]}, {"t": ["b", "c"]}, "label", "items"),
    ("t=unordered", {"t": ["a"]}, {"t": ["a", "c"]}, "length", "items"),
    ("t=unordered", {"t": ["a"]}, {"t": []}, "length", "length"),
    ("t=unordered", {"t": [1.0, 2.0]}, {"t": [2.00000001, 1.0]}, "number", "within tolerance"),
    ("t=unordered", {"t": [{"a": 1}, {"a": 2}]}, {"t": [{"a": 2.0}, {"a": 1}]}, "number", "equal"),
    ("d=matched,key=id", {"d": [{"id": 1, "s": 0.5}, {"id": 2, "s": 0.7}]}, {"d": [{"id": 2, "s": 0.7}, {"id": 1, "s": 0.5}]}, "number", "equal"),
    ("d=matched,key=id", {"d": [{"id": 1, "s": 0.5}, {"id": 2, "s": 0.7}]}, {"d": [{"id": 2, "s": 0.9}, {"id": 1, "s": 0.5}]}, "number", "number"),
    ("d=matched,key=id", {"d": [{"id": 1}, {"id": 2}]}, {"d": [{"id": 2}]}, "length", "items"),
    ("d=matched,key=id", {"d": [{"id": 1, "s": 1}]}, {"d": [{"s": 1}]}, "missing", "missing"),
    ("d=matched,key=id", {"d": [{"id": 1, "s": 1}]}, {"d": [{"id": 1, "s": "1"}]}, "type", "type"),
    ("r=ranking,top=3,overlap=0.6", {"r": list("abcd")}, {"r": list("abed")}, "label", "within tolerance"),
    ("r=ranking,top=3,overlap=0.7", {"r": list("abcd")}, {"r": list("abed")}, "label", "similarity"),
    ("r=ranking,top=3,overlap=0.7,correlation=0.5", {"r": list("abc")}, {"r": list("cba")}, "order", "order"),
    ("r=ranking,top=2,key=id", {"r": [{"id": 1, "s": 0.9}, {"id": 2, "s": 0.8}]}, {"r": [{"id": 1, "s": 0.7}, {"id": 2, "s": 0.5}]}, "number", "equal"),
    ("r=ranking,overlap=0.5", {"r": ["a", "b"]}, {"r": ["a", 1]}, "type", "type"),
    ("r=ranking,overlap=0.5", {"r": [1, 2]}, {"r": [True, 2]}, "type", "type"),
    ("r=ranking,overlap=0.5", {"r": [1, 2]}, {"r": [1, None]}, "non-finite", "non-finite"),
    ("r=ranking,overlap=0.5", {"r": [1, 2]}, {"r": [1.0, 3]}, "number", "within tolerance"),
    ("e=cosine,least=0.99", {"e": [1.0, 0.0]}, {"e": [3.0, 0.1]}, "number", "within tolerance"),
    ("e=cosine,least=0.99", {"e": [1.0, 0.0]}, {"e": [1.0, 1.0]}, "number", "similarity"),
    ("e=cosine", {"e": [1.0, 0.0]}, {"e": [1.0]}, "length", "length"),
    ("e=cosine", {"e": [1.0, 0.0]}, {"e": [1.0, None]}, "non-finite", "non-finite"),
    ("predictions=cosine", {"predictions": [[1.0, 2.0], [3.0, 4.0]]}, {"predictions": [[2.0, 4.0], [3.0, 4.0]]}, "number", "within tolerance"),
    ("p=top_class", {"p": [0.2, 0.8]}, {"p": [0.4, 0.6]}, "number", "equal"),
    ("p=top_class", {"p": [0.2, 0.8]}, {"p": [0.6, 0.4]}, "number", "label"),
    ("p=top_class", {"p": [0.2]}, {"p": [0.6]}, "number", "number"),
    ("p=top_class", {"p": {"a": 0.2, "b": 0.8}}, {"p": {"b": 0.6, "a": 0.4}}, "number", "equal"),
    ("p=top_class", {"p": {"a": 0.2, "b": 0.8}}, {"p": {"a": 0.6, "b": 0.4}}, "number", "label"),
    ("p=top_class", {"p": {"a": 0.5, "b": 0.5}}, {"p": {"b": 0.5, "a": 0.4}}, "number", "label"),
    ("p=top_class", {"p": {"a": 0.2, "b": 0.8}}, {"p": {"b": 0.8}}, "missing", "missing"),
    ("p=top_class", {"p": {"b": 0.8, "c": 0.1}}, {"p": {"a": 0.1, "b": 0.8, "c": 0.1}}, "extra", "extra"),
    ("p=top_class", {"p": {"a": 0.2, "b": 0.8}}, {"p": {"a": None, "b": 0.8}}, "non-finite", "non-finite"),
    ("s=text", {"s": "Hello  World"}, {"s": "hello world"}, "label", "within tolerance"),
    ("s=text,normalize=false", {"s": "Hello"}, {"s": "hello"}, "label", "similarity"),
    ("s=text,least=0.8", {"s": "the cat sat"}, {"s": "the cat sits"}, "label", "within tolerance"),
    ("s=text,least=0.8", {"s": "the cat sat"}, {"s": "no"}, "label", "similarity"),
    ("s=text", {"s": "x"}, {"s": None}, "type", "type"),
    ("s=json", {"s": '{"a": 1, "b": [2]}'}, {"s": '{"b":[2.0],"a":1}'}, "label", "equal"),
    ("s=json", {"s": '{"a": 1}'}, {"s": '{"a": 1'}, "label", "unparseable"),
    ("s=json", {"s": '{"a": 1}'}, {"s": "{}"}, "label", "missing"),
    ("s=json", {"s": "no JSON"}, {"s": "nor JSON"}, "label", "label"),
    ("s=variant", {"s": "x"}, {"s": None}, "type", "form"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "primary", "shadow", "without", "with_it"), CASES)
def test_a_rule_says_what_agrees(  # noqa: PLR0917 - one per column
    command: Command, rule: str, primary: object, shadow: object, without: str, with_it: str
) -> None:
    """One pair, without the rule and with it; a rule never hides what is broken."""
    calls = answers((primary, shadow))
    assert command(calls)["outcomes"] == {without: 1}
    report = command([], "--rule", rule)
    assert report["outcomes"] == {with_it: 1}
    assert report["unmatched_rules"] == []


@pytest.mark.parametrize("other", ["empty", "full"])
@pytest.mark.parametrize("option", ["--ignore=error", "--rule=error=ignore"])
def test_a_rule_for_bodies_of_errors_has_an_effect(
    command: Command, option: str, other: str
) -> None:
    """Whether the errors differ or not; a slip is told, with the place that it means."""
    refused = pair(
        1, {"answer": '{"error": "empty"}'}, {"answer": f'{{"error": "{other}"}}'}, status=400
    )
    report = command([*answers(([1.5], [1.5])), *refused], option, "--ignore=eror")
    assert (report["disagreements"], report["compared"]) == (0, 1)
    assert report["unmatched_rules"] == ["ignore eror (did you mean error?)"]
    assert "Not compared: error." in report["notes"]


def test_a_rule_for_a_retry_alone_has_an_effect(command: Command) -> None:
    """The shadow's second answer to a call has what the first has not."""
    calls = answers(({"y": 1}, {"y": 1}))
    again = calls[1].time + timedelta(seconds=1)
    calls.append(replace(calls[1], time=again, answer='{"y": 1, "took": 3}'))
    assert command(calls)["outcomes"] == {"extra": 1}
    report = command([], "--ignore", "took")
    assert (report["outcomes"], report["unmatched_rules"]) == ({"equal": 1}, [])


def test_a_rule_for_the_noise_alone_has_an_effect(command: Command) -> None:
    """The primary's second answer to a request has what its first has not, nor the shadow's."""
    first, again = pair(1, request="[1]"), pair(2, request="[1]", answer='{"took": 3}')
    report = command([*first, again[0]], "--ignore", "took")
    assert report["noise"]["comparisons"] == 1
    assert report["unmatched_rules"] == []


def test_rules_are_read_from_a_file_and_options_come_after_it(
    command: Command, tmp_path: Path
) -> None:
    """What a team keeps in its repository; of several rules for one place the last counts."""
    file = tmp_path / "rules.yaml"
    file.write_text(
        """
        relative: 0.01
        rules:
          - {path: took, compare: ignore}
          - {path: score, compare: number, absolute: 0.5}
          - path: "tags[*]"
            compare: text
            least: 0.5
            margin: 20%
          - {path: label, margin: 0.1}
        """
    )
    primary = {"took": 1, "score": 1.0, "tags": ["abcd"], "other": 100.0, "label": "a"}
    shadow = {"took": 2, "score": 1.4, "tags": ["abxx"], "other": 100.5, "label": "a"}
    report = command(answers((primary, shadow)), "--rules", str(file))
    assert report["outcomes"] == {"within tolerance": 1}
    assert {rule["path"]: rule["compare"] for rule in report["settings"]["rules"]} == {
        "took": "ignore", "score": "number", "tags[*]": "text", "label": "default",
    }  # fmt: skip
    stricter = ("--rules", str(file), "--rule", "score=number,absolute=0.1")
    assert command([], *stricter)["outcomes"] == {"number": 1}
    assert command([], "--rules", str(file), "--rel-tol", "0")["outcomes"] == {"number": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules: [{path: a, compare: cosin}]", "rule 1: compare is 'cosin'; the kinds are"),
        ("rules: [{path: a, compare: cosine, least: 2}]", "rule 1: least is 2: input should be"),
        ("rules: [{compare: text}]", "rule 1: path: field required"),
        (
            "rules: [{path: a, compare: text, lest: 1}]",
            "'lest' is unknown; the names are compare, path, margin, least, normalize",
        ),
        ("rules: [{path: a, compare: matched}]", "key: field required"),
        ("rules: [{path: 'a[', compare: text}]", "rule 1: 'a[' is not a path"),
        ("rules: [{path: a, compare: pattern, patterns: {x: '('}}]", "patterns.x is '('"),
        ("rules: [{path: a, margin: 200%}]", "margin is '200%': write a share from 0 to 1, like"),
        ("rules: [{path: a, margin: ten%}]", "margin is 'ten%': write a share from 0 to 1, like"),
        ("rules: [{path: a, margin: 25}]", "margin is 25: write a share from 0 to 1, like 0.1"),
        ("presets: [llama]", "presets has 'llama'; the presets are openai"),
        ("rule: []", "'rule' is unknown; the names are absolute, relative, noise_floor"),
        ("- a", "input should be"),
        ("rules: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    words: str,
) -> None:
    """One line with the file, the rule, the value and the remedy."""
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    error = usage_error(monkeypatch, capsys, "--rules", str(file))
    assert words in error
    assert f"--rules {file}" in error
    assert run(monkeypatch, "rules", str(file)) == 2
    assert capsys.readouterr().err == error


def test_rules_can_be_read_by_themselves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without a database: what a check of the manifests asks."""
    monkeypatch.delenv("POSTGRES_URI", raising=False)
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{path: a, compare: ignore}, {path: b, margin: 5%}]")
    assert run(monkeypatch, "rules", str(file)) == 0
    assert capsys.readouterr().out == f"{file}: 2 rules\n"


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "--since-rollout", "--max-disagreement=1%", "--rule", "a=ignore"),
        ("serve", "--every=10s", "--port=8080"),
        ("follow", "--to=http://candidate", "--rate=10/s", "--since=24h"),
        ("replay", "--to=http://candidate"),
        ("maintain", "--keep", "30d"),
    ],
)
def test_options_can_be_read_by_themselves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Without a database, and nothing is run; what a check of the manifests asks."""
    monkeypatch.delenv("POSTGRES_URI", raising=False)
    assert run(monkeypatch, "--check", *words) == 0
    assert capsys.readouterr().out == ""
    assert run(monkeypatch, *words) == 2
    assert "POSTGRES_URI is not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("compare", "--max-disagreement=1x"), "--max-disagreement is '1x'"),
        (("compare", "--since=yesterday"), "--since is 'yesterday'"),
        (("compare", "--judge=http://judge/v1"), "--judge is 'http://judge/v1'"),
        (("serve", "--max-age=1"), "--max-age is '1'"),
        (("follow", "--to=http://candidate", "--share=3/2"), "--share"),
        (("replay", "--to=http://candidate", "--rate=fast"), "--rate is 'fast'"),
        (("maintain", "--keep", "12h"), "--keep is '12h', less than a day"),
    ],
)
def test_wrong_options_are_refused_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    refusal: str,
) -> None:
    """With the words of a run: all that a command reads of its options, it reads before."""
    monkeypatch.delenv("POSTGRES_URI", raising=False)
    assert run(monkeypatch, "--check", *words) == 2
    assert refusal in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rule", "a"), "--rule is 'a'; write it like"),
        (("--rule", "a=cosine,least"), "write it like"),
        (("--rule", "a=cosine,least=x"), "least is 'x': write a number"),
        (("--rule", "a=pattern"), "pattern has its patterns in a YAML file only"),
        (("--rule", "a=pattern,patterns=[b,c]"), "write the rule there, and name the file with"),
        (("--rule", "a=number,relative=5%"), "relative is '5%': write a number, like 0.05"),
        (("--tolerance", "25"), "--tolerance is '25'; write it like predictions[*]=0.01"),
        (("--rule", "a[=label"), "'a[' is not a path"),
        (("--rules", "no-such-file.yaml"), "No such file or directory"),
    ],
)
def test_a_wrong_rule_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: str,
) -> None:
    assert words in usage_error(monkeypatch, capsys, *options)


def usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> str:
    """The one line on stderr; no database is asked."""
    monkeypatch.setenv("POSTGRES_URI", "postgresql://127.0.0.1:9/x")
    code = run(monkeypatch, "compare", *options)
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1), error
    return error


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> str | int:
    """The exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["shadow-report", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code or 0


def labels(count: int, flips: int) -> list[Call]:
    """So many answers with a score that never differs, and a label of which so many do."""
    return answers(
        *(
            ({"label": "a", "score": 1.0}, {"label": "b" if i < flips else "a", "score": 1.0})
            for i in range(count)
        )
    )


def test_a_margin_by_path_is_a_gate_of_its_own(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A retrained model that differs in 6.1 % of labels is promoted when 10 % are allowed, and the
    verdict says so; without the margin it is rejected, and beyond it too.
    """
    calls = labels(9_000, flips=549)
    assert command(calls)["verdict"] == "REJECT"
    report = command([], "--rule", "label=default,margin=10%")
    said = "label differs in 6.1 % of 9,000 pairs"
    assert report["verdict"] == "PROMOTE"
    assert said in report["reasons"][0]
    assert "allowed 10 %" in report["reasons"][0]
    gate = next(gate for gate in report["gates"] if gate["path"])
    assert (gate["path"], gate["n"], gate["margin"], gate["status"]) == (
        "label",
        9_000,
        0.1,
        "pass",
    )
    assert gate["estimate"] == pytest.approx(0.061)
    assert (report["disagreements"], report["gates"][2]["estimate"]) == (0, 0)
    assert report["signatures"][0]["has_own_margin"]
    assert said in " ".join(capsys.readouterr().out.split())
    assert "allowed 10 %" in (tmp_path / "r.html").read_text()
    stricter = command([], "--rule", "label=default,margin=5%")
    assert stricter["verdict"] == "REJECT"
    # Of several at one path the last, as of a file and an option.
    both = command([], "--rule", "label=default,margin=5%", "--rule", "$.label=label,margin=10%")
    assert [(gate["path"], gate["margin"]) for gate in both["gates"] if gate["path"]] == [
        ("label", 0.1)
    ]
    assert both["verdict"] == "PROMOTE"
    assert stricter["reasons"][0].startswith("label (default): label differs in 6.1 %")


@pytest.mark.parametrize("bound", ["absolute", "relative"])
@pytest.mark.parametrize(("name", "share"), [("a", "0 %"), ("b", "100 %")])
def test_a_margin_without_a_tolerance_says_that_numbers_are_not_judged(
    command: Command, bound: str, name: str, share: str
) -> None:
    """That none of them differs is no news; its gate goes by what is no number."""

    def gate(*words: str) -> dict[str, Any]:
        [found] = [gate for gate in command(calls, *words)["gates"] if gate["path"]]
        calls.clear()
        return found

    calls = answers(*(({"x": [i, "a"]}, {"x": [-i, name]}) for i in range(1, 51)))
    found = gate("--rule", f"x=number,{bound}=inf,margin=10%")
    assert found["reason"].startswith(
        f"x differs in {share} of 50 pairs, whose numbers are not judged: at"
    )
    assert found["status"] == ("pass" if name == "a" else "fail")
    judged = gate("--rule", "x=number,absolute=1,margin=10%")
    assert judged["reason"].startswith("x differs in 100 % of 50 pairs: at")


@pytest.mark.parametrize(
    ("rule", "first"),
    [("x=number,absolute=15", 340.0), ("x=number,absolute=1,relative=0.01", 25 / 24)],
)
def test_the_worst_pairs_are_those_of_the_tolerance(
    command: Command, rule: str, first: float
) -> None:
    """By themselves under an absolute one alone: whoever reads the largest difference asks for its
    pair.
    """
    far = [(1000.0 + i, 1020.0 + i) for i in range(20)]
    calls = answers(*(({"x": p}, {"x": s}) for p, s in [*far, (-1.0, 24.0), (9000.0, 9340.0)]))
    report = command(calls, "--rule", rule)
    sizes = [example["size"] for found in report["signatures"] for example in found["largest"]]
    assert sizes[0] == pytest.approx(first)
    assert path_of(report, "x")["numbers"]["absolute_quantiles"]["max"] == pytest.approx(340)


def test_the_worst_texts_are_those_least_alike(command: Command) -> None:
    """Whatever differs in them besides within its tolerance, as the tokens of a chat do."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

    def said(kept: int) -> dict[str, object]:
        usage = {"prompt_tokens": 9, "completion_tokens": 9**kept, "total_tokens": 9 + 9**kept}
        return chat(" ".join(words[:kept]), usage=usage)

    report = command(
        answers(*((said(10), said(kept)) for kept in range(1, 8))), "--rules", "openai"
    )
    [found] = report["signatures"]
    sizes = [example["size"] for example in found["largest"]]
    alike = [float(re.search(r"similarity ([\d.]+)", e["what"])[1]) for e in found["largest"]]  # type: ignore[index]
    assert sizes == sorted(sizes, reverse=True)
    assert [1 - size for size in sizes] == pytest.approx(alike, abs=1e-4)
    shown = [
        len(json.loads(e["shadow_response"])["choices"][0]["message"]["content"].split())
        for e in found["largest"]
    ]
    assert shown == [1, 2, 3]


def test_a_margin_of_no_place_says_so(command: Command) -> None:
    """No number of calls would settle it; before the first one, a number is all there is to say."""
    rule = ("--rule", "labels[*]=label,margin=10%")

    def reason(report: dict[str, Any]) -> str:
        [found] = [gate["reason"] for gate in report["gates"] if gate["path"] == "labels[*]"]
        return str(found)

    assert "to pass it" in reason(command([], *rule))
    report = command(pairs(50), *rule)
    assert (
        "no answer has labels[*], a nearer rule has the margin there, or one for lists takes it whole: "
        "mend the rule's path, or take it out."
    ) in reason(report)
    assert report["verdict"] == "WAIT"


def test_a_margin_of_texts_counts_among_texts(command: Command) -> None:
    """Not among answers that are JSON, nor where there is none; and what became null differs."""
    texts = [("paid by card", "something else" if i < 6 else "paid by card") for i in range(40)]
    contents = [({"x": i % 2}, {"x": 0}) for i in range(30)]
    contents = [(json.dumps(p), json.dumps(s)) for p, s in contents]
    pairs_of = [*texts, *contents, *[(None, None)] * 50, ("gone", None)]
    report = command(
        answers(*(({"t": p}, {"t": s}) for p, s in pairs_of)),
        *("--rule", "t=json", "--rule", "t=text,margin=20%"),
    )
    gate = next(gate for gate in report["gates"] if gate["path"])
    assert (gate["n"], gate["estimate"]) == (40, 6 / 40)
    assert report["disagreements"] == 15


def test_a_margin_does_not_cover_other_places_or_faults(command: Command, tmp_path: Path) -> None:
    """What differs elsewhere counts as ever, and a missing label is a new fault; the page says of
    the margin what its gate counts.
    """
    same, flipped = {"label": "a", "score": 1.0}, {"label": "b", "score": 1.0}
    report = command(
        answers(
            (same, flipped),
            (same, {"label": "b", "score": 2.0}),
            (same, {"score": 1.0}),
            (same, {"label": 7, "score": 1.0}),
            (same, same),
        ),
        *("--rule", "label=default,margin=50%"),
    )
    assert (report["new_faults"], report["disagreements"]) == (2, 1)
    gate = next(gate for gate in report["gates"] if gate["path"])
    assert (gate["n"], round(gate["estimate"] * gate["n"])) == (4, 2)
    assert f'<p class="note">{gate["reason"]}</p>' in (tmp_path / "r.html").read_text()


def test_two_margins_at_one_text_are_told_apart(command: Command, tmp_path: Path) -> None:
    """That of the text and that of what a pattern finds in it: by the sentence in a PROMOTE, which
    has no names of gates, and on the page each at its own place.
    """
    file = tmp_path / "rules.yaml"
    file.write_text(
        "rules:\n"
        "  - {path: s, compare: text, least: 0.9, margin: 20%}\n"
        "  - {path: s, compare: pattern, patterns: {refusal: sorry}, margin: 15%}\n"
    )
    said = [{"s": "It is 5."}, {"s": "No idea at all"}, {"s": "I'm sorry, no."}]
    shadows = [said[0]] * 5_000 + [said[1]] * 250 + [said[2]] * 250
    report = command(answers(*((said[0], shadow) for shadow in shadows)), "--rules", str(file))
    gates = {gate["name"]: gate for gate in report["gates"] if gate["path"]}
    assert {gate["path"]: name for name, gate in gates.items()} == {
        "s": "s (text)",
        "s (refusal)": "s (refusal)",
    }
    assert report["verdict"] == "PROMOTE"
    assert "s differs in 9.09 % of 5,500 pairs" in report["reasons"][0]
    assert "s (refusal) differs in 4.55 % of 5,500 pairs" in report["reasons"][0]
    page = (tmp_path / "r.html").read_text()
    for gate in gates.values():
        card = page.partition(f"<h3><code>{gate['path']}</code>")[2].partition("</div>")[0]
        assert f'<p class="note">{gate["reason"]}</p>' in card
        assert card.count(" differs in ") == 1


def test_an_embedding_in_a_tensor_is_compared_row_by_row(command: Command) -> None:
    """v2 keeps the rows of a batch in one flat list; the shape says where they end."""

    def tensor(*rows: list[float]) -> dict[str, object]:
        data = [value for row in rows for value in row]
        output = {"name": "e", "datatype": "FP32", "shape": [len(rows), 2], "data": data}
        return {"outputs": [output]}

    report = command(
        answers(
            (tensor([1, 0], [0, 1]), tensor([2, 0], [0, 5])),
            (tensor([1, 0], [0, 1]), tensor([1, 0], [1, 0])),
        ),
        *("--rule", "outputs.e.data=cosine"),
    )
    assert report["outcomes"] == {"within tolerance": 1, "similarity": 1}
    (cosine,) = path_of(report, "outputs.e.data[*]")["similarities"]
    assert (cosine["name"], cosine["values"], cosine["below"]) == ("cosine", 4, 1)
    (worst,) = (s["largest"][0] for s in report["signatures"])
    assert worst["what"] == "outputs.e.data[1]: cosine 0, asked for 0.99"


def test_similarities_are_shown_with_their_tail(command: Command, tmp_path: Path) -> None:
    """The distribution of a text's similarity: how many are below, the quantiles, and the bars."""
    text = "the quick brown fox jumps over the lazy dog"
    calls = answers(
        *(({"text": text}, {"text": text if i % 10 else "no idea"}) for i in range(200))
    )
    report = command(calls, "--rule", "text=text,least=0.9")
    found = path_of(report, "text")
    (similarity,) = found["similarities"]
    assert (found["kind"], similarity["values"], similarity["below"]) == ("text", 200, 20)
    assert similarity["quantiles"]["p50"] == 1
    assert similarity["quantiles"]["min"] == pytest.approx(0.2, abs=0.01)
    assert sum(count for _, _, count in similarity["histogram"]) == 200
    assert found["lengths"]["bias"] == pytest.approx(-0.1 * (len(text) - len("no idea")))
    (worst,) = (s["largest"][0] for s in report["signatures"])
    assert worst["what"] == f'text: "{text}" became "no idea", similarity 0.2, asked for 0.9'
    assert "asked for 0.9" in (tmp_path / "r.html").read_text()


def test_rank_correlation_is_spearmans() -> None:
    """Held against scipy's, on random rankings that have some items in common."""
    chooser, rule = random.Random(1), Ranking(top=10)
    for _ in range(300):
        p, s = chooser.sample(range(15), 10), chooser.sample(range(15), 10)
        ranks = rule.ranks(p, s)
        common = [item for item in p if item in s]
        assert ranks is not None
        assert ranks.overlap == len(common) / 10
        expected = spearmanr([p.index(i) for i in common], [s.index(i) for i in common]).statistic
        assert ranks.correlation == pytest.approx(expected)


def test_how_far_the_predictions_moved(command: Command, tmp_path: Path) -> None:
    """PSI, Kolmogorov-Smirnov and Wasserstein of the values on both sides, as scipy has them."""
    chooser = random.Random(2)
    values = [chooser.gauss(10, 2) for _ in range(2_000)]
    moved = [value + 1 + chooser.gauss(0, 0.1) for value in values]
    report = command(answers(*(([p], [s]) for p, s in zip(values, moved, strict=True))))
    numbers = path_of(report, "[*]")["numbers"]
    assert numbers["bias"] == pytest.approx(1, abs=0.01)
    assert numbers["wasserstein"] == pytest.approx(wasserstein_distance(values, moved), rel=0.02)
    assert numbers["distance"] == pytest.approx(ks_2samp(values, moved).statistic, abs=0.02)
    assert 0.2 < numbers["psi"] < 0.3
    assert numbers["psi_by_chance"] < 0.02
    page = (tmp_path / "r.html").read_text()
    assert all(name in page for name in ("PSI", "Wasserstein", "Kolmogorov-Smirnov D"))


def test_the_tail_of_a_difference_is_drawn(command: Command, tmp_path: Path) -> None:
    """80 of 19,900 values are off by up to 961: not one spike at 0."""
    calls = answers(
        *(([1.0], [1.0 + (i + 1) ** 2 / 6.66 if i < 80 else 1.0]) for i in range(9_950))
    )
    histogram = path_of(command(calls), "[*]")["numbers"]["histogram"]
    assert histogram[-1][1] == pytest.approx(961, rel=0.01)
    assert sum(count for _, _, count in histogram) == 9_950
    assert sum(count for low, _, count in histogram if low > 20) > 60


def test_far_values_are_counted_at_the_edge(command: Command, tmp_path: Path) -> None:
    """A few that are a thousand times as far off do not flatten the rest into one bar."""
    chooser = random.Random(3)
    off = [chooser.gauss(0, 1) if i % 400 else 5_000.0 for i in range(4_000)]
    report = command(answers(*(([0.0], [difference]) for difference in off)))
    histogram = path_of(report, "[*]")["numbers"]["histogram"]
    low, high, count = histogram[-1]
    assert (count, high) == (10, pytest.approx(5_000, rel=0.01))
    middle = histogram[1:-1] if histogram[0][1] - histogram[0][0] > 1 else histogram[:-1]
    assert len([bar for bar in middle if bar[2]]) > 30
    assert math.isclose(low, max(value for value in off if value < 100), rel_tol=0.2)
    page = (tmp_path / "r.html").read_text()
    assert re.search(r">10 as far as (5,0|4,9)\d\d<", page)


def test_rounding_is_no_bias(command: Command) -> None:
    """The mean of differences of some 1e-16 is 0, and reads so."""
    calls = answers(*(([0.1 + 0.2, 0.7], [0.3, 0.1 * 7]) for _ in range(100)))
    numbers = path_of(command(calls), "[*]")["numbers"]
    assert numbers["absolute_quantiles"]["max"] > 0
    assert numbers["bias"] == 0


def chat(
    content: str | None, arguments: str | None = None, tool_calls: int = 1, **fields: object
) -> dict[str, object]:
    """A chat answer as an OpenAI-compatible server gives it, new ids and times each time."""
    message: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if arguments is not None:
        function = {"name": "get_weather", "arguments": arguments}
        call = {"id": f"call_{random.random()}", "type": "function", "function": function}
        message["tool_calls"] = [call] * tool_calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = {
        "id": f"chatcmpl-{random.random()}",
        "object": "chat.completion",
        "created": random.randrange(10**9),
        "model": f"m-{random.random()}",
        "choices": [choice | {k: v for k, v in fields.items() if k == "finish_reason"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
        "system_fingerprint": f"fp_{random.random()}",
    }
    return answer | {k: v for k, v in fields.items() if k != "finish_reason"}


PARIS = "The capital of France is Paris."
CHATS = [
    ("another id, time and fingerprint", chat(PARIS), chat(PARIS), "equal"),
    ("case and white space", chat(PARIS), chat("the capital of  France is Paris.\n"), "within tolerance"),
    ("a few other words", chat(PARIS), chat("The capital of France is Paris!"), "within tolerance"),
    ("another answer", chat(PARIS), chat("I like turtles very much indeed, don't you?"), "similarity"),
    ("a refusal", chat(PARIS), chat("I'm sorry, but I can't help with that."), "label"),
    ("both refuse", chat("I'm sorry, I can't help."), chat("I'm sorry, I can't help!"), "within tolerance"),
    ("the same tool call", chat(None, '{"city": "Paris", "days": 3}'), chat(None, '{"days":3,"city":"Paris"}'), "equal"),
    ("another argument", chat(None, '{"city": "Paris"}'), chat(None, '{"city": "London"}'), "label"),
    ("an argument is gone", chat(None, '{"city": "Paris"}'), chat(None, "{}"), "missing"),
    ("arguments that are cut off", chat(None, '{"city": "Paris"}'), chat(None, '{"city": "Par'), "unparseable"),
    ("text instead of a tool call", chat(None, '{"city": "Paris"}'), chat("Paris is nice."), "form"),
    ("a second tool call", chat(None, "{}"), chat(None, "{}", tool_calls=2), "form"),
    ("JSON in another order", chat('{"a": 1, "b": "x"}'), chat('{"b":"x","a":1}'), "equal"),
    ("another field of JSON", chat('{"verdict": "approve"}'), chat('{"verdict": "approved"}'), "label"),
    ("a field of JSON is gone", chat('{"a": 1, "b": 2}'), chat('{"a": 1}'), "missing"),
    ("prose instead of JSON", chat('{"a": 1}'), chat("It is 1."), "unparseable"),
    ("a number alone is a text", chat("42"), chat(" 42"), "within tolerance"),
    ("another finish reason", chat(PARIS), chat(PARIS, finish_reason="length"), "label"),
    ("more tokens", chat(PARIS), chat(PARIS, usage={"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}), "within tolerance"),
    ("no usage", chat(PARIS), chat(PARIS, usage={}), "missing"),
    ("an embedding", {"data": [{"index": 0, "embedding": [0.1, 0.2]}]}, {"data": [{"index": 0, "embedding": [0.1, 0.2001]}]}, "within tolerance"),
    ("another embedding", {"data": [{"index": 0, "embedding": [0.1, 0.2]}]}, {"data": [{"index": 0, "embedding": [-0.1, 0.2]}]}, "similarity"),
    ("a completion", {"choices": [{"text": PARIS}]}, {"choices": [{"text": PARIS + " "}]}, "within tolerance"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("primary", "shadow", "outcome"), [case[1:] for case in CHATS], ids=[case[0] for case in CHATS]
)
def test_generated_answers_by_the_preset(
    command: Command, primary: dict[str, object], shadow: dict[str, object], outcome: str
) -> None:
    """What a caller of a language model would call the same answer, and what not."""
    report = command(answers((primary, shadow)), "--rules", "openai")
    assert report["outcomes"] == {outcome: 1}


def test_a_completion_that_refuses_is_of_another_class(command: Command) -> None:
    """As a chat is."""
    refused = {"choices": [{"text": "I'm sorry, but I can't help with that."}]}
    pairs = [({"choices": [{"text": PARIS}]}, refused)] * 20
    report = command(answers(*pairs), "--rules", "openai")
    classes = path_of(report, "choices[*].text (refusal)")["labels"]["classes"]
    assert classes == ["(no pattern)", "refusal"]


def test_a_preset_shows_how_generated_answers_drift(command: Command) -> None:
    """Similarity with its tail, refusals by class, length and usage; a file may build on it."""
    refusal = "I'm sorry, but I can't help with that."
    calls = answers(
        *((chat(PARIS), chat(PARIS if i % 10 else refusal)) for i in range(200)),
        *((chat(refusal), chat(refusal)) for _ in range(5)),
    )
    report = command(calls, "--rules", "openai")
    (similarity,) = path_of(report, "choices[*].message.content")["similarities"]
    assert (similarity["values"], similarity["below"]) == (205, 20)
    refusals = path_of(report, "choices[*].message.content (refusal)")["labels"]
    assert refusals["classes"] == ["(no pattern)", "refusal"]
    assert refusals["confusion"] == [[180, 20], [0, 5]]
    assert "choices[*].message.content is of another class (refusal)" in report["reasons"][0]
    assert path_of(report, "choices[*].message.content")["lengths"]["bias"] > 0
    assert path_of(report, "usage.completion_tokens")["numbers"]["values"] == 205


def test_a_file_builds_on_a_preset(command: Command, tmp_path: Path) -> None:
    """Its own rules come after those of the preset."""
    file = tmp_path / "rules.yaml"
    file.write_text(
        "presets: [openai]\n"
        "rules:\n"
        '  - {path: "choices[*].message.content", compare: text, least: 0.1, margin: 30%}\n'
    )
    calls = answers((chat(PARIS), chat("The capital is Paris")), (chat(PARIS), chat("xyz")))
    report = command(calls, "--rules", str(file))
    assert report["outcomes"] == {"within tolerance": 1, "similarity": 1}
    assert report["disagreements"] == 0
    assert next(gate for gate in report["gates"] if gate["path"])["estimate"] == 0.5


def test_margins_of_a_text_and_of_refusals_are_told_apart(command: Command, tmp_path: Path) -> None:
    """They stand at one path, and the verdict names both."""
    file, path = tmp_path / "rules.yaml", "choices[*].message.content"
    file.write_text(
        "presets: [openai]\n"
        "rules:\n"
        f'  - {{path: "{path}", compare: text, least: 0.6, margin: 20%}}\n'
        f'  - {{path: "{path}", compare: pattern, margin: 2%, patterns: {{refusal: sorry}}}}\n'
    )
    report = command(answers(*[(chat(PARIS), chat(PARIS))] * 4_000), "--rules", str(file))
    assert report["verdict"] == "PROMOTE"
    assert f"{path} differs in 0 % of 4,000 pairs" in report["reasons"][0]
    assert f"{path} (refusal) differs in 0 % of 4,000 pairs" in report["reasons"][0]


def test_a_margin_of_refusals_that_fails_is_named_once(command: Command, tmp_path: Path) -> None:
    """Its gate is called as its place, with which the sentence begins."""
    file, path = tmp_path / "rules.yaml", "choices[*].message.content"
    file.write_text(
        "presets: [openai]\n"
        "rules:\n"
        f'  - {{path: "{path}", compare: pattern, margin: 2%, patterns: {{refusal: sorry}}}}\n'
    )
    report = command(answers(*[(chat(PARIS), chat("I'm sorry."))] * 400), "--rules", str(file))
    assert report["verdict"] == "REJECT"
    named = [reason for reason in report["reasons"] if f"{path} (refusal)" in reason]
    assert [reason.partition(" differs in 100 %")[0] for reason in named] == [f"{path} (refusal)"]


def test_generated_answers_are_known_by_their_protocol(command: Command, tmp_path: Path) -> None:
    """Without rules no two would agree, for their ids; the notes say so. What is given comes on top;
    a file stands alone.
    """
    calls = [replace(call, protocol="openai") for call in answers((chat(PARIS), chat(PARIS)))]
    report = command(calls)
    assert report["outcomes"] == {"equal": 1}
    assert "Generated answers are compared by the rules of --rules openai." in report["notes"]
    assert command([], "--ignore", "usage")["outcomes"] == {"equal": 1}
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{path: created, compare: ignore}]")
    own = command([], "--rules", str(file))
    assert own["outcomes"] == {"label": 1}
    assert not any("openai" in note for note in own["notes"])


def test_an_embedding_may_be_base64(command: Command) -> None:
    """As OpenAI's own client asks for it."""

    def embedding(*values: float) -> dict[str, object]:
        text = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        return {"data": [{"index": 0, "embedding": text}]}

    ones, near, far = [1.0] * 8, [1.0] * 7 + [1.01], [1.0] * 4 + [-1.0] * 4
    report = command(
        answers(
            (embedding(*ones), embedding(*ones)),
            (embedding(*ones), embedding(*near)),
            (embedding(*ones), embedding(*far)),
            (embedding(*ones), {"data": [{"index": 0, "embedding": near}]}),
            (embedding(*ones), embedding(*ones, 1.0)),
        ),
        *("--rules", "openai"),
    )
    assert report["outcomes"] == {
        "equal": 1, "within tolerance": 1, "similarity": 1, "type": 1, "length": 1,
    }  # fmt: skip


def told(report: dict[str, Any]) -> str:
    return next(reason for reason in report["reasons"] if reason.startswith("disagreement"))


def test_numbers_that_differ_a_little_name_the_tolerance_that_would_do(command: Command) -> None:
    """A retrained regressor that differs in the fifth digit: the value, which then agrees."""
    chooser = random.Random(4)
    values = [chooser.uniform(50, 150) for _ in range(300)]
    calls = answers(*(({"y": [v]}, {"y": [v + chooser.uniform(-0.01, 0.01)]}) for v in values))
    report = command(calls)
    advised = re.search(r"--tolerance '(y\[\*\]=[\d.]+)' would have called all", told(report))
    assert advised is not None
    assert 0.0099 <= float(advised[1].split("=")[1]) <= 0.011
    again = command([], "--tolerance", advised[1])
    assert again["outcomes"] == {"within tolerance": 300}


def test_the_advice_says_what_a_smaller_tolerance_would_do(command: Command) -> None:
    """Between half of the values and all of them: 95 %, in words and as a figure."""
    report = command(answers(*(({"y": [100.0]}, {"y": [100 + i / 100]}) for i in range(1, 301))))
    advised = re.search(
        r"differs by at most about 3, 95 % of the values by at most ([\d.]+) and half by at most 1\.5",
        told(report),
    )
    assert advised is not None
    assert float(advised[1]) == pytest.approx(2.85, rel=0.015)
    sizes = path_of(report, "y[*]")["numbers"]["absolute_quantiles"]
    assert sizes["p95"] == pytest.approx(float(advised[1]), rel=0.005)
    assert list(sizes) == ["p50", "p90", "p95", "p99", "max"]
    within = command([], "--tolerance", f"y[*]={advised[1]}")["outcomes"]["within tolerance"]
    assert 280 <= within <= 290


def test_no_figure_of_the_differences_is_above_the_largest(command: Command) -> None:
    """Equal differences have equal quantiles, in the reason and in the figures."""
    report = command(answers(*(({"y": 100.5}, {"y": 104.5}) for _ in range(300))))
    found = "differs by at most about 4, 95 % of the values by at most 4 and half by at most 4:"
    assert found in told(report)
    assert {*path_of(report, "y")["numbers"]["absolute_quantiles"].values()} == {4.0}


def test_a_probability_vector_names_the_rule_for_its_top_class(command: Command) -> None:
    """With the share that it would have agreed in."""
    calls = answers(
        *(
            ({"p": [[0.7, 0.3]]}, {"p": [[0.69, 0.31] if i % 10 else [0.49, 0.51]]})
            for i in range(300)
        )
    )
    report = command(calls)
    assert path_of(report, "p[*][*]")["kind"] == "probability vector"
    advised = re.search(r"same in 90 %: --rule '(p\[\*\]=top_class)'", told(report))
    assert advised is not None
    again = command([], "--rule", advised[1])
    assert again["outcomes"] == {"equal": 270, "label": 30}
    assert path_of(again, "p[*]")["labels"]["confusion"] == [[270, 30], [0, 0]]
    assert path_of(again, "p[*]")["kind"] == "top class"
    assert "If some top classes may be others, put `,margin=20%` behind `top_class`." in told(again)


def by_name(*probabilities: float) -> dict[str, float]:
    return dict(zip(("business", "sport", "tech"), probabilities, strict=True))


def test_probabilities_by_name_name_one_option_for_all_of_them(command: Command) -> None:
    """The tolerance of the object, and the rule for its top class, with what they do; one for each
    class would be as many rounds.
    """
    chooser, calls = random.Random(7), []
    for i in range(300):
        off = chooser.uniform(-0.05, 0.05)
        p, s = by_name(0.05, 0.8, 0.15), by_name(0.05 - off / 2, 0.8 + off, 0.15 - off / 2)
        if i < 3:
            s = by_name(0.41, 0.44, 0.15)
        if i == 0:
            s = by_name(0.42, 0.4, 0.18)
        calls += [
            ({"predictions": [{"text": "t", "p": p}]}, {"predictions": [{"text": "t", "p": s}]})
        ]
    report = command(answers(*calls))
    said = told(report)
    assert (
        "The numbers of predictions[*].p differ by at most about 0.4: "
        "--tolerance 'predictions[*].p=0.4' would have called all of them equal. "
        "The top class is the same in 99.667 %: --rule 'predictions[*].p=top_class' compares that "
        "alone; put `,margin=10%` behind `top_class` if some may be others." in said
    )
    assert command([], "--tolerance", "predictions[*].p=0.4")["outcomes"] == {
        "within tolerance": 300
    }
    top = command([], "--rule", "predictions[*].p=top_class")
    assert (top["outcomes"], top["unmatched_rules"]) == ({"equal": 299, "label": 1}, [])
    found = path_of(top, "predictions[*].p")
    assert (found["kind"], found["pairs"], found["differing_pairs"]) == ("top class", 300, 1)
    assert found["labels"]["classes"] == ["sport", "business"]
    assert found["labels"]["confusion"] == [[299, 1], [0, 0]]
    [worst] = top["signatures"]
    assert worst["largest"][0]["what"] == ('predictions[0].p: top class "sport" became "business"')


@pytest.mark.parametrize(
    ("pairs", "advised"),
    [
        ([({"x": 100.0, "y": 80.5}, {"x": 101.0, "y": 82.5})], "--tolerance 'm[*]=2' would"),
        ([({"x": 100.0, "y": 80.5}, {"x": 101.0, "y": 80.5})], "--tolerance 'm[*].x=1' would"),
        ([({"x": 100.0, "y": 0.5}, {"x": 101.0, "y": 0.45})], "--tolerance 'm[*].x=1' would"),
        ([({"x": 100.5, "y": 80.5, "k": 7}, {"x": 102.5, "y": 82.0, "k": 7})], "--tolerance 'm[*].x=2' would"),
    ],
    ids=["of one size", "one alone", "of other sizes", "beside class numbers"],
)  # fmt: skip
def test_numbers_by_name_share_a_tolerance_that_suits_all(
    command: Command, pairs: list[tuple[object, object]], advised: str
) -> None:
    """One that is small to each of them, differ as they may."""
    calls = answers(*(({"m": [p]}, {"m": [s]}) for p, s in pairs * 300))
    assert advised in told(command(calls))


def test_a_whole_answer_of_numbers_has_a_tolerance(command: Command) -> None:
    """No path names it, and one names all that is in it."""
    report = command(answers(*[(by_name(0.1, 0.7, 0.2), by_name(0.15, 0.65, 0.2))] * 300))
    assert "--tolerance '*=0.05' would have called all of them equal." in told(report)
    assert "top_class" not in told(report)
    assert command([], "--tolerance", "*=0.05")["outcomes"] == {"within tolerance": 300}


def test_more_classes_than_there_are_places_name_the_rule_for_the_largest(command: Command) -> None:
    """Of those past the bound nobody knows a tolerance, and no path names them."""
    p = {f"class {i}": 1 / 600 for i in range(600)}
    s = {name: value * (0.99 if i % 2 else 1.01) for i, (name, value) in enumerate(p.items())}
    said = told(command(answers(*[({"p": p}, {"p": s})] * 30)))
    assert "The top class is the same in 100 %: --rule p=top_class compares that alone." in said
    assert "--tolerance" not in said


def test_what_is_ignored_is_no_class(command: Command) -> None:
    """A number that stands among the probabilities would be the largest of each."""
    calls = [({"p": {"a": 0.2, "b": 0.8, "ms": i}}, {"p": {"a": 0.6, "b": 0.4}}) for i in range(5)]
    report = command(answers(*calls), "--rule", "p=top_class", "--ignore", "p.ms")
    assert (report["outcomes"], report["unmatched_rules"]) == ({"label": 5}, [])


NEITHER = "top_class, and neither a list nor several numbers by name there"


@pytest.mark.parametrize(
    ("rule", "answer", "said"),
    [
        ("p=unordered", {"p": {"a": 0.2, "b": 0.8}}, "rule p (unordered, and no list there)"),
        ("p=cosine", {"p": {"a": 0.2, "b": 0.8}}, "rule p (cosine, and no list there)"),
        ("p=ranking", {"p": "x"}, "rule p (ranking, and no list there)"),
        ("p=unordered,margin=5%", {"p": "x"}, "rule p (unordered, and no list there; its margin holds)"),
        ("p=matched,key=id", {"p": {"id": 1}}, "rule p (matched, and no list there)"),
        ("p=top_class", {"p": {"a": 0.2, "b": "x"}}, f"rule p ({NEITHER})"),
        ("p=top_class", {"p": {"a": 0.2}}, f"rule p ({NEITHER})"),
        ("p=unordered", {"p": {"a": ["x"]}}, None),
        ("p=unordered", {"p": []}, None),
        ("p=cosine", {"p": base64.b64encode(struct.pack("<8f", *[1.0] * 8)).decode()}, None),
        ("*=cosine", {"p": 1, "q": [1, 2]}, None),
        ("outputs.e=cosine", {"outputs": [{"name": "e", "datatype": "FP32", "shape": [2], "data": [1, 0]}]}, None),
    ],
)  # fmt: skip
def test_a_rule_for_lists_that_met_none_says_so(
    command: Command,
    capsys: pytest.CaptureFixture[str],
    rule: str,
    answer: object,
    said: str | None,
) -> None:
    """Though there is something at its place, which it says nothing of."""
    report = command(answers((answer, answer)), "--rule", rule)
    assert report["unmatched_rules"] == ([said] if said else [])
    printed = " ".join(capsys.readouterr().out.split())
    assert (f"No effect {said}: it found nothing that it is for" in printed) is bool(said)


def test_a_rule_for_lists_that_another_takes_the_place_of_is_not_told(command: Command) -> None:
    """As of any kind; and where one side has another type, what it would say is not known."""
    both = ("--rule", "p=unordered", "--rule", "p=top_class")
    assert command(answers(({"p": [1, 2]}, {"p": [1, 2]})), *both)["unmatched_rules"] == []
    report = command(answers(({"p": {"a": 1}}, {"p": "x"})), "--rule", "p=unordered")
    assert report["unmatched_rules"] == []


@pytest.mark.parametrize(
    ("primary", "shadow", "rule", "outcome"),
    [
        ({"t": ["a", "b", "c"]}, {"t": ["b", "c", "a"]}, "t=unordered", "equal"),
        ({"e": [0.1] * 64}, {"e": [0.1001] * 64}, "e=cosine", "within tolerance"),
        (
            {"s": "x" * 100 + " one"},
            {"s": "x" * 100 + " two"},
            "s=text,least=0.8, and then it says here how alike they are",
            "within tolerance",
        ),
    ],
)
def test_other_kinds_name_their_rule(
    command: Command, primary: dict[str, object], shadow: dict[str, object], rule: str, outcome: str
) -> None:
    """What the reason advises is an option that does it."""
    calls = answers(*((primary, shadow) for _ in range(300)))
    assert f"--rule {rule}." in told(command(calls)).replace("'", "")
    assert command([], "--rule", rule.split(", ", maxsplit=1)[0])["outcomes"] == {outcome: 300}


@pytest.mark.parametrize(
    ("differing", "margin"), [(20, "10%"), (30, "20%"), (60, "30%"), (100, "50%"), (101, None)]
)
def test_a_margin_that_is_named_is_above_what_differs(
    command: Command, differing: int, margin: str | None
) -> None:
    """Whoever pastes it is not told again that too much differs; nor is another model let through."""
    same, other = ({"l": ["cat"]}, {"l": ["cat"]}), ({"l": ["cat"]}, {"l": ["dog"]})
    report = command(answers(*[same] * (300 - differing), *[other] * differing))
    rule = f"l[*]=label,margin={margin}"
    if margin is None:
        assert "--rule" not in told(report)
        return
    assert f"If some labels may be others: --rule '{rule}'." in told(report)
    gates = {gate["name"]: gate for gate in command([], "--rule", rule)["gates"]}
    assert gates["l[*] (label)"]["status"] != "fail"


@pytest.mark.parametrize(
    ("answer", "other", "rule"),
    [
        ({"p": [0.1, 0.9]}, {"p": [0.8, 0.2]}, "p=top_class"),
        (
            {"p": [[0.1, 0.9], [0.1, 0.9]]},
            {"p": [[0.1, 0.9], [0.8, 0.2]]},
            "p[*]=top_class",
        ),
        (
            {"outputs": [{"name": "p", "datatype": "FP64", "shape": [1, 2], "data": [0.1, 0.9]}]},
            {"outputs": [{"name": "p", "datatype": "FP64", "shape": [1, 2], "data": [0.8, 0.2]}]},
            "outputs.p.data=top_class",
        ),
        ({"ok": True}, {"ok": False}, None),
    ],
)
def test_a_margin_is_named_for_what_has_no_tolerance(
    command: Command, answer: object, other: object, rule: str | None
) -> None:
    """As a rule of its own, or in the one that made the classes."""
    options = ("--rule", rule) if rule else ()
    calls = answers(*[(answer, answer)] * 270, *[(answer, other)] * 30)
    reason = told(command(calls, *options))
    if rule is None:
        advised = re.search(r"If some labels may be others: --rule '?(.*%)'?\.", reason)
        assert advised is not None
        better = advised[1]
    else:
        assert "If some top classes may be others, put `,margin=20%` behind `top_class`." in reason
        better = f"{rule},margin=20%"
    report = command([], "--rule", better)
    assert report["outcomes"] == {"equal": 270, "label": 30}
    gates = {gate["name"]: gate["status"] for gate in report["gates"]}
    path, how = better.removesuffix(",margin=20%").split("=")
    assert (gates[f"{path} ({how})"], gates["disagreement"]) == ("pass", "wait")


@pytest.mark.parametrize(
    ("primary", "shadow", "gate"),
    [
        ({"m": [{"t": "a"}]}, {"m": [{"t": "a", "why so": "b"}]}, "disagreement"),
        ({"m": [{"t": "a", "why so": "b"}]}, {"m": [{"t": "a"}]}, "faults"),
    ],
)
def test_a_field_on_one_side_only_names_the_option_that_leaves_it_out(
    command: Command, primary: object, shadow: object, gate: str
) -> None:
    """Whatever else differs less often."""
    other = {"m": [{"t": "b"}]}
    calls = answers(*[(primary, shadow)] * 280, *[(other, {"m": [{"t": "c"}]})] * 20)
    reasons = command(calls)["reasons"]
    reason = next(said for said in reasons if said.startswith(gate))
    advised = re.search(
        r"If no caller reads it: --ignore '(.*?\])'\.", reason.replace("'\"'\"'", '"')
    )
    assert advised is not None
    assert command([], "--ignore", advised[1])["outcomes"] == {"equal": 280, "label": 20}


def test_a_field_that_is_rarely_missing_names_no_such_option(command: Command) -> None:
    """The advice is for what differs most often."""
    calls = answers(*[({"t": "a"}, {"t": "b"})] * 30, *[({"t": "a"}, {"t": "a", "u": 1})] * 20)
    assert "--ignore" not in told(command(calls))


def test_a_margin_of_a_pattern_stands_in_its_rule(command: Command, tmp_path: Path) -> None:
    """One of another rule for the same path is that of the text."""
    file, rule = tmp_path / "rules.yaml", "path: t, compare: pattern, patterns: {refusal: sorry}"
    file.write_text(f"rules: [{{{rule}}}]")
    calls = answers(*[({"t": "hi"}, {"t": "hi"})] * 270, *[({"t": "hi"}, {"t": "sorry"})] * 30)
    advised = re.search(
        r"may be of another class: (margin: 20%) in the rule",
        told(command(calls, "--rules", str(file))),
    )
    assert advised is not None
    file.write_text(f"rules: [{{{rule}, {advised[1]}}}]")
    gates = command([], "--rules", str(file))["gates"]
    assert {gate["name"]: gate["status"] for gate in gates}["t (refusal)"] == "pass"


def test_a_margin_of_a_presets_pattern_keeps_the_pattern(command: Command, tmp_path: Path) -> None:
    """As the report writes it, into a file with the preset."""
    refused = chat("I'm sorry, I can't help with that.")
    calls = answers(*[(chat(PARIS), chat(PARIS))] * 270, *[(chat(PARIS), refused)] * 30)
    # The text differs there too.
    loose = "choices[*].message.content=text,least=0"
    report = command([replace(call, protocol="openai") for call in calls], "--rule", loose)
    advised = re.search(r"of a preset's, ({.*?}) there, after (presets: .*?])\.", told(report))
    assert advised is not None
    file = tmp_path / "rules.yaml"
    file.write_text(f"{advised[2]}\nrules: [{advised[1]}]\n")
    report = command([], "--rules", str(file), "--rule", loose)
    gate = next(gate for gate in report["gates"] if gate["path"])
    assert (gate["path"], gate["status"]) == ("choices[*].message.content (refusal)", "pass")
    assert round(gate["estimate"] * gate["n"]) == 30
    assert report["disagreements"] == 0
    file.write_text(f"rules: [{advised[1]}]\n")
    with pytest.raises(SettingWrong, match="rule 1: patterns: field required"):
        read_rules(file)


def test_a_wait_that_heads_for_a_rejection_says_what_differs(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal too, with the option to think about: half a million pairs are no way out."""
    calls = answers(*[({"a": "x"}, {"a": "y" if i % 90 == 0 else "x"}) for i in range(4_500)])
    report = command(calls, "--rule", "a=label")
    assert "would settle it as REJECT" in report["reasons"][0]
    shown = " ".join(capsys.readouterr().out.split())
    assert "disagreement: 50 of 4,500 pairs disagree" in shown
    assert "If some labels may be others: --rule a=label,margin=10%." in shown


def test_a_text_of_another_class_that_reads_otherwise_takes_both_remedies(
    command: Command,
) -> None:
    """A refusal is both; either remedy alone would leave all of them differing."""
    refused = chat("I'm sorry, I can't help with that.")
    calls = answers(*[(chat(PARIS), chat(PARIS))] * 270, *[(chat(PARIS), refused)] * 30)
    reason = told(command([replace(call, protocol="openai") for call in calls]))
    assert "If some texts may be of another class: margin: 20% in the rule" in reason
    assert "text,least=0.8,margin=20%', or a lower least." in reason


@pytest.mark.parametrize(("common", "is_named"), [(30, True), (18, True), (4, False)])
def test_a_least_that_is_named_is_what_the_texts_have(
    command: Command, common: int, is_named: bool
) -> None:
    """Of 44 characters 4 more than these are the same, or 8 more in every other pair; whoever
    pastes what it says is left with at most one differing text in twenty.
    """
    sides = [
        tuple(f"{i} " + "a" * (n := common + 4 * (i % 2)) + letter * (40 - n) for letter in "bc")
        for i in range(100, 400)
    ]
    calls = answers(*[({"reply": primary}, {"reply": shadow}) for primary, shadow in sides])
    strict = "reply=text,least=0.95"
    first = told(command(calls))
    assert "If the wording may differ: --rule reply=text,least=0.8, and then" in first, first
    reason = told(command([], "--rule", strict))
    advised = re.search(r"If so much of it may differ: --rule (\S+)\.", reason)
    assert (advised is not None) == is_named, reason
    if advised is None:
        assert "alike, 95 % of them at least 0.18: too little" in reason
        return
    assert command([], "--rule", advised[1])["disagreements"] <= 300 / 20


@pytest.mark.parametrize(("differing", "margin"), [(300, None), (30, "20%")])
def test_advice_under_the_preset_loosens_it(
    command: Command, differing: int, margin: str | None
) -> None:
    """And a rule comes on top of the preset: else ids would differ in every pair."""
    same, other = (chat(PARIS), chat(PARIS)), (chat(PARIS), chat("xyz"))
    pairs = [same] * (300 - differing) + [other] * differing
    calls = [replace(call, protocol="openai") for call in answers(*pairs)]
    rule = "choices[*].message.content=text,least=0.8"
    advised = f"--rule '{rule},margin={margin}', or a lower least."
    for options in ((), ("--rules", "openai")):
        reason = told(command(calls, *options))
        assert (advised if margin else "95 % of them at least 0: too little to call") in reason
        calls = []
        lower = rule.replace("0.8", "0")
        assert command([], *options, "--rule", lower)["disagreements"] == 0


def test_rules_of_a_file_without_the_preset_are_told_of_it(
    command: Command, tmp_path: Path
) -> None:
    """Where ids differ in answers of OpenAI's API; a rule for ids would lead astray."""
    calls = answers(
        *((chat(PARIS) | {"id": f"a{i}"}, chat(PARIS) | {"id": f"b{i}"}) for i in range(300))
    )
    file = tmp_path / "rules.yaml"
    rules = "rules: [{path: created, compare: ignore}]"
    file.write_text(rules)
    reason = told(command([replace(call, protocol="openai") for call in calls], "--rules", file))
    assert "write `presets: [openai]` into the file of rules" in reason
    assert "--rule" not in reason
    file.write_text(f"presets: [openai]\n{rules}")
    assert command([], "--rules", file)["disagreements"] == 0


def test_one_call_of_another_protocol_takes_the_preset_away_and_is_told(command: Command) -> None:
    """A first call by hand, of v1, had every id differ, and no word said why."""
    calls = answers(
        *((chat(PARIS) | {"id": f"a{i}"}, chat(PARIS) | {"id": f"b{i}"}) for i in range(300))
    )
    chats = [replace(call, protocol="openai") for call in calls[1:]]
    reason = told(command([calls[0], *chats]))
    assert "so its preset was not taken: name it, --rules openai" in reason
    assert "--rule " not in reason
    assert command([], "--rules", "openai")["disagreements"] == 0


def test_a_long_answer_shows_the_place_that_differs(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not its beginning, which is the same: both sides' text from shortly before the difference."""
    words = "word " * 100
    common = {"usage": {"prompt_tokens": 7}, "notes": ["n" * 50] * 60}
    primary = common | {"choices": [{"text": f"{words}Paris is the capital."}]}
    shadow = common | {"choices": [{"text": f"{words}Lyon is the capital."}]}
    report = command(answers((primary, shadow)))
    [example] = report["signatures"][0]["largest"]
    assert example["place"] == "choices[0].text"
    printed = " ".join(capsys.readouterr().out.partition("Worst pairs")[2].split())
    for role, name in (("primary", "Paris"), ("shadow", "Lyon")):
        assert re.search(
            rf'{role} 200 choices\[0\].text: …[word ]+{name} is the capital."', printed
        )
        assert f"{name} is the capital." in example[f"{role}_value"]
        assert f"{name} is the capital." in (tmp_path / "r.html").read_text()
    assert "usage" not in printed


@pytest.mark.parametrize("lacking", ["shadow", "primary"])
def test_a_long_answer_shows_where_a_key_is_missing(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], lacking: str
) -> None:
    """The object around it on both sides: of a tool call its arguments, whatever stands before."""

    def chat_with(**arguments: object) -> dict[str, Any]:
        call = {"function": {"name": "refund", "arguments": json.dumps(arguments)}}
        message = {"role": "assistant", "reasoning": "word " * 500, "tool_calls": [call]}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    note = {"note": "n" * 500}
    whole, other = chat_with(**note, order_id=4711, why="late"), chat_with(**note, why="late")
    command(answers((whole, other) if lacking == "shadow" else (other, whole)), "--rules", "openai")
    printed = " ".join(capsys.readouterr().out.partition("Worst pairs")[2].split())
    page = html.unescape((tmp_path / "r.html").read_text())
    at = re.escape("choices[0].message.tool_calls[0].function.arguments")
    values = {"shadow": 'n+", "why": "late"}', "primary": 'n+", "order_id": 4711, "why": "late"}'}
    if lacking == "primary":
        values = dict(zip(values, reversed(values.values()), strict=True))
    for role, value in values.items():
        assert re.search(f"{role} 200 {at}: …{value}", printed), printed
        assert re.search(f"{role} <code>…{value}</code>", page)


@pytest.mark.parametrize("end", [{}, {"z": "z" * 500}])
def test_a_key_that_is_missing_stands_between_its_neighbours(
    command: Command, capsys: pytest.CaptureFixture[str], end: dict[str, str]
) -> None:
    """Whatever else differs before it; what follows is cut."""
    primary, shadow = {"a": "a" * 400, "x": 1} | end, {"a": "b" * 300} | end
    command(answers((primary, shadow)))
    printed = " ".join(capsys.readouterr().out.partition("Worst pairs")[2].split())
    assert re.search('primary 200 …a+", "x": 1' + (', "z": "z+' if end else "}"), printed)
    assert re.search('shadow 200 …b+"' + (', "z": "z+' if end else "}"), printed)


def test_a_long_answer_of_another_status_shows_its_beginning(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """No value says what differs there."""
    text = json.dumps({"first": 1, "notes": ["n" * 50] * 60})
    command(pair(9, None, {"status": 500, "answer": text}, answer=text))
    printed = " ".join(capsys.readouterr().out.partition("Worst pairs")[2].split())
    assert printed.count('{"first": 1') == 2


@pytest.mark.parametrize("length", [1, 5])
def test_numbers_far_apart_name_a_rule_with_a_margin(command: Command, length: int) -> None:
    """A retrained regressor: what 95 % of the pairs are within, in all values of each, and the rule
    does what the reason says of it. To tolerate it stays a decision.
    """
    chooser = random.Random(6)
    values = [[chooser.gauss(150, 50) for _ in range(length)] for _ in range(400)]
    calls = answers(*(({"y": v}, {"y": [x + chooser.gauss(0, 18) for x in v]}) for v in values))
    report = command(calls)
    assert "--tolerance" not in told(report)
    advised = re.search(
        r"for you to decide: --rule '(y\[\*\]=number,absolute=([\d.]+),margin=10%)' lets 1 pair in 10",
        told(report),
    )
    assert advised is not None
    pair_quantiles = path_of(report, "y[*]")["numbers"]["pair_quantiles"]
    assert pair_quantiles["p95"] == pytest.approx(float(advised[2]), rel=0.1)
    again = command([], "--rule", advised[1])
    assert next(g for g in again["gates"] if g["path"] == "y[*]")["status"] == "pass"
    assert 0 < path_of(again, "y[*]")["differing_pairs"] <= 20


@pytest.mark.parametrize(("far", "is_told"), [(140.0, True), (19.0, False)])
def test_a_tolerance_for_one_pair_that_is_far_off_has_another_way_beside_it(
    command: Command, far: float, is_told: bool
) -> None:
    """What calls all of them equal may allow more than anybody wants."""
    values = [1000 + i for i in range(400)]
    off = [far if i == 7 else 10 + i % 10 for i in range(400)]
    reason = told(
        command(answers(*(({"y": v}, {"y": v + d}) for v, d in zip(values, off, strict=True))))
    )
    assert "--tolerance y=" in reason
    assert ("--rule y=number,absolute=19,margin=10% lets 1 pair in 10" in reason) is is_told


@pytest.mark.parametrize("least", [-1000, 0, 900])
def test_another_factor_names_no_rule(command: Command, least: int) -> None:
    """Wherever the numbers lie, as those of `make demo` do on both sides of 0."""
    values = [least + (1000 - least) * i / 400 for i in range(400)]
    reason = told(command(answers(*(({"y": v}, {"y": 1.5 * v}) for v in values))))
    assert "Most often y is another number" in reason
    assert "--rule" not in reason


def test_the_number_of_an_advised_rule_is_written_as_a_person_would(command: Command) -> None:
    """970, and not 9.7e+02."""
    values = [100.0 * i for i in range(1, 41)]
    report = command(answers(*(({"y": v}, {"y": v + 965}) for v in values)))
    assert "--rule y=number,absolute=970,margin=10%" in told(report)


@pytest.mark.parametrize(("pairs", "is_told"), [(7, False), (20, True)])
def test_of_a_few_pairs_no_share_is_told_that_is_not_so(
    command: Command, pairs: int, is_told: bool
) -> None:
    """One of seven is more than one in twenty."""
    off = [2.5 * pairs * (1 + i / 100) for i in range(pairs)]
    calls = answers(*(({"y": 10 * (i + 1)}, {"y": 10 * (i + 1) + d}) for i, d in enumerate(off)))
    reason = told(command(calls))
    assert "lets 1 pair in 10 differ by more than" in reason
    assert ("1 in 20 of these do" in reason) is is_told


def test_a_share_is_the_same_wherever_it_stands(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two refusals alike are of no gate's pairs: neither is a share of what differs."""
    told_of = [
        ({"l": "a", "n": 1.5}, {"l": "b" if i % 5 == 0 else "a", "n": 1.5}) for i in range(300)
    ]
    refused = pair(900, status=400, answer='{"error": "values is empty"}')
    report = command([*answers(*told_of), *refused], "--rule", "l=label,margin=50%")
    gate = next(g for g in report["gates"] if g["path"] == "l")
    [signature] = report["signatures"]
    assert (signature["pairs"], signature["of"], signature["share"]) == (60, 300, gate["estimate"])
    assert (report["pairs"], report["compared"], report["forgiven"]) == (301, 300, 60)
    printed = " ".join(capsys.readouterr().out.split())
    assert "pairs 301, of which 300 agree or differ, over" in printed
    assert "(own margin, 60 of 300 pairs, 20 %, whatever the values)" in printed
    page = " ".join((tmp_path / "r.html").read_text().split())
    assert "<b>60</b><span>differ under a rule's own margin</span><small>20 % of the same" in page
    assert "60 of 300 pairs, 20 %" in page


def test_two_errors_that_differ_are_among_the_pairs_that_agree_or_differ(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And two that are alike are not, on the terminal and on the page."""
    empty = {"answer": '{"error": "empty"}'}
    alike, apart = pair(1, **empty, status=400), pair(2, {"answer": "{}"}, empty, status=400)
    report = command([*answers(([1.5], [1.5])), *alike, *apart])
    assert (report["pairs"], report["compared"], report["disagreements"]) == (3, 2, 1)
    printed = " ".join(capsys.readouterr().out.split())
    assert "pairs 3, of which 2 agree or differ, over" in printed
    assert next(g["n"] for g in report["gates"] if g["name"] == "disagreement") == 2
    page = " ".join((tmp_path / "r.html").read_text().split())
    assert "<small>of which 2 agree or differ; " in page
    assert "<small>50 % of 2 pairs that agree or differ</small>" in page


def test_faults_are_a_share_of_the_calls(command: Command) -> None:
    """As the gate has them, where calls without an answer count as well."""
    broken = pair(900, None, {"status": 500, "answer": "{}"})
    report = command([*answers(*[([1.5], [1.5])] * 30), *broken, *pair(901)[:1]])
    [signature] = report["signatures"]
    gate = next(g for g in report["gates"] if g["name"] == "faults")
    assert (signature["of"], signature["unit"]) == (gate["n"], "call") == (32, "call")


def test_answers_of_another_size_are_not_talked_away(command: Command) -> None:
    """FACTOR 3 instead of 2: no tolerance is worth thinking about."""
    calls = answers(*(([2.0 * i], [3.0 * i]) for i in range(1, 301)))
    assert not {"--tolerance", "--rule"} & set(told(command(calls)).split())


PAGE = Path(__file__).parents[3] / "docs" / "comparing.md"


@pytest.mark.parametrize(
    "block",
    [b for b in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "rules:\n" in b],
)
def test_the_rules_of_the_page_are_rules(block: str, tmp_path: Path) -> None:
    """Every example of docs/comparing.md can be copied into a file."""
    file = tmp_path / "rules.yaml"
    file.write_text(block)
    assert read_rules(file).by_path


def test_the_page_names_every_kind_of_rule() -> None:
    """And no other; each has a case above, and its parameters in rules.py."""
    table = PAGE.read_text().partition("| kind | for |")[2].partition("\n\n")[0]
    rows = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert rows == {*TITLES.values(), "default"}, PAGE.name
    assert set(KINDS.split(", ")) == {*TITLES.values(), "default"}, "rules.py, _MODELS"
    asked = {rule.partition("=")[2].partition(",")[0] for rule, *_ in CASES}
    assert asked >= set(TITLES.values()) - {*IN_FILES}, "CASES"  # an option cannot say these


def test_another_label_outranks_another_number(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the outcomes, in the signature and above the worst pairs, however many numbers differ."""
    same, other = {"label": "a", "z": 0.5}, {"label": "b", "z": 0.6}
    number = same | {"z": 0.9}
    report = command(answers(*[(same, number)] * 30, *[(same, other)] * 5, *[(same, same)] * 5))
    assert report["outcomes"] == {"equal": 5, "number": 30, "label": 5}
    by_name = {s["signature"]: s for s in report["signatures"]}
    assert by_name.keys() == {"z: number", "label: label + z: number"}
    assert by_name["label: label + z: number"]["largest"][0]["what"] == 'label: "a" became "b"'
    printed = capsys.readouterr().out
    assert printed.index('label: "a" became "b"') < printed.index("z: 0.5 became 0.9")


def test_a_place_has_one_figure_whatever_else_differs(command: Command, tmp_path: Path) -> None:
    """In the reason, on the page and among the paths, though other places differ in the pairs."""
    same = {"label": "a", "y": 0.5, "z": 0.5}
    kinds = [({"z": 0.9}, 20), ({"z": 0.9, "y": 0.9}, 15), ({"label": "b", "z": 0.9}, 5)]
    report = command(answers(*[(same, same | other) for other, n in kinds for _ in range(n)]))
    figures = {p["path"]: p["differing_pairs"] for p in report["paths"] if p["differing_pairs"]}
    assert figures == {"z": 40, "y": 15, "label": 5}
    said = (
        "Most often z is another number: 40 of 40 such pairs. Also label is another label: 5; "
        "y is another number: 15. Some pairs differ in several places."
    )
    assert said in told(report)
    assert said in " ".join((tmp_path / "r.html").read_text().split())


V2 = {"name": "y", "datatype": "FP64", "shape": [1, 2]}


@pytest.mark.parametrize("order", [1, -1], ids=["list first", "numbers first"])
@pytest.mark.parametrize("at", ["", "[*]"], ids=["one path", "its items"])
@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_what_a_rule_for_lists_finds_goes_by_no_margin_of_numbers(
    command: Command, tmp_path: Path, protocol: str, at: str, order: int
) -> None:
    """Top classes under 1 % that change in 4 % are rejected, however much the numbers may differ;
    and of numbers that the list's rule leaves nothing of nobody says that they pass.
    """
    path = "p" if protocol == "v1" else "outputs.y.data"
    rules = [
        f"{{path: {path}, compare: top_class, margin: 1%}}",
        f"{{path: '{path}{at}', compare: number, absolute: 0.05, margin: 10%}}",
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(f"rules: [{', '.join(rules[::order])}]")

    def answer(*scores: float) -> dict[str, object]:
        return {"p": [*scores]} if protocol == "v1" else {"outputs": [V2 | {"data": [*scores]}]}

    stays, flips = answer(0.4, 0.6), answer(0.6, 0.4)
    report = command(
        answers(*[(stays, flips if i % 25 == 0 else stays) for i in range(4_000)]),
        "--rules",
        str(file),
    )
    gates = {gate["name"]: gate for gate in report["gates"] if gate["path"]}
    of_classes = gates[f"{path} (top_class)"]
    assert (of_classes["status"], of_classes["estimate"]) == ("fail", 0.04)
    of_numbers = gates[f"{path}{at} (number)"]
    assert (of_numbers["status"], of_numbers["n"]) == ("wait", 0)
    assert report["verdict"] == "REJECT"
    loose = command([], "--rules", str(file), "--rule", f"{path}=top_class,margin=10%")
    assert loose["verdict"] == "WAIT"


def test_numbers_of_a_list_without_an_order_have_a_margin_of_their_own(command: Command) -> None:
    """Beside the list's, which is asked for the items that only one side has."""
    more, other = {"t": [1.0, 2.0]}, {"t": [2.0, 5.0]}
    rules = ("--rule", "t=unordered,margin=1%", "--rule", "t=number,margin=30%")
    report = command(
        answers(*[(more, other if i % 5 == 0 else more) for i in range(2_000)]), *rules
    )
    gates = {gate["name"]: gate["estimate"] for gate in report["gates"] if gate["path"]}
    assert gates == {"t (unordered)": 0.0, "t (number)": 0.2}
    assert report["verdict"] != "REJECT"


GATELESS = (
    "{path: t, compare: json, margin: 50%}, {path: t, compare: text, margin: 50%}",
    (
        "{path: '*', compare: number, margin: 50%}, {path: t, margin: 50%},"
        " {path: t, compare: unordered, margin: 50%}"
    ),
)


@pytest.mark.parametrize("rules", GATELESS)
def test_no_margin_without_a_gate_allows_anything(
    command: Command, tmp_path: Path, rules: str
) -> None:
    """Of several at one path the last has the gate, also of texts that are JSON, whose fields go by
    no margin of texts, and beside a rule whose wildcard names the place as well.
    """
    file = tmp_path / "rules.yaml"
    file.write_text(f"rules: [{rules}]")
    differing = [({"t": '{"x": 1}'}, {"t": '{"x": 2}'})] * 100
    report = command(answers(*differing), "--rules", str(file))
    gates = [gate for gate in report["gates"] if gate["path"]]
    assert report["disagreements"] + sum(gate["n"] for gate in gates) >= len(differing)
