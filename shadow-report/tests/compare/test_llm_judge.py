"""Another model's opinion, from a real server that speaks OpenAI's API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from served import served
from traffic import Call, Command, pair


class ScriptedJudge:
    """Replies to what stands between the labels of a question; keeps all that it was sent."""

    def __init__(self, reply: Callable[[str, str], str], status: int = 200) -> None:
        self.reply = reply
        self.status = status
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.add(request.headers.get("authorization"))
        text = body["messages"][-1]["content"]
        a, _, b = text.partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")
        said = self.reply(a, b.partition("\n\nA, B or TIE?")[0])
        return web.json_response(
            {"choices": [{"message": {"role": "assistant", "content": said}}]}, status=self.status
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def serving(judge: ScriptedJudge) -> Iterator[ScriptedJudge]:
    """The judge behind a socket of its own, in a thread."""
    application = web.Application()
    application.router.add_post("/v1/chat/completions", judge.answer)
    with served(application) as judge.port:
        yield judge


def chat(text: str) -> str:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def chats(equal: int, longer: int, shorter: int) -> list[Call]:
    """Pairs that agree, and ones whose shadow says more, or less."""
    texts = [("Rome.", "Rome.")] * equal + [("Rome.", "It is Rome, the old capital.")] * longer
    texts += [("It is Rome, the old capital.", "Rome.")] * shorter
    return [
        call
        for i, (p, s) in enumerate(texts)
        for call in pair(
            i,
            {"answer": chat(p)},
            {"answer": chat(s)},
            protocol="openai",
            request=json.dumps({"messages": [{"role": "user", "content": f"Question {i}?"}]}),
        )
    ]


def longer_is_better(a: str, b: str) -> str:
    return "TIE" if len(a) == len(b) else f"I think {'A' if len(a) > len(b) else 'B'}"


def asked(judge: ScriptedJudge, *options: str) -> tuple[str, ...]:
    return ("--judge", judge.url, "--judge-model", "wise", *options)


def test_only_what_both_orders_say_counts(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the pairs that differ each is asked twice, the sides swapped and under no name."""
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    with serving(ScriptedJudge(longer_is_better)) as judge:
        report = command(chats(20, 12, 5), *asked(judge))
    found = report["opinion"]
    assert (found["better"], found["worse"], found["ties"]) == (12, 5, 0)
    assert (found["asked"], found["inconsistent"], found["failed"]) == (17, 0, 0)
    assert found["net_worse"][0] < (5 - 12) / 17 < found["net_worse"][1]
    assert len(judge.asked) == 34
    assert judge.keys == {"Bearer a key"}
    sent = json.dumps(judge.asked).lower()
    assert "shadow" not in sent
    assert "primary" not in sent
    assert any("better in 12, worse in 5" in remark for remark in report["remarks"])
    assert not any(gate["name"] == "judge" for gate in report["gates"])


def test_a_judge_that_prefers_what_it_reads_first_has_no_opinion(command: Command) -> None:
    """What changes with the order is counted, and is not an opinion."""
    with serving(ScriptedJudge(lambda a, b: "A")) as judge:
        report = command(chats(0, 4, 4), *asked(judge))
    assert (report["opinion"]["inconsistent"], report["opinion"]["better"]) == (8, 0)
    assert report["opinion"]["net_worse"] is None


def test_a_sample_is_asked_of(command: Command) -> None:
    """Of no more pairs than were allowed, and always of the same."""
    with serving(ScriptedJudge(longer_is_better)) as judge:
        command(chats(0, 30, 30), *asked(judge, "--judge-sample", "6"))
        first = {json.dumps(body) for body in judge.asked}
        judge.asked.clear()
        command([], *asked(judge, "--judge-sample", "6"))
    assert len(first) == 12
    assert {json.dumps(body) for body in judge.asked} == first


def test_a_margin_makes_it_a_gate(command: Command) -> None:
    """150 of 150 answers are worse: rejected, whatever else passes."""
    with serving(ScriptedJudge(longer_is_better)) as judge:
        options = asked(judge, "--judge-sample", "150", "--judge-margin", "20%")
        report = command(chats(0, 0, 150), *options)
    gate = next(gate for gate in report["gates"] if gate["name"] == "judge")
    assert gate["status"] == "fail"
    assert "150 of 150 judged pairs are worse" in gate["reason"]


