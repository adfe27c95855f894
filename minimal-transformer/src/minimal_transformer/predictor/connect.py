"""Which hop fits the predictor."""

from __future__ import annotations

from minimal_transformer.predictor import Predictor
from minimal_transformer.predictor.grpc_hop import GrpcPredictor
from minimal_transformer.predictor.rest_hop import RestPredictor
from minimal_transformer.predictor.settings import PredictorSettings


def connect(settings: PredictorSettings) -> Predictor | None:
    """A hop in the predictor's protocol, not yet open; None where no predictor is named."""
    if settings.host is None:
        return None
    if settings.protocol == "grpc-v2":
        return GrpcPredictor(settings)
    return RestPredictor(settings)
