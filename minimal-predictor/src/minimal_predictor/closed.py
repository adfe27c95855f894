"""KServe lets any client load and unload models. Here both are shut, over REST and gRPC."""

from typing import NoReturn

from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve import ModelRepository
from kserve.protocol.model_repository_extension import ModelRepositoryExtension


class RepositoryClosed(GrpcException):
    """Answered with 403 over REST and PERMISSION_DENIED over gRPC."""

    status_code = StatusCode.PERMISSION_DENIED
    details = "loading and unloading models is closed; deploy another version instead."


class ClosedRepository(ModelRepositoryExtension):
    """Refuses to load and to unload; the served model stays as it was started."""

    async def load(self, model_name: str) -> NoReturn:
        """Raises RepositoryClosed, whatever the name."""
        raise RepositoryClosed

    async def unload(self, model_name: str) -> NoReturn:
        """Raises RepositoryClosed, whatever the name."""
        raise RepositoryClosed


class FixedModels(ModelRepository):
    """The models of a process, from its start to its end."""

    def unload(self, name: str) -> None:
        """Nothing: KServe unloads at SIGTERM, when gRPC calls in flight still need the model."""
