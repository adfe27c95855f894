"""Every failure's answer: a truthful status and KServe's error body."""

from __future__ import annotations

import asyncio

import orjson
from fastapi import HTTPException
from grpc import StatusCode
from kserve.errors import (
    InferenceError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ServerNotLive,
    ServerNotReady,
    UnsupportedProtocol,
)

from minimal_transformer.exchange import JSON_HEADERS, Answer, RawHeaders
from minimal_transformer.limits import AnswerTooLarge, NoRoom, TooLarge, TooSlow

# A longer body is not searched for what it says.
_READ_BYTES = 256 * 1024
# The caller sees 503 too: the process ends before the predictor has answered.
STOPPED = "the server stopped before the predictor answered; try again"


class RepositoryClosed(Exception):
    """A caller asked to load or unload a model."""

    def __init__(self) -> None:
        super().__init__("this server does not load or unload models")


STATUS_BY_FAILURE: dict[type[Exception], int] = {
    TooSlow: 408,
    TooLarge: 413,
    AnswerTooLarge: 502,
    NoRoom: 503,
    InvalidInput: 400,
    RepositoryClosed: 403,
    ModelNotFound: 404,
    InferenceError: 500,
    NotImplementedError: 501,
    UnsupportedProtocol: 501,
    ModelNotReady: 503,
    ServerNotLive: 503,
    ServerNotReady: 503,
}

_CODE_BY_STATUS = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.ABORTED,
    409: StatusCode.ABORTED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    500: StatusCode.INTERNAL,
    501: StatusCode.UNIMPLEMENTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}

# Of two statuses with one code the later: 429 and 503.
_STATUS_BY_CODE = {code: status for status, code in _CODE_BY_STATUS.items()} | {
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.ALREADY_EXISTS: 409,
}


class Failed(Exception):
    """A call that has its answer already, and that answer is not a result."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error or f"status {answer.status}")
        self.answer = answer


def refusal(
    status: int, message: str, headers: RawHeaders = JSON_HEADERS, *, quotes: bool = False
) -> Answer:
    """An answer of our own, in KServe's form: {"error": message}; `quotes` as in Answer."""
    message = message.encode("utf-8", "replace").decode()  # a lone surrogate is not JSON
    return Answer(status, orjson.dumps({"error": message}), headers, message, quotes)


def unreadable(failure: KeyError | TypeError | ValueError | AttributeError) -> Failed:
    """The 400 for a v2 request that something could not be read in, in KServe's words."""
    if isinstance(failure, KeyError):
        return Failed(refusal(400, f"the request has no {failure}", quotes=True))
    return Failed(refusal(400, f"Unrecognized request format: {failure}", quotes=True))


def answer_to(failure: BaseException) -> Answer:
    """The answer of a call that ended with this exception, the same at every call."""
    if isinstance(failure, Failed):
        return failure.answer
    if isinstance(failure, asyncio.CancelledError):
        return refusal(503, STOPPED)
    if isinstance(failure, HTTPException):
        return refusal(failure.status_code, str(failure.detail), quotes=True)
    for kind, status in STATUS_BY_FAILURE.items():
        if isinstance(failure, kind):
            return refusal(status, str(failure), quotes=True)
    return refusal(500, f"{type(failure).__name__} : {failure}", quotes=True)


def abandoned(answer: Answer) -> Answer:
    """What a call's rows say whose caller left before this answer: 499, as proxies do."""
    error = f"the caller left before the answer, which was {answer.status}"
    quotes = answer.quotes and answer.error is not None
    return answer._replace(status=499, error=error, quotes=quotes)


def is_unexpected(failure: BaseException) -> bool:
    """Whether the failure is a bug (of a hook or of ours) whose traceback belongs in the log."""
    known = (Failed, asyncio.CancelledError, HTTPException, *STATUS_BY_FAILURE)
    return not isinstance(failure, known)


def code_of(status: int) -> StatusCode:
    """The gRPC code that means the same as this HTTP status."""
    if status in _CODE_BY_STATUS:
        return _CODE_BY_STATUS[status]
    if 200 <= status < 300:
        return StatusCode.OK
    return StatusCode.INVALID_ARGUMENT if 400 <= status < 500 else StatusCode.INTERNAL


def status_of(code: StatusCode) -> int:
    """The HTTP status that a gRPC code is stored as and answered with over REST."""
    return _STATUS_BY_CODE.get(code, 500)


def error_text(body: bytes, status: int) -> str:
    """What a failed answer's body says, for the error column and a gRPC caller's details."""
    try:
        error = orjson.loads(body if len(body) < _READ_BYTES else b"")["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = body[:500].decode("utf-8", "replace").strip()
        return text or f"the predictor answered {status} without a body"
    return error if isinstance(error, str) else orjson.dumps(error).decode()
