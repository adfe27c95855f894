"""`minimal-transformer` and `python -m minimal_transformer`."""

from __future__ import annotations

import sys


def main() -> int:
    """Serve; settings and arguments come from the environment and the command line."""
    from minimal_transformer.server import serve  # noqa: PLC0415  kserve reads sys.argv on import

    return serve()


if __name__ == "__main__":
    sys.exit(main())
