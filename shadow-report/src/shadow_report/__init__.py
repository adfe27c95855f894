"""Compares the primary's and the shadow's answers, and says whether the shadow may replace it."""

__version__ = "0.1.0"

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


class OneLineError(RuntimeError):
    """A command failed: what went wrong, where, and what to do, in one line; the exit code is 1."""


class SettingWrong(ValueError):
    """A setting makes no sense; the message names it, its value and the remedy. Exit code 2."""
