"""KServe's data plane and model repository, closed: no caller loads or unloads a model."""

from __future__ import annotations

from typing import NoReturn

from kserve.errors import ModelNotFound, ModelNotReady
from kserve.model import BaseKServeModel
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from minimal_transformer.failures import RepositoryClosed


class ClosedRepository(ModelRepositoryExtension):  # type: ignore[misc]
    """Refuses what KServe lets any caller do: unload the model for good."""

    async def load(self, model_name: str) -> NoReturn:
        """Always refuse."""
        raise RepositoryClosed

    unload = load


class TruthfulDataPlane(DataPlane):  # type: ignore[misc]
    """Readiness means that calls can be answered; asking for it changes nothing."""

    async def get_model(self, name: str) -> BaseKServeModel:
        """The model; unlike KServe's, never loads one that is not ready."""
        model = self.get_model_from_registry(name)
        if not model.ready:
            raise ModelNotReady(name)
        return model

    async def ready(self) -> bool:
        """Whether every model is ready; each knows about its own predictor."""
        models = self.model_registry.get_models().values()
        return bool(models) and all([await model.healthy() for model in models])

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        """Whether the model and its predictor are ready."""
        if self.model_registry.get_model(model_name) is None:
            raise ModelNotFound(model_name)
        return bool(await self.model_registry.is_model_ready(model_name))
