"""The report on a terminal: read in ten seconds, and just as well through a pipe.

Foreign text enters as `rich.text.Text`, so its square brackets are not markup, and with its control
characters written out, so it cannot move the cursor.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from shadow_report.report import (
    Gate,
    Judged,
    PairedTable,
    Report,
    Shift,
    ShownPair,
    SideBySide,
    worst_pairs,
)
from shadow_report.wording import (
    GATE_TITLES,
    NOTHING,
    VERDICT_MEANINGS,
    candidates_meaning,
    count,
    counted,
    cut,
    moment,
    number,
    number_range,
    one_line,
    percent,
    percent_range,
    signed,
    span,
)

COLOURS = {"PROMOTE": "green", "REJECT": "red", "WAIT": "yellow", "INVALID": "magenta"}
STATUS_COLOURS = {"pass": "green", "fail": "red", "wait": "yellow"}
# Columns below which the gates' table would cut its own cells.
NARROW = 66
# The columns of that table that may wrap, the one that is worth its width most first.
WRAPPED = ("Interval", "Gate", "Needs")
GAP = 2
# `99.31 to` and `100 %` are not parted.
WORD = re.compile(r"\S+(?: to\b| %)?")
# Their reasons are told whatever comes first.
TOLD = ("newest", "worst", "slices")
COLUMNS = (
    ("", "left"),
    ("Gate", "left"),
    ("Estimate", "right"),
    ("Interval", "left"),
    ("Margin", "left"),
    ("n", "right"),
    ("Needs", "left"),
)


def print_report(judged: Judged, console: Console, *, verbose: bool = False) -> None:
    """Print the verdict, why, the gates, the coverage and the three worst pairs.

    Several candidates: all in one table, then each one's reasons and gates.
    verbose: every reason, finding and note as well, and ten pairs.
    """
    if isinstance(judged, SideBySide):
        parts = side_by_side(judged, console, verbose)
    else:
        parts = one(judged, console, verbose, pairs=10 if verbose else 3)
    with console.capture() as printed:
        console.print(Group(*parts))
    # Tables pad their cells: through a pipe those blanks would end up in files and messages.
    console.file.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))
    console.file.flush()


def one(report: Report, console: Console, verbose: bool, *, pairs: int) -> list[RenderableType]:
    """One shadow's report, with this many pairs."""
    parts: list[RenderableType] = [headline(report), *why(report, verbose), ""]
    gates = gates_of(report, verbose, console.width)
    parts += [about(report), "", gates, *worth(report), ""]
    if verbose:
        parts += [reasons_table(report), ""]
    parts += [coverage(report), *([] if verbose else besides_coverage(report)), *generated(report)]
    if verbose:
        parts += generated_details(report)
        parts += details(report)
    return parts + worst(report, pairs)


def side_by_side(judged: SideBySide, console: Console, verbose: bool) -> list[RenderableType]:
    """The candidates in one table, then each by itself, with one pair unless verbose."""
    number = len(judged.candidates)
    parts: list[RenderableType] = [
        Text.assemble(
            verdict_mark(judged.verdict),
            ("  " + one_line(candidates_meaning(judged.promoted, number)), "bold"),
        ),
        "",
        candidates_table(judged),
        Text(f"alpha {judged.alpha:g} is shared among the {number} candidates.", style="dim"),
    ]
    for report in judged.candidates:
        title = Text(one_line(report.shadow.service) or NOTHING, style="bold underline")
        parts += ["", title, *one(report, console, verbose, pairs=10 if verbose else 1)]
    return parts


