"""Generated answers side by side: refusals, tool calls, ends, tokens and speed."""

# ruff: noqa: E501, RUF001 - cases read as a table, one a line; models write typographic apostrophes

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from traffic import Call, Command, pair

from shadow_report.answers.generated import refusals_of, said
from shadow_report.rules import read_rules

REFUSAL = "I’m sorry, but I can’t help with that."


def chat(text: str | None, *, finish: str = "stop", **message: object) -> str:
    told = {"role": "assistant", "content": text} | message
    return json.dumps({"choices": [{"index": 0, "message": told, "finish_reason": finish}]})


def spoken(
    answer: str,
    ttft_ms: float = 100.0,
    tokens: int = 11,
    duration_ms: float = 1100.0,
    end: str = "done",
    **call: object,
) -> dict[str, object]:
    """A side's call with a streamed answer."""
    figures = {"stream_end": end, "prompt_tokens": 9, "completion_tokens": tokens}
    return {
        "answer": answer,
        "ttft_ms": ttft_ms,
        "duration_ms": duration_ms,
        "generation": figures,
        "protocol": "openai",
    } | call


def calls(*sides: tuple[dict[str, object], dict[str, object]]) -> list[Call]:
    return [call for i, (p, s) in enumerate(sides) for call in pair(i, p, s)]


def table(counts: dict[str, int]) -> tuple[int, ...]:
    return tuple(counts[name] for name in ("neither", "shadow_only", "primary_only", "both"))


def test_a_shadow_too_slow_to_be_waited_for_is_not_promoted(command: Command) -> None:
    """Its slow answers are left out of the comparison, which must not make it look fast."""
    whole, left = spoken(chat("Yes.")), spoken(chat("Ye"), end="left", error="the caller left")
    report = command(calls(*[(whole, left if i % 50 == 0 else whole) for i in range(6_000)]))
    assert report["integrity"]["shadow_left"] == 120
    assert report["verdict"] == "INVALID"
    assert "let go before its end" in report["reasons"][0]


def test_what_generated_answers_have_in_common_is_counted(command: Command) -> None:
    """Every paired table by pairs of its own, the words, and the reasons that changed."""
    tool = chat(None, tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])
    report = command(
        calls(
            (spoken(chat("Yes.")), spoken(chat(" yes. "))),
            (spoken(chat("Yes.")), spoken(chat("No."))),
            (spoken(chat("Yes.")), spoken(chat(REFUSAL))),
            (spoken(chat(REFUSAL)), spoken(chat(None, refusal="I will not say."))),
            (spoken(tool), spoken(chat("Yes."))),
            (spoken(chat("Yes.")), spoken(chat("Yes.", finish="length"))),
            (spoken(chat("Yes.")), spoken(chat("Y"), end="cut", error="cut")),
            (spoken(chat("Y"), end="left", error="left"), spoken(chat("Yes."))),
        )
    )
    found = report["generated"]
    assert (found["pairs"], found["texts"], found["same_words"], found["left"]) == (8, 6, 2, 1)
    assert table(found["refusals"]) == (4, 1, 0, 1)
    assert table(found["tool_calls"]) == (5, 0, 1, 0)
    assert table(found["broken"]) == (7, 1, 0, 0)
    assert found["finish_reasons"] == [
        {"primary": "stop", "shadow": "stop", "pairs": 5},
        {"primary": "stop", "shadow": "length", "pairs": 1},
    ]
    assert report["new_faults"] == 1


def test_speed_and_length_have_intervals_around_the_truth(command: Command, tmp_path: Path) -> None:
    """A shadow that is 30 ms later, half as fast, and says ten tokens more."""
    chance = random.Random(8)
    sides = []
    for _ in range(600):
        first, tokens = chance.gauss(200, 20), chance.randint(20, 60)
        late = first + chance.gauss(30, 5)
        sides.append(
            (
                spoken(chat("Yes."), first, tokens, first + 10 * (tokens - 1)),
                spoken(chat("Yes."), late, tokens + 10, late + 20 * (tokens + 9)),
            )
        )
    drifts: dict[str, Any] = {
        drift["name"]: drift for drift in command(calls(*sides))["generated"]["drifts"]
    }
    truth = {"first token": 30, "tokens per second": -50, "tokens out": 10}
    for name, shift in truth.items():
        (median,) = [each for each in drifts[name]["shifts"] if each["quantile"] == 0.5]
        low, high = median["interval"]
        assert low <= shift <= high, name
        assert high - low < 10
        low, high = drifts[name]["mean_interval"]
        assert low - 1e-9 <= shift <= high + 1e-9, name
    assert drifts["tokens in"]["mean_difference"] == 0
    page = (tmp_path / "r.html").read_text()
    assert "Generated answers" in page
    assert "tokens per second" in page


