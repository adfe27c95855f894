"""`python -m minimal_predictor`, and the command minimal-predictor."""

import argparse
import sys
from typing import NoReturn

from kserve import model_server

from minimal_predictor.model import Multiplier
from minimal_predictor.server import KEEP_ALIVE_SECONDS, serve
from minimal_predictor.settings import BadSettings, read_settings


class OneLineParser(argparse.ArgumentParser):
    """Refuses an argument in one line; `--help` has the usage, which is long."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f"{self.prog}: {message}; see --help.\n")


def main() -> None:
    """Serve the multiplier until SIGTERM; bad settings end the start with one line."""
    arguments = argument_parser().parse_args()
    try:
        settings = read_settings(arguments.model_name)
    except BadSettings as error:
        sys.exit(str(error))
    model = Multiplier(settings.model_name, settings.factor)
    model.load()
    serve(model, arguments.timeout_keep_alive)


def argument_parser() -> argparse.ArgumentParser:
    """KServe's own arguments; one that it does not know stops the start."""
    parser = OneLineParser(
        prog="minimal-predictor",
        description="Multiplies by FACTOR what callers send. Environment: MODEL_NAME, FACTOR.",
        parents=[model_server.parser],
        allow_abbrev=False,
    )
    # None tells "not given" from "given as model": only then MODEL_NAME counts.
    parser.set_defaults(model_name=None, timeout_keep_alive=KEEP_ALIVE_SECONDS)
    return parser


if __name__ == "__main__":
    main()
