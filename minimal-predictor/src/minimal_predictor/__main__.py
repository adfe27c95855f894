"""`python -m minimal_predictor`, and the command minimal-predictor."""

import argparse
import gc

# What is imported stays: to look for garbage in it again and again is a third of a start.
gc.disable()

from kserve import model_server  # noqa: E402

from minimal_predictor.model import Multiplier  # noqa: E402
from minimal_predictor.server import serve  # noqa: E402
from minimal_predictor.settings import read_settings  # noqa: E402

gc.freeze()
gc.enable()


def main() -> None:
    """Serve the multiplier until SIGTERM; a bad setting or argument ends the start."""
    parser = argparse.ArgumentParser(
        prog="minimal-predictor",
        usage="%(prog)s [--help] [arguments of KServe's server]",
        description="Multiplies by FACTOR what callers send. Environment: MODEL_NAME, FACTOR.",
        parents=[model_server.parser],
        allow_abbrev=False,
    )
    # None tells "not given" from "given as model": only then does MODEL_NAME count.
    parser.set_defaults(model_name=None)
    parser.add_argument(
        "--check", action="store_true", help="only read the arguments; nothing is started"
    )
    args = parser.parse_args()
    if args.check:
        return
    settings = read_settings(args.model_name)
    serve(Multiplier(settings.model_name, settings.factor))


if __name__ == "__main__":
    main()
