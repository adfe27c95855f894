"""How a command fails: one line on stderr with what, where and what to do, and exit code 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


class OneLineError(Exception):
    """What went wrong, where, and what to do, as one line for a person."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn a OneLineError into a line on stderr and exit code 1."""
    try:
        yield
    except OneLineError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