def candidates_table(judged: SideBySide) -> Table:
    """One candidate to a row: its verdict, its pairs, and the gates that it has not passed."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, expand=False)
    table.add_column("", no_wrap=True)
    table.add_column("Candidate", header_style="dim", overflow="fold")
    table.add_column("Pairs", header_style="dim", justify="right", no_wrap=True)
    table.add_column("Gates", header_style="dim", overflow="fold")
    for report in judged.candidates:
        colour = COLOURS.get(report.verdict, "white")
        table.add_row(
            Text(report.verdict, style=f"bold {colour}"),
            Text(one_line(report.shadow.title) or NOTHING),
            Text(count(report.pairs)),
            gates_summary(report),
        )
    return table


def gates_summary(report: Report) -> Text:
    """`fail: New faults; wait: Coverage; 3 pass`."""
    found = {
        status: [
            title_of(gate)
            for gate in report.gates
            if gate.status == status and (gate.has_figures or status != "pass")
        ]
        for status in ("fail", "wait", "pass")
    }
    parts = [
        Text(
            f"{len(named)} pass" if status == "pass" else f"{status}: {', '.join(named)}",
            style=STATUS_COLOURS[status],
        )
        for status, named in found.items()
        if named
    ]
    return Text("; ").join(parts)


def verdict_mark(verdict: str) -> tuple[str, str]:
    return (f" {verdict} ", f"bold reverse {COLOURS.get(verdict, 'white')}")


def headline(report: Report) -> Text:
    return Text.assemble(
        verdict_mark(report.verdict),
        ("  " + VERDICT_MEANINGS.get(report.verdict, ""), "bold"),
    )


def why(report: Report, verbose: bool) -> list[RenderableType]:
    """The first reason and whatever else moved the verdict; of unsound evidence all to mend.

    What fails besides is told, since its remedy may be another, and what more pairs would reject; a
    bad run of calls, a bad slice, noise and options without effect are in no figure of the table.
    """
    everything = verbose or report.verdict == "INVALID"
    told = [gate.reason for gate in report.gates if _is_told(gate)]
    reasons = [
        reason
        for i, reason in enumerate(report.reasons)
        if everything or i == 0 or any(of_gate in reason for of_gate in told)
    ]
    return [
        *(Padding(Text(one_line(said)), (0, 0, 0, 2)) for said in (*reasons, *report.remarks)),
        *unmatched(report),
    ]


def _is_told(gate: Gate) -> bool:
    would_fail = gate.status == "wait" and gate.need is not None and gate.need.towards == "fail"
    return gate.status == "fail" or would_fail or (gate.name in TOLD and gate.status != "pass")


def about(report: Report) -> Table:
    """What was compared with what, and when."""
    window = report.window
    rate = f", {count(window.pairs_per_hour)} an hour" if window.pairs_per_hour else ""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("primary", Text(one_line(report.primary.title) or NOTHING))
    table.add_row("shadow", Text(one_line(report.shadow.title) or NOTHING))
    pairs = f"{count(report.pairs)} compared"
    if report.compared < report.pairs:
        pairs = f"{count(report.pairs)}, of which {count(report.compared)} agree or differ"
    table.add_row("pairs", Text(f"{pairs}, over {span(window.hours)}{rate}"))
    if window.first_pair is not None:
        table.add_row(
            "when", Text(f"{moment(window.first_pair)} to {moment(window.last_pair)} UTC")
        )
    elif window.since is not None:
        table.add_row("when", Text(f"no pairs since {moment(window.since)} UTC"))
    return table


def gates_of(report: Report, verbose: bool, width: int) -> Table:
    """One gate to a row, or below its name where the table has no room for its longest words; what
    a waiting one needs stands at the end.
    """
    waiting = any(gate.need for gate in report.gates)
    columns = COLUMNS if waiting else COLUMNS[:-1]
    gates = [gate for gate in report.gates if gate.has_figures]
    rows = [gate_cells(gate, verbose)[: len(columns)] for gate in gates]
    cells = {title: [row[i].plain for row in rows] for i, (title, _) in enumerate(columns)}
    widths = wrapped_widths(cells, width)
    if width < NARROW or widths is None:
        return gates_list(gates, verbose)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, expand=False)
    for title, justify in columns:
        table.add_column(
            title,
            justify=justify,  # type: ignore[arg-type]
            header_style="dim",
            no_wrap=title not in WRAPPED,
            overflow="fold",
            width=widths.get(title),
        )
    for row in rows:
        table.add_row(*row)
    return table


def wrapped_widths(columns: dict[str, list[str]], width: int) -> dict[str, int] | None:
    """How wide the columns that wrap may be, the first of them first; None where a word would
    break.
    """
    wrapped = [title for title in WRAPPED if title in columns]
    texts = {title: [title, *cells] for title, cells in columns.items()}
    least = {title: max(len(w) for t in texts[title] for w in WORD.findall(t)) for title in wrapped}
    fixed = sum(max(map(len, texts[title])) for title in columns if title not in WRAPPED)
    spare = width - fixed - GAP * (len(columns) - 1) - sum(least.values())
    if spare < 0:
        return None
    for title in wrapped:
        more = max(map(len, texts[title])) - least[title]
        # In between, an interval would end in a line with nothing but its unit.
        more = min(more, spare if title != "Interval" or more <= spare else 0)
        least[title] += more
        spare -= more
    return least


def gates_list(gates: Sequence[Gate], verbose: bool) -> Table:
    """The same where a table has no room: the figures of a gate below its name."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for gate in gates:
        status, title, estimate, interval, margin, n, need = gate_cells(gate, verbose)
        table.add_row(status, title)
        table.add_row("", Text.assemble(estimate, " (", interval, "), ", margin, ", n ", n))
        if gate.need:
            table.add_row("", Text.assemble("needs ", need))
    return table