def gate(report: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((each for each in report["gates"] if each["name"] == name), None)


JUDGED = ("--first-token-ratio", "1.5")


def streams(count: int, *, times: float = 1.0, jitter: float = 0.0) -> list[Call]:
    """Pairs of streams that take a second each; the shadow's first token after so many times the
    primary's, both by chance a factor of exp(jitter) off.
    """
    chance = random.Random(3)
    sides = [
        (100 * chance.lognormvariate(0, jitter), 100 * times * chance.lognormvariate(0, jitter))
        for _ in range(count)
    ]
    return calls(*((spoken(chat("Yes."), p), spoken(chat("Yes."), s)) for p, s in sides))


def test_a_first_token_that_comes_later_rejects(command: Command, tmp_path: Path) -> None:
    """Twice as late, though the whole answer takes as long: REJECT, and everything says why."""
    report = command(streams(4_000, times=2.0), *JUDGED)
    assert report["verdict"] == "REJECT"
    assert not report["remarks"]
    late = gate(report, "first_token")
    assert late is not None
    assert (late["status"], late["n"], late["margin"]) == ("fail", 4_000, 0.1)
    (reason,) = report["reasons"]
    assert reason.startswith(f"first_token: {late['reason']} A shadow on less hardware")
    assert (
        "4,000 of 4,000 streams have their first token after more than 1.5 times" in late["reason"]
    )
    assert "Late first token" in (tmp_path / "r.html").read_text()

    allowed = command((), "--first-token-ratio", "2.5")
    assert allowed["verdict"] == "PROMOTE"
    assert gate(allowed, "first_token") is not None
    assert command((), *JUDGED, "--max-late-first-tokens", "100%")["verdict"] == "PROMOTE"
    unasked = command(())
    assert unasked["verdict"] == "PROMOTE"
    assert gate(unasked, "first_token") is None
    (remark,) = unasked["remarks"]
    assert remark.startswith("The shadow's first token comes after 200 ms, the primary's after 100")
    assert remark.endswith("no gate judges that without --first-token-ratio.")
    prints = {each["settings_sha256"] for each in (report, allowed, unasked)}
    assert len(prints) == 3


def test_first_tokens_that_are_late_at_one_time_say_so(command: Command) -> None:
    """Their gate's n is worth less, and the reason names them: nothing else is bad."""
    times = [100] * 1_900 + [200] * 100
    sides = [(spoken(chat("Yes."), 100), spoken(chat("Yes."), ms)) for ms in times]
    late = gate(command(calls(*sides), *JUDGED), "first_token")
    assert late is not None
    assert late["n_eff_reason"] == "late first tokens come in clumps of time"


def test_a_first_token_that_is_as_late_by_chance_promotes(command: Command) -> None:
    """One pair in six is beyond the ratio, either way: the same model must be able to pass."""
    report = command(streams(4_000, jitter=0.3), *JUDGED)
    late = gate(report, "first_token")
    assert late is not None
    assert report["verdict"] == "PROMOTE", report["reasons"]
    assert "the other way round" in late["reason"]
    assert abs(late["estimate"]) < 0.05


def test_too_few_streams_wait(command: Command) -> None:
    """Enough calls for every other gate, and a twentieth of them streamed: it waits for streams,
    and counts the calls that those take.
    """
    unary = {"answer": chat("Yes."), "protocol": "openai", "generation": {}}
    report = command(
        streams(20) + [call for i in range(20, 4_000) for call in pair(i, unary, unary)], *JUDGED
    )
    late = gate(report, "first_token")
    assert late is not None
    assert (report["verdict"], late["status"], late["n"]) == ("WAIT", "wait", 20)
    assert [each["name"] for each in report["gates"] if each["status"] != "pass"] == ["first_token"]
    more = int(re.search(r"([\d,]+) more streams", late["reason"])[1].replace(",", ""))  # type: ignore[index]
    assert report["more_pairs"] == late["need"]["pairs"] == 200 * more


def test_without_figures_there_are_none(command: Command) -> None:
    """An engine that counts no tokens, unary calls: no drift, and the words all the same."""
    unary = {"answer": chat("Yes."), "protocol": "openai", "generation": {}}
    found = command(calls((unary, unary)))["generated"]
    assert found["drifts"] == []
    assert found["same_words"] == 1
    assert command(pair(9), "--until", "2000-01-01")["generated"] is None


def test_a_preset_leaves_out_what_is_not_there(command: Command) -> None:
    """Its rules are for answers of all shapes; one of the user's own that names nothing is told."""
    report = command(
        calls((spoken(chat("Yes.")), spoken(chat("Yes.")))),
        *("--rules", "openai", "--ignore", "mistyped"),
    )
    assert report["unmatched_rules"] == ["ignore mistyped"]


REFUSALS = refusals_of(read_rules(Path("openai")))


@pytest.mark.parametrize(
    ("answer", "refuses", "calls_tools", "reason", "words"),
    [
        ({"choices": [{"text": "Yes.", "finish_reason": "stop"}]}, False, False, "stop", "yes."),
        ({"choices": [{"message": {"content": REFUSAL}}]}, True, False, "(none)", None),
        ({"choices": [{"message": {"content": "x" * 300 + " I can't"}}]}, False, False, "(none)", None),
        ({"choices": [{"message": {"function_call": {"name": "f"}}}]}, False, True, "(none)", ""),
        ({"output": [{"type": "function_call", "name": "f"}], "status": "completed"}, False, True, "completed", ""),
        ({"output": [{"content": [{"type": "output_text", "text": "A"}]}], "status": "completed"}, False, False, "completed", "a"),
        ({"output": [{"content": [{"type": "refusal", "refusal": "No."}]}]}, True, False, "(none)", ""),
        ({"choices": [None, 3, {"message": None}]}, False, False, "(none)", ""),
    ],
)  # fmt: skip
def test_answers_of_every_api_are_read(
    answer: object, refuses: bool, calls_tools: bool, reason: str, words: str | None
) -> None:
    """Chats, completions and responses; what is malformed says nothing and breaks nothing."""
    found = said(answer, REFUSALS)
    assert found is not None
    assert (found.refuses, found.calls_tools, found.finish_reason) == (refuses, calls_tools, reason)
    assert words is None or found.words == words


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"data": []}, {"choices": 3}])
def test_what_is_no_generated_answer_says_nothing(answer: object) -> None:
    """Embeddings, errors and everything else."""
    assert said(answer, REFUSALS) is None


