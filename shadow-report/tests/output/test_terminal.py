"""The terminal report: whole in 80 columns, through a pipe, and against hostile text."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from sample_reports import START, candidates, hostile, invalid, promoted, rejected, waiting

from shadow_report.output import print_report
from shadow_report.output.page import render_page
from shadow_report.output.terminal import title_of
from shadow_report.report import Finding, Judged, Need, Report
from shadow_report.wording import percent, percent_range


def printed(
    report: Judged, *, terminal: bool = False, width: int = 80, verbose: bool = False
) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system="truecolor" if terminal else None,
    )
    print_report(report, console, verbose=verbose)
    return file.getvalue()


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize(
    "report", [rejected(), waiting(), promoted(), invalid(), hostile(), candidates()]
)
def test_fits_its_width_without_trailing_blanks(report: Judged, width: int, verbose: bool) -> None:
    """No line is longer than the terminal, and none ends in blanks."""
    lines = printed(report, width=width, verbose=verbose).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line != line.rstrip() for line in lines)


def test_starts_with_the_verdict_and_why() -> None:
    """The verdict, what it means, one reason, what was compared: all within ten lines."""
    lines = printed(rejected()).splitlines()
    assert "shadow   triple-minimal-inference, version 2026-12-rc1" in lines[:10]
    assert lines[0] == " REJECT   The shadow must not replace the primary."
    assert lines[1].strip().startswith("Disagreement is 2.88 % of 12,480 pairs")


def test_candidates_stand_in_one_table_before_their_reports() -> None:
    """Who may replace the primary, a line for each, what they share; then each one's reasons."""
    text = printed(candidates(), width=100)
    first, _, rest = text.partition("alpha 0.05 is shared among the 3 candidates.")
    lines = first.splitlines()
    assert lines[0] == (
        " REJECT   Of 3 candidates triple-minimal-inference may replace the primary."
    )
    verdicts = [line.split()[0] for line in lines[3:] if line[:1].isupper()]
    assert verdicts == ["PROMOTE", "WAIT", "REJECT"]
    assert "3 pass" in first
    assert [line for line in rest.splitlines() if line.startswith((" PROMOTE", " WAIT", " REJECT"))]
    assert "Every gate has cleared its margin." in rest
    assert "\x1b" not in text


def test_shows_each_gate_with_its_figures() -> None:
    """Estimate, interval, margin and n of every gate; how many pairs a waiting one needs."""
    text = " ".join(printed(rejected(), width=120).split())
    assert "FAIL Disagreement 2.88 % 2.42 to 3.41 % max 1 % 12,480 (11,482)" in text
    assert "PASS Coverage 99.84 % 99.72 to 99.91 % min 99 % 12,480 (11,482)" in text
    assert "WAIT New faults 0.048 % 0.012 to 0.13 % max 0.1 % 12,480 (11,482) 9,400 to pass" in text


def test_what_moved_the_verdict_is_on_the_first_screen() -> None:
    """A bad run of calls, noise, an option without effect and what n is worth, before the pairs."""
    report = replace(rejected(), unmatched_rules=("--ignore meta.took",))
    first = " ".join(printed(report).partition("Worst pairs")[0].split())
    assert "worst: 24 of 40 calls from 08:00 to 08:10 have a new fault" in first
    assert "WAIT Worst run 60 %" in first
    assert "The primary disagrees with itself in 0.12 %" in first
    assert "No effect --ignore meta.took" in first
    assert "n is worth less: 10,211 distinct requests" in first
    assert "Newest calls" not in first


def test_whatever_fails_is_told_in_words() -> None:
    """Such as an outage, and behind it a model that is wrong: each has a remedy of its own."""
    gates = [
        replace(rejected().gates[2], name=name, reason=reason)
        for name, reason in (("faults", "7 fail."), ("disagreement", "9 differ."))
    ]
    words = tuple(f"{gate.name}: {gate.reason}" for gate in gates)
    report = replace(rejected(), gates=tuple(gates), reasons=words)
    assert all("  " + word in printed(report) for word in words)
    passed = replace(report, gates=(gates[0], replace(gates[1], status="pass")))
    assert words[1] not in printed(passed)


@pytest.mark.parametrize(("worth", "is_told"), [(0.98, True), (0.995, False)])
def test_what_n_is_worth_is_told_where_it_matters(worth: float, is_told: bool) -> None:
    """Of thousands of requests one or two come twice."""
    report = rejected()
    gates = tuple(replace(gate, n_eff=worth * gate.n) for gate in report.gates)
    assert ("n is worth less" in " ".join(printed(replace(report, gates=gates)).split())) is is_told