def gate_cells(gate: Gate, verbose: bool) -> tuple[Text, ...]:
    colour = STATUS_COLOURS.get(gate.status, "white")
    bound = "min" if gate.is_minimum else "max"
    return (
        Text(gate.status.upper(), style=f"bold {colour}"),
        Text(title_of(gate)),
        Text(percent(gate.estimate)),
        Text(percent_range(gate.interval)),
        Text(NOTHING if gate.margin is None else f"{bound} {percent(gate.margin)}"),
        Text(size(gate)),
        Text(needs(gate, verbose)),
    )


def size(gate: Gate) -> str:
    """n, and what it is worth where that is less."""
    return f"{count(gate.n)} ({count(gate.n_eff)})" if is_worth_less(gate) else count(gate.n)


def is_worth_less(gate: Gate) -> bool:
    """By more than what rounds to 1 %."""
    return gate.n_eff < 0.995 * gate.n


def needs(gate: Gate, verbose: bool) -> str:
    """How many more pairs settle a waiting gate; where none do, where it stands what would."""
    if gate.need is None:
        return ""
    if gate.need.pairs is None:
        return "a change (see below)" if verbose else "a change (--verbose)"
    # The reason says in what they have to differ.
    which = " different" * bool(gate.need.further)
    return f"{count(gate.need.pairs)}{which} to {gate.need.towards}"


def title_of(gate: Gate) -> str:
    return GATE_TITLES.get(gate.name, one_line(gate.name))


def reasons_table(report: Report) -> Table:
    """Each gate's reason."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for gate in report.gates:
        table.add_row(Text(title_of(gate)), Text(one_line(gate.reason)))
    return table


def coverage(report: Report) -> Text:
    """How much of the primary's traffic the pairs stand for."""
    integrity = report.integrity
    primary, shadow, share = report.primary, report.shadow, integrity.expected_share
    mirrored = f", of which {percent(share)} are mirrored" if share < 1 else ""
    return Text.assemble(
        ("Coverage ", "bold"),
        f"{percent(integrity.coverage)}: {counted(integrity.paired, 'pair')} of "
        f"{counted(integrity.primary_calls, 'primary call')}{mirrored}; unpaired: "
        f"{count(primary.unpaired)} "
        f"primary, {count(shadow.unpaired)} shadow; "
        f"lost records: {count(primary.lost_records + shadow.lost_records)}",
    )


# Findings about calls that no figure of the coverage shows.
BESIDES_COVERAGE = ("unanswered", "before-first-pair", "in-flight")


def besides_coverage(report: Report) -> list[RenderableType]:
    """Which calls are paired and have no response record, which came before the first pair, and
    which may still get theirs.
    """
    return [
        Text(f"{one_line(found.what)} {one_line(found.remedy)}")
        for found in report.integrity.findings
        if found.code in BESIDES_COVERAGE
    ]


def generated(report: Report) -> list[RenderableType]:
    """What differs between generated answers besides their words, in short."""
    found = report.generated
    if found is None:
        return []
    parts = []
    if found.texts:
        parts.append(f"the same words in {percent(found.same_words / found.texts)}")
    for what, table in (
        ("refused", found.refusals),
        ("with a tool call", found.tool_calls),
        ("broken off", found.broken),
    ):
        if table.shadow_only or table.primary_only:
            parts.append(
                f"{count(table.shadow_only)} newly {what}, {count(table.primary_only)} no longer"
            )
    if flips := sum(f.pairs for f in found.finish_reasons if f.primary != f.shadow):
        parts.append(f"another finish reason in {count(flips)}")
    if found.left:
        parts.append(f"{count(found.left)} that nobody waited for")
    parts += [
        f"{drift.name} p50 {in_words(shift, drift.unit)}"
        for drift in found.drifts
        for shift in drift.shifts
        if shift.quantile == 0.5 and shift.shift
    ]
    return [Text.assemble(("Generated ", "bold"), one_line("; ".join(parts)))]


def generated_details(report: Report) -> list[RenderableType]:
    """All figures of generated answers, one to a line."""
    found = report.generated
    if found is None:
        return []
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for title, counts in (
        ("refusals", found.refusals),
        ("tool calls", found.tool_calls),
        ("broken off", found.broken),
    ):
        table.add_row(title, gained_and_lost(counts))
    for flip in found.finish_reasons:
        became = f" became {flip.shadow}" * (flip.primary != flip.shadow)
        table.add_row("finish", Text(one_line(f"{flip.primary}{became}: {count(flip.pairs)}")))
    for drift in found.drifts:
        for shift in drift.shifts:
            quantile = f"p{number(shift.quantile * 100)}"
            table.add_row(f"{drift.name} {quantile}", in_words(shift, drift.unit))
    return ["", Text("Generated answers", style="bold"), Padding(table, (0, 0, 0, 2))]


