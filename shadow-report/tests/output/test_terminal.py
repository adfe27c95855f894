"""The terminal report: whole in 80 columns, through a pipe, and against hostile text."""

import io

import pytest
from rich.console import Console
from sample_reports import hostile, invalid, promoted, rejected, waiting

from shadow_report.output import print_report
from shadow_report.report import Report


def printed(report: Report, *, terminal: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None
    )
    print_report(report, console)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("report", [rejected(), waiting(), promoted(), invalid(), hostile()])
def test_fits_its_width_without_trailing_blanks(report: Report, width: int) -> None:
    """No line is longer than the terminal, and none ends in blanks."""
    lines = printed(report, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line != line.rstrip() for line in lines)


def test_starts_with_the_verdict_and_why() -> None:
    """The first lines are the verdict, what it means and the reasons."""
    lines = printed(rejected()).splitlines()
    assert lines[0] == " REJECT   The shadow must not replace the primary."
    assert lines[1].strip().startswith("Disagreement is 2.88 % of 12,480 pairs")


def test_shows_each_gate_with_its_figures() -> None:
    """Estimate, interval, margin, n and the reason of every gate; what a waiting gate waits for."""
    text = printed(rejected(), width=120)
    assert "FAIL  Disagreement    2.88 %  2.42 % to 3.41 %    max 1 %    12,480" in text
    assert "PASS  Coverage       99.84 %  99.72 % to 99.91 %  min 99 %   12,480" in text
    assert "About 9,400 more pairs at this rate." in text


def test_shows_three_worst_pairs_with_both_bodies() -> None:
    """One pair of each kind, faults first."""
    text = printed(rejected())
    assert text.index("status 200 became 500") < text.index("label: 'approve' became 'decline'")
    assert '{"predictions": [9.9, 186.9, 972.0]}' in text
    assert text.count("  request  ") == 3


def test_says_how_to_mend_unsound_evidence() -> None:
    """INVALID names the fault and the remedy."""
    assert "! The shadow recorded no call. Is mirroring on?" in printed(invalid())


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