def test_what_no_number_of_pairs_settles_points_to_its_reason() -> None:
    """To the option that prints it, and with that to what stands below."""
    need = Need(pairs=None, towards=None, reason="mend the shadow")
    gates = tuple(replace(gate, status="wait", need=need) for gate in waiting().gates)
    report = replace(waiting(), gates=gates)
    assert "a change (--verbose)" in printed(report, width=120)
    assert "a change (see below)" in printed(report, width=120, verbose=True)
    assert "--verbose" not in printed(report, width=120, verbose=True)


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize(
    ("code", "what", "remedy"),
    [
        (
            "in-flight",
            "1,202 calls of the last 30 s, left out: the pair or an answer may still come.",
            "Look again once they have it.",
        ),
        (
            "unanswered",
            "20 calls of the primary without a response record, counted as failed.",
            "Did the process die in the middle of them?",
        ),
    ],
)
def test_calls_that_no_figure_shows_are_said(
    code: str, what: str, remedy: str, verbose: bool
) -> None:
    """Once, below the coverage that leaves them out, or among the findings."""
    report = rejected()
    found = Finding(code, False, what, remedy)
    report = replace(report, integrity=replace(report.integrity, findings=(found,)))
    text = " ".join(printed(report, verbose=verbose).partition("Coverage 99.84 %:")[2].split())
    assert text.count(f"{what} {remedy}") == 1
    assert what not in " ".join(printed(rejected(), verbose=verbose).split())


def test_a_share_that_is_mirrored_stands_by_the_coverage() -> None:
    """Without it 70 pairs of 300 calls are not a coverage of 100 %."""
    report = waiting()
    share = replace(report, integrity=replace(report.integrity, expected_share=0.2))
    said = ", of which 20 % are mirrored; unpaired: "
    assert said in " ".join(printed(share).split())
    assert said not in " ".join(printed(report).split())


@pytest.mark.parametrize("width", [40, 50, 65])
@pytest.mark.parametrize("report", [rejected(), waiting(), promoted(), invalid()])
def test_a_narrow_terminal_cuts_nothing(report: Report, width: int) -> None:
    """The status and every figure of each gate are there in full; one without any is on the page
    alone.
    """
    text = " ".join(printed(report, width=width).split())
    for gate in report.gates:
        if not gate.has_figures:
            assert title_of(gate) not in text
            continue
        assert f"{gate.status.upper()} {title_of(gate)} {percent(gate.estimate)}" in text
        assert percent_range(gate.interval) in text
        assert f"n {gate.n:,}" in text
    assert "…" not in text.split("Worst pairs")[0]


@pytest.mark.parametrize("width", [40, 65, *range(66, 131, 4), 200])
@pytest.mark.parametrize("place", ["score", "predictions[*].score", "a" * 33])
@pytest.mark.parametrize("sample", [rejected(), waiting()], ids=lambda report: report.verdict)
def test_no_word_of_a_gate_is_broken(sample: Report, place: str, width: int) -> None:
    """Where a rule's margin makes a gate with its path for a name, its column wraps between words;
    where those have no room beside the figures, the figures stand below.
    """
    own = replace(sample.gates[2], name=f"{place} (number)", path=place)
    report = replace(sample, gates=(*sample.gates, own))
    text = printed(report, width=width)
    _, _, table = text.partition("\nwhen ")
    words = table.partition("n is worth")[0].split()
    for gate in report.gates:
        if gate.has_figures:
            assert set(title_of(gate).split()) <= set(words)
            assert set(percent_range(gate.interval).split()) <= {w.strip("(),") for w in words}
    assert max(map(len, text.splitlines())) <= width


def test_shows_three_worst_pairs_with_both_bodies() -> None:
    """One pair of each kind, faults first."""
    text = printed(rejected())
    assert text.index("status 200 became 500") < text.index("label: 'approve' became 'decline'")
    assert '{"predictions": [9.9, 186.9, 972.0]}' in text
    assert text.count("  request  ") == 3


def test_without_pairs_it_says_where_the_window_begins() -> None:
    """On the terminal and on the page, where it has a beginning."""
    report = invalid()
    assert "when " not in printed(report)
    assert "<dd>no pairs</dd>" in render_page(report)
    begun = replace(report, window=replace(report.window, since=START))
    assert "when     no pairs since 2026-11-20 08:00:00 UTC" in printed(begun)
    assert "<dd>no pairs since 2026-11-20 08:00:00</dd>" in render_page(begun)


def test_says_how_to_mend_unsound_evidence() -> None:
    """INVALID names the fault and the remedy."""
    assert "The shadow recorded no call: is mirroring on?" in printed(invalid())
    assert "! The shadow recorded no call. Is mirroring on?" in printed(invalid(), verbose=True)


def test_says_the_rest_only_when_asked() -> None:
    """One screen by default; every reason, finding and note with verbose."""
    short, long = printed(rejected()), printed(rejected(), verbose=True)
    assert len(short.splitlines()) <= 45
    for detail in (rejected().reasons[1], "larger requests than the others", *rejected().notes):
        assert detail not in " ".join(short.split())
        assert detail in " ".join(long.split())


def test_colour_only_on_a_terminal() -> None:
    """A pipe gets plain text, a terminal the same text in colour."""
    assert "\x1b" not in printed(rejected())
    assert "\x1b[" in printed(rejected(), terminal=True)


def test_hostile_text_stays_text() -> None:
    """Markup is shown, control and bidirectional characters are written out."""
    text = printed(hostile(), width=300)
    assert "[bold red]markup[/]" in text
    assert r"\x1b[31mred\x1b[0m \x00 \u202egnp.exe" in text
    assert not {"\x1b", "\x00", "\u202e", "\u2066", "\ud800"} & set(text)
    text.encode()


def test_long_bodies_are_cut() -> None:
    """A body of 20,000 characters takes a few lines."""
    assert len(printed(hostile())) < 10_000
