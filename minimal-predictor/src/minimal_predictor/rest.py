"""The REST side: KServe's server, with the inference routes and the errors answered here.

KServe's own routes read a body by its content type, answer bad v2 JSON with 422, and log a stack
trace for each mistake of a caller.
"""

from collections.abc import Awaitable, Callable, Mapping

import orjson
from fastapi import FastAPI
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.rest.server import RESTServer
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from minimal_predictor.bad_input import BadInput
from minimal_predictor.body import read_json, read_v2
from minimal_predictor.closed import RepositoryClosed
from minimal_predictor.quiet import quieten
from minimal_predictor.v2_wire import LENGTH_HEADER, encode, infer_request, json_length

# Here, because a worker process imports this module and never __main__.
quieten()

STATUS_OF_MISTAKE: dict[type[Exception], int] = {
    BadInput: 400,
    InvalidInput: 400,
    RepositoryClosed: 403,
    ModelNotFound: 404,
    ClientDisconnect: 499,  # nobody reads it; without a status it would be a fault in the log
    NotImplementedError: 501,
    ModelNotReady: 503,
}


class QuietRESTServer(RESTServer):
    """KServe's REST server; a caller's mistake costs a 4xx with `{"error"}` and no log line."""

    def _register_endpoints(self, app: FastAPI) -> None:
        routes = InferenceRoutes(self.dataplane)
        for path, endpoint in (
            ("/v1/models/{model_name}:predict", routes.predict_v1),
            ("/v2/models/{model_name}/infer", routes.infer_v2),
            ("/v2/models/{model_name}/versions/{version}/infer", routes.infer_version),
        ):
            app.router.routes.append(Route(path, endpoint, methods=["POST"]))
        super()._register_endpoints(app)  # the first match wins, so these come second

    def _add_exception_handlers(self, app: FastAPI) -> None:
        super()._add_exception_handlers(app)
        for mistake, status in STATUS_OF_MISTAKE.items():
            app.add_exception_handler(mistake, _answer_with(status))

    def _add_middlewares(self, app: FastAPI) -> None:
        """None: KServe's times each request, for two log lines that are off here."""


class InferenceRoutes:
    """The two routes that carry inference; a body is JSON whatever its content type says."""

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    async def predict_v1(self, request: Request) -> Response:
        """POST /v1/models/{model_name}:predict"""
        name, headers, body = await self._opened(request)
        result, answer_headers = await self._dataplane.infer(name, read_json(body), headers)
        content = result if isinstance(result, str | bytes) else to_json(result)
        return _answer(content, answer_headers)

    async def infer_v2(self, request: Request) -> Response:
        """POST /v2/models/{model_name}/infer, with or without binary tensors"""
        name, headers, body = await self._opened(request)
        length = json_length(headers.get(LENGTH_HEADER), body)
        payload = infer_request(name, read_v2(read_json(body[:length])), body[length:])
        result, answer_headers = await self._dataplane.infer(name, payload, headers)
        content, binary_from = encode(result, payload)
        if binary_from is not None:
            answer_headers[LENGTH_HEADER] = str(binary_from)
            answer_headers["content-type"] = "application/octet-stream"
        return _answer(content, answer_headers)

    async def infer_version(self, request: Request) -> Response:
        """POST /v2/models/{model_name}/versions/{version}/infer: 501, whatever the body"""
        raise NotImplementedError("model versions are not served; leave out /versions/…")

    async def _opened(self, request: Request) -> tuple[str, dict[str, str], bytes]:
        """The name of the model, which is ready, and the request's headers and body."""
        name: str = request.path_params["model_name"]
        if not await self._dataplane.model_ready(name, True):
            raise ModelNotReady(name)
        return name, dict(request.headers), await request.body()


def to_json(document: object) -> bytes:
    """The document as JSON; numpy arrays and numbers are written as lists and numbers."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _answer(content: str | bytes, headers: Mapping[str, str]) -> Response:
    kept = {key: value for key, value in headers.items() if key.lower() != "content-length"}
    return Response(content, headers={"content-type": "application/json"} | kept)


def _answer_with(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_request: Request, mistake: Exception) -> Response:
        text = mistake.details if isinstance(mistake, RepositoryClosed) else str(mistake)
        return Response(to_json({"error": text}), status, media_type="application/json")

    return answer
