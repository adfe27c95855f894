"""A call as it arrived and the answer that its caller gets: what one part hands to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, NamedTuple

Protocol = Literal["v1", "v2", "grpc", "openai", "other"]
Verb = Literal["predict", "explain"]
RawHeaders = list[tuple[bytes, bytes]]

JSON_HEADERS: RawHeaders = [(b"content-type", b"application/json")]


class Route(NamedTuple):
    """One inference endpoint; made once at start, shared by all its calls.

    The last two read a body as JSON where it is not JSON itself (gRPC); they return None for a
    message that cannot be read.
    """

    protocol: Protocol
    verb: Verb
    path: str
    model_name: str
    predict_url: str
    request_json: Callable[[bytes], bytes | None] | None = None
    response_json: Callable[[bytes], bytes | None] | None = None


class Arrival(NamedTuple):
    """A call as the caller sent it: lower-case header names; over gRPC the message's wire form."""

    route: Route
    body: bytes
    headers: Mapping[str, str]
    query: str = ""  # of the URL, without its question mark


class Answer(NamedTuple):
    """What the caller gets, byte for byte; error is set when the call failed.

    A gRPC caller gets the body (the response message's wire form) when status is 200, otherwise
    the code that belongs to the status, with error as its details.
    """

    status: int
    body: bytes
    headers: RawHeaders
    error: str | None = None


class Stream(NamedTuple):
    """An answer that is still coming: its head is known, its bytes are not.

    `read` returns its next bytes as soon as there are some, none at its end, and raises
    PredictorCut when the predictor ends it early. `close` lets go of the predictor at once, also in
    the middle, and may be called again.
    """

    status: int
    headers: RawHeaders
    read: Callable[[], Awaitable[bytes]]
    close: Callable[[], None]


class PredictorCut(Exception):
    """The predictor ended a stream before its end; the text says how."""
