"""The entry point: every failure is one line on stderr, and so is Ctrl-C."""

from __future__ import annotations

import sys

from shadow_report.errors import OneLineError, SettingWrong
from shadow_report.interruption import ended_by_ctrl_c

RUNTIME_ERROR, USAGE_ERROR = 1, 2


def main() -> None:
    """Run the command line."""
    try:
        with ended_by_ctrl_c():
            # Here and not above: the imports take a second or more, in which Ctrl-C may come too.
            from shadow_report.commands import app  # noqa: PLC0415

            app()
    except SettingWrong as error:
        _fail(str(error), USAGE_ERROR)
    except (OneLineError, OSError) as error:
        _fail(str(error), RUNTIME_ERROR)


def _fail(message: str, code: int) -> None:
    print(f"shadow-report: {message}", file=sys.stderr)
    sys.exit(code)
