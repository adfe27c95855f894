"""What a run is doing: one line that changes on a terminal, a line for each step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.status import Status


@contextmanager
def steps(screen: Console) -> Iterator[Callable[[str], None]]:
    """Call it with each step; what has several lines asks for a person's hand, and stays."""

    def say(text: str) -> None:
        screen.print(text, soft_wrap=True)

    if not screen.is_terminal:
        yield say
        return
    with Status("starting", console=screen) as status:
        yield lambda text: say(text) if "\n" in text else status.update(text)


@contextmanager
def counted(screen: Console, step: str, total: int) -> Iterator[Callable[[int], None]]:
    """A step of `total` parts; call it with the number that is done."""
    if not screen.is_terminal:
        screen.print(f"{step}: {total}", soft_wrap=True)
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(step, total=total)
        yield lambda done: bar.update(task, completed=done)