def gained_and_lost(table: PairedTable) -> str:
    return (
        f"{count(table.shadow_only)} by the shadow only, {count(table.primary_only)} by the "
        f"primary only, {count(table.both)} by both"
    )


def in_words(shift: Shift, unit: str) -> str:
    unit = f" {unit}" * bool(unit)
    interval = f" ({number_range(shift.interval)})" if shift.interval else ""
    return (
        f"{number(shift.primary)} to {number(shift.shadow)}{unit}, {signed(shift.shift)}{interval}"
    )


def unmatched(report: Report) -> list[RenderableType]:
    """Options that had no effect: a reader of the verdict takes for granted that they had."""
    return [
        Padding(
            Text.assemble(
                ("No effect ", "bold yellow"),
                f"{one_line(rule)}: it found nothing that it is for in the answers or requests "
                "compared",
            ),
            (0, 0, 0, 2),
        )
        for rule in report.unmatched_rules
    ]


def worth(report: Report) -> list[RenderableType]:
    """Why n is worth less than it is, once for each reason."""
    reasons = dict.fromkeys(
        gate.n_eff_reason for gate in report.gates if gate.n_eff_reason and is_worth_less(gate)
    )
    return [Text(f"n is worth less: {one_line(reason)}.", style="dim") for reason in reasons]


def details(report: Report) -> list[RenderableType]:
    """What is wrong with the evidence and how to mend it, and what else a reader should know."""
    lines: list[RenderableType] = [""]
    for finding in report.integrity.findings:
        mark = ("! ", "bold magenta") if finding.unsound else ("* ", "yellow")
        lines.append(Text.assemble(mark, f"{one_line(finding.what)} {one_line(finding.remedy)}"))
    lines += [Text(one_line(note), style="dim") for note in report.notes]
    return lines if len(lines) > 1 else []


BODY_CHARACTERS = 200
PLACE_CHARACTERS = 60


def worst(report: Report, limit: int) -> list[RenderableType]:
    """Up to `limit` pairs under a title; nothing when no pair differs."""
    parts: list[RenderableType] = []
    for pair in worst_pairs(report.signatures, limit):
        parts += [worst_pair(pair), ""]
    return ["", Text("Worst pairs", style="bold"), *parts[:-1]] if parts else []


def worst_pair(pair: ShownPair) -> RenderableType:
    example = pair.example
    title = Text.assemble(
        (one_line(cut(example.what, 200)), "bold"),
        (f"  ({pair.kind}, {pair.alike})", "dim"),
    )
    answers = example.primary_response, example.shadow_response
    # The beginning of a long answer says nothing of what differs further on.
    if max(map(len, answers)) > BODY_CHARACTERS and example.primary_value:
        at = f"{cut(example.place, PLACE_CHARACTERS)}: " * bool(example.place)
        answers = f"{at}{example.primary_value}", f"{at}{example.shadow_value}"
    bodies = Table.grid(padding=(0, 2))
    bodies.add_column(style="dim", no_wrap=True)
    bodies.add_column(overflow="fold")
    bodies.add_row("pair", Text(one_line(cut(example.pair_id, 100))))
    bodies.add_row("request", Text(body(example.request)))
    for role, status, error, answer in (
        ("primary", example.primary_status, example.primary_error, answers[0]),
        ("shadow", example.shadow_status, example.shadow_error, answers[1]),
    ):
        # A failed call may have a sound body, which must not read as its answer.
        separator = f": {body(error)}\n" if error else " "
        bodies.add_row(role, Text(f"{status or 'no answer'}{separator}{body(answer)}".rstrip()))
    return Group(title, Padding(bodies, (0, 0, 0, 2)))


def body(text: str) -> str:
    return cut(one_line(text), BODY_CHARACTERS)


@contextmanager
def progress_bar(title: str, console: Console) -> Iterator[Callable[..., None]]:
    """A function to call with what is done, what is expected and a word; it draws a bar on a
    terminal, gone when it is done, and nothing through a pipe.
    """
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task(title, total=None, note="")

    def show(done: int, expected: int, note: str = "") -> None:
        bar.update(task, completed=done, total=max(done, expected), note=note)

    with bar:
        yield show
