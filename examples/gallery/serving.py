"""What the three models are started by: KServe's own server, closed."""

import argparse
import sys

from kserve import Model, model_server

from minimal_predictor.server import serve


def serve_model(kind: type[Model]) -> None:
    """Serve a model whose file MODEL_FILE names; nobody can make the server unload it."""
    arguments = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    model = kind(arguments.model_name)
    try:
        model.load()
    except (KeyError, OSError) as error:
        sys.exit(f"MODEL_FILE is not in models/ ({error}); run train.py, or set it to your own.")
    serve(model)