@pytest.mark.parametrize(("words", "is_asked"), [("Paris it is.", True), ("Yes.", False)])
def test_answers_that_differ_by_sampling_perhaps_ask_for_the_noise(
    command: Command, words: str, is_asked: bool
) -> None:
    """Before any was measured: one model rejected for itself is told from a worse one by that."""
    sides = spoken(chat("Yes.")), spoken(chat(words))
    report = command([call for i in range(300) for call in pair(i, *sides, protocol="openai")])
    assert report["verdict"] == ("REJECT" if is_asked else "WAIT")
    asked = [said for said in report["remarks"] if "then judge by --noise-floor auto" in said]
    assert len(asked) == is_asked
    told = command([], "--noise-floor", "auto")["remarks"]
    assert any("not known in this window" in said for said in told)


@pytest.mark.parametrize(
    ("new", "gone", "margin", "is_told"),
    [(40, 0, "", True), (40, 35, "", False), (2, 0, "", False), (40, 0, ", margin: 5%", False)],
)
def test_refusals_that_no_gate_judges_are_told(  # noqa: PLR0917 - one per column
    command: Command, tmp_path: Path, new: int, gone: int, margin: str, is_told: bool
) -> None:
    """A margin for all that differs may hold them; not those that come and go alike."""
    plain, refused = spoken(chat("Yes.")), spoken(chat(REFUSAL))
    sides = [(plain, refused)] * new + [(refused, plain)] * gone + [(plain, plain)] * 600
    calls = [c for i, (p, s) in enumerate(sides) for c in pair(i, p, s, protocol="openai")]
    file = tmp_path / "rules.yaml"
    rule = f'{{path: "choices[*].message.content", compare: pattern{margin}}}'
    file.write_text(f"presets: [openai]\nrules: [{rule * bool(margin)}]\n")
    report = command(calls, "--rules", str(file), "--max-disagreement", "30%")
    told = [said for said in report["remarks"] if "newly refused" in said]
    assert len(told) == is_told
    if told:
        assert told[0].startswith(f"{new} answers newly refused, {gone} no longer: no gate judges")
