"""The command line's three commands."""

from __future__ import annotations

import typer

from shadow_report.compare_command import compare_command
from shadow_report.maintain import maintain_command
from shadow_report.replay import replay_command

app = typer.Typer(
    help="Compares the primary's and the shadow's answers: may the shadow replace the primary?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("compare")(compare_command)
app.command("replay")(replay_command)
app.command("maintain")(maintain_command)
