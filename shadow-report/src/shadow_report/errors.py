"""How a command fails while it runs."""


class OneLineError(RuntimeError):
    """What went wrong, where, and what to do, as one line for a person; the exit code is 1."""
