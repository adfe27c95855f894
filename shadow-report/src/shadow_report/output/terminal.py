"""The report on a terminal: read from top to bottom in ten seconds, and just as well through a pipe.

Foreign text enters as `rich.text.Text`, so its square brackets are no markup, and with its control
characters written out, so it cannot move the cursor.
"""

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shadow_report.gates import Gate
from shadow_report.output.wording import (
    GATE_TITLES,
    VERDICT_MEANINGS,
    count,
    cut,
    moment,
    one_line,
    percent,
    percent_range,
    span,
)
from shadow_report.output.worst import worst_pairs
from shadow_report.report import Example, Report, Signature

COLOURS = {"PROMOTE": "green", "REJECT": "red", "WAIT": "yellow", "INVALID": "magenta"}
STATUS_COLOURS = {"pass": "green", "fail": "red", "wait": "yellow"}
BODY_CHARACTERS = 300


def print_report(report: Report, console: Console) -> None:
    """Print the verdict, why, the gates, the coverage and the three worst pairs."""
    parts: list[RenderableType] = [headline(report)]
    parts += [Padding(Text(one_line(reason)), (0, 0, 0, 2)) for reason in report.reasons]
    parts += ["", about(report), "", gates_table(report), "", coverage(report)]
    parts += findings(report)
    parts += worst(report)
    parts += [Text(one_line(note), style="dim") for note in report.notes]
    with console.capture() as printed:
        console.print(Group(*parts))
    # Tables pad their cells: through a pipe those blanks would end up in files and messages.
    console.file.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))
    console.file.flush()


def headline(report: Report) -> Text:
    colour = COLOURS.get(report.verdict, "white")
    return Text.assemble(
        (f" {report.verdict} ", f"bold reverse {colour}"),
        ("  " + VERDICT_MEANINGS.get(report.verdict, ""), "bold"),
    )


def about(report: Report) -> Table:
    """What was compared with what, and when."""
    window = report.window
    rate = f", {count(window.pairs_per_hour)} an hour" if window.pairs_per_hour else ""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("primary", Text(one_line(report.primary.service)))
    table.add_row("shadow", Text(one_line(report.shadow.service)))
    table.add_row(
        "pairs", Text(f"{count(report.pairs)} compared, over {span(window.hours)}{rate}")
    )
    if window.first_pair is not None:
        table.add_row(
            "when", Text(f"{moment(window.first_pair)} to {moment(window.last_pair)} UTC")
        )
    if report.more_pairs is not None:
        hours = None if report.eta_seconds is None else report.eta_seconds / 3600
        time = f", {span(hours)} at this rate" if hours is not None else ""
        table.add_row("needed", Text(f"about {count(report.more_pairs)} more pairs{time}"))
    return table


def gates_table(report: Report) -> Table:
    """One gate to a row, its reason below it."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=False)
    for title, justify in (
        ("", "left"),
        ("Gate", "left"),
        ("Estimate", "right"),
        ("Interval", "left"),
        ("Margin", "left"),
        ("n", "right"),
    ):
        table.add_column(title, justify=justify, header_style="dim", no_wrap=title != "Interval")  # type: ignore[arg-type]
    for gate in report.gates:
        table.add_row(*gate_cells(gate))
    reasons = Table.grid(padding=(0, 2, 0, 0))
    reasons.add_column(style="dim", no_wrap=True)
    reasons.add_column(overflow="fold")
    for gate in report.gates:
        reasons.add_row(Text(title_of(gate).lower()), Text(reason_of(gate)))
    outer = Table.grid()
    outer.add_row(table)
    outer.add_row("")
    outer.add_row(reasons)
    return outer


def gate_cells(gate: Gate) -> tuple[Text, ...]:
    colour = STATUS_COLOURS.get(gate.status, "white")
    bound = "min" if gate.is_minimum else "max"
    return (
        Text(gate.status.upper(), style=f"bold {colour}"),
        Text(title_of(gate)),
        Text(percent(gate.estimate)),
        Text(percent_range(gate.interval)),
        Text(f"{bound} {percent(gate.margin)}"),
        Text(count(gate.n)),
    )


def title_of(gate: Gate) -> str:
    return GATE_TITLES.get(gate.name, one_line(gate.name))


def reason_of(gate: Gate) -> str:
    need = f" {one_line(gate.need.reason)}" if gate.need else ""
    return f"{one_line(gate.reason)}{need}"


def coverage(report: Report) -> Text:
    """How much of the primary's traffic the pairs stand for."""
    integrity = report.integrity
    share = percent(integrity.coverage)
    unpaired = f"unpaired: {count(report.primary.unpaired)} primary, {count(report.shadow.unpaired)} shadow"
    lost = report.primary.lost_records + report.shadow.lost_records
    return Text.assemble(
        ("Coverage ", "bold"),
        f"{share}: {count(integrity.paired)} pairs of {count(integrity.primary_calls)} primary calls; "
        f"{unpaired}; lost records: {count(lost)}",
    )


def findings(report: Report) -> list[RenderableType]:
    """What is wrong with the evidence and how to mend it."""
    lines: list[RenderableType] = []
    for finding in report.integrity.findings:
        mark = ("! ", "bold magenta") if finding.unsound else ("* ", "yellow")
        lines.append(Text.assemble(mark, f"{one_line(finding.what)} {one_line(finding.remedy)}"))
    return lines


def worst(report: Report) -> list[RenderableType]:
    """The three worst pairs with both bodies, cut."""
    chosen = worst_pairs(report.signatures, 3)
    if not chosen:
        return [""]
    parts: list[RenderableType] = ["", Text("Worst pairs", style="bold")]
    for signature, example in chosen:
        parts += [worst_pair(signature, example), ""]
    return parts


def worst_pair(signature: Signature, example: Example) -> RenderableType:
    kind = "new fault" if signature.is_fault else "disagreement"
    pairs = "pair" if signature.pairs == 1 else "pairs"
    title = Text.assemble(
        (one_line(cut(example.what, 200)), "bold"),
        (f"  ({kind} in {count(signature.pairs)} {pairs}, {percent(signature.share)})", "dim"),
    )
    bodies = Table.grid(padding=(0, 2))
    bodies.add_column(style="dim", no_wrap=True)
    bodies.add_column(overflow="fold")
    bodies.add_row("pair", Text(one_line(cut(example.pair_id, 100))))
    bodies.add_row("request", Text(body(example.request)))
    for role, status, answer in (
        ("primary", example.primary_status, example.primary_response),
        ("shadow", example.shadow_status, example.shadow_response),
    ):
        bodies.add_row(role, Text(f"{status or 'no answer'} {body(answer)}"))
    return Group(title, Padding(bodies, (0, 0, 0, 2)))


def body(text: str) -> str:
    return cut(one_line(text), BODY_CHARACTERS)
