"""The worst pairs on a terminal, each with its request and both answers, cut."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shadow_report.output.wording import cut, one_line, percent
from shadow_report.output.worst import worst_pairs
from shadow_report.report import Example, Report, Signature
from shadow_report.wording import counted

BODY_CHARACTERS = 200


def worst(report: Report, limit: int) -> list[RenderableType]:
    """Up to `limit` pairs under a title; nothing when no pair differs."""
    parts: list[RenderableType] = []
    for signature, example in worst_pairs(report.signatures, limit):
        parts += [worst_pair(signature, example), ""]
    return ["", Text("Worst pairs", style="bold"), *parts[:-1]] if parts else []


def worst_pair(signature: Signature, example: Example) -> RenderableType:
    kind = "new fault" if signature.is_fault else "disagreement"
    title = Text.assemble(
        (one_line(cut(example.what, 200)), "bold"),
        (f"  ({kind}, {counted(signature.pairs, 'pair')}, {percent(signature.share)})", "dim"),
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
