"""KServe's own transformer without any code: what `make bench` measures ours against.

Runs in minimal-transformer's environment, so that both have the same versions of everything.
"""

import argparse

from kserve import Model, ModelServer, model_server

if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    arguments, _ = parser.parse_known_args()
    model = Model(arguments.model_name)
    model.ready = True
    ModelServer().start([model])
