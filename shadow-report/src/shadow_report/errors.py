"""How a command fails; each is one line for a person."""


class OneLineError(RuntimeError):
    """What went wrong, where, and what to do; the exit code is 1."""


class SettingWrong(ValueError):
    """A setting makes no sense; the message names it, its value and the remedy. Exit code 2."""
