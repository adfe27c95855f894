"""`minimal-transformer` and `python -m minimal_transformer`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Serve; settings and arguments come from the environment and the command line."""
    # What is imported stays: to look for garbage in it again and again is a third of a start.
    gc.disable()
    from minimal_transformer.server import serve  # noqa: PLC0415  kserve reads sys.argv on import

    gc.freeze()
    gc.enable()
    return serve()


if __name__ == "__main__":
    sys.exit(main())
