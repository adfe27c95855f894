"""`python -m shadow_local`, and the command shadow-local."""

import signal
import sys

# Before anything slow is imported: until there are children to end, Ctrl-C just ends the process.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from shadow_local.cli import run  # noqa: E402


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