# All gates but the judge's pass.
LENIENT = tuple(
    f"--{name}"
    for name in (
        "min-coverage=50%",
        "max-new-faults=50%",
        "max-disagreement=100%",
        "max-bad=100%",
        "max-newest-block=0",
        "max-worst-block=0",
        "allow-worse-slices",
    )
)
WHERE_IT_HELPS = [
    (
        "6",
        (
            "More pairs like these settle nothing. What would: raise --judge-sample to 31: 25 more "
            "judged pairs at this rate would pass it."
        ),
    ),
    ("100", "212 more pairs like these would settle it as PROMOTE"),
]


@pytest.mark.parametrize(("sample", "summary"), WHERE_IT_HELPS)
def test_what_helps_a_judges_gate_is_said(command: Command, sample: str, summary: str) -> None:
    """A larger sample, and where all that differ were asked of, more pairs."""
    with serving(ScriptedJudge(longer_is_better)) as judge:
        options = asked(judge, "--judge-sample", sample, "--judge-margin", "20%")
        report = command(chats(0, 20, 20), *options, *LENIENT)
    assert report["reasons"][0].startswith(summary)


def test_where_nothing_differs_a_judge_holds_nothing_up(command: Command) -> None:
    """There is nothing to ask, and no gate that waits for it."""
    with serving(ScriptedJudge(longer_is_better)) as judge:
        report = command(chats(40, 0, 0), *asked(judge, "--judge-margin", "20%"), *LENIENT)
    assert report["verdict"] == "PROMOTE"
    assert judge.asked == []


def test_a_judge_without_an_opinion_is_to_be_mended(command: Command) -> None:
    """No number of pairs helps."""
    with serving(ScriptedJudge(lambda a, b: "both are nice")) as judge:
        options = asked(judge, "--judge-margin", "20%")
        report = command(chats(0, 40, 0), *options, *LENIENT)
    summary = report["reasons"][0]
    assert summary.startswith("More pairs like these settle nothing. What would: the judge has no")


@pytest.mark.parametrize(
    ("judge", "failure"),
    [
        (
            ScriptedJudge(lambda a, b: "both are nice"),
            "does not end in A, B or TIE alone: 'both are nice'",
        ),
        (ScriptedJudge(longer_is_better, status=500), "status 500 at /v1/chat/completions"),
    ],
)
def test_a_judge_that_fails_costs_no_report(
    command: Command, judge: ScriptedJudge, failure: str
) -> None:
    """It is said how, and after a few failures it is asked no more."""
    with serving(judge):
        report = command(chats(0, 40, 0), *asked(judge))
    assert report["opinion"]["failed"] == 40
    assert failure in report["opinion"]["failure"]
    assert any("has no opinion" in remark for remark in report["remarks"])


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("A", "better"),
        ("**B**.\n", "worse"),
        ("A is shorter than B, and B is a guess.\n\nSo: A", "better"),
        ("A tie between A and B", "ties"),
        ("Tie.", "ties"),
        ("A is better than B", "failed"),
        ("that is a matter of taste", "failed"),
        ("", "failed"),
    ],
)
def test_a_reply_counts_where_it_decides(command: Command, said: str, found: str) -> None:
    """Of one answer named alone at the end; in the second question the names are changed."""
    changed = str.maketrans("AB", "BA")
    first = re.compile("Rome, the old").search  # the shadow's is the longer one

    def reply(a: str, b: str) -> str:
        return said if first(a) else said.translate(changed)

    with serving(ScriptedJudge(reply)) as judge:
        opinion = command(chats(0, 4, 0), *asked(judge))["opinion"]
    assert {name: n for name, n in opinion.items() if n == 4 and name != "asked"} == {found: 4}


def test_a_judge_that_is_away_is_not_waited_for(command: Command) -> None:
    """Nothing listens there; the comparison is what it is without it."""
    options = ("--judge", "http://127.0.0.1:9/v1", "--judge-model", "wise")
    report = command(chats(0, 40, 0), *options)
    assert report["opinion"]["failed"] == 40
    assert report["exit_code"] in {10, 11}


HALVES = [
    ("--judge-model", "wise"),
    ("--judge-margin", "10%"),
    ("--judge", "http://judge/v1"),
    ("--judge", "judge", "--judge-model", "wise"),
]


def test_nobody_is_asked_without_the_option(command: Command) -> None:
    """And half an option is a usage error."""
    assert command(chats(0, 3, 0))["opinion"] is None
    for options in HALVES:
        assert command([], *options)["exit_code"] == 2
