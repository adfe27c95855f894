"""How far the replay is: a bar on a terminal, and nothing through a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shadow_report.replay.run import Progress as Show
from shadow_report.replay.state import Counts


@contextmanager
def progress_of(console: Console) -> Iterator[Show]:
    """A function that shows the counts and the total."""
    bar = Progress(
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("replaying", total=None, failed="")

    def show(counts: Counts, total: int) -> None:
        failed = counts.failed + counts.unanswered
        bar.update(
            task,
            completed=counts.done,
            total=total,
            failed=f"{failed:,} failed" if failed else "",
        )

    with bar:
        yield show
