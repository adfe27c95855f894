"""The entry point: every failure is one line on stderr, and so is Ctrl-C at any moment."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from types import FrameType

from shadow_report import INTERRUPTED, OneLineError, SettingWrong

LINE = "shadow-report: Interrupted."
# psycopg gives Postgres 5 s to hear that a query is cancelled and 5 s to end it.
PATIENCE_SECONDS = 15


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Within this, Ctrl-C ends the process, the second one at once.

    The first raises KeyboardInterrupt, so that Postgres is told and drafts of files are removed.
    What comes of that does not matter: an error on the way out is no news, and if nothing comes of
    it, because a library swallowed it, the process ends after 15 s all the same.

    Also where SIGINT was ignored, as shells have it for what scripts start in the background: who
    sends one means it.
    """
    came = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True
        logging.disable()  # psycopg warns of what it gave up
        signal.signal(signal.SIGINT, _end)
        signal.signal(signal.SIGALRM, _end)
        signal.alarm(PATIENCE_SECONDS)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException:
        if not came:
            raise
        print(LINE, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    finally:
        if not came:
            signal.signal(signal.SIGINT, before)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), f"{LINE}\n".encode())
    os._exit(INTERRUPTED)


RUNTIME_ERROR, USAGE_ERROR = 1, 2


def main() -> None:
    """Run the command line."""
    try:
        with ended_by_ctrl_c():
            # Here and not above: the imports take a second or more, in which Ctrl-C may come too.
            # What is imported stays: to look for garbage in it again and again is part of that.
            gc.disable()
            from typer import TyperException  # noqa: PLC0415

            from shadow_report.cli import app  # noqa: PLC0415

            gc.freeze()
            gc.enable()
            try:
                # Without a word typer shows its help.
                sys.exit(app(standalone_mode=len(sys.argv) < 2))
            except TyperException as error:
                message = _of_another(error) or error.format_message().rstrip(".")
                _fail(f"{message}; `{_help(error)}` has the options.", USAGE_ERROR)
    except SettingWrong as error:
        _fail(str(error), USAGE_ERROR)
    except (OneLineError, OSError) as error:
        _fail(str(error), RUNTIME_ERROR)


def _of_another(error: Exception) -> str:
    """That another command takes the option which this one has not; empty where none does."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None:
        return ""
    takers = [
        name
        for name, command in getattr(context.find_root().command, "commands", {}).items()
        if any(option in parameter.opts for parameter in command.params)
    ]
    of = f"No such option of {context.info_name}: {option} (it is one of {', '.join(takers)})"
    return of if takers else ""


def _help(error: Exception) -> str:
    """What to type for help: a wrapper such as `make report` says it, else the program's own."""
    if found := os.environ.get("SHADOW_REPORT_HELP"):
        return found
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        name = "python -m shadow_report"
    else:
        name = program.name if which(program.name) else str(program)
    context = getattr(error, "ctx", None)
    command = context.command_path.removeprefix(context.find_root().info_name) if context else ""
    return f"{name}{command} --help"


def _fail(message: str, code: int) -> None:
    print(f"shadow-report: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
