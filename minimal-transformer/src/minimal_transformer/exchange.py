"""A call as it arrived and the answer that its caller gets: what one part hands to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from minimal_transformer.limits import Room

Protocol = Literal["v1", "v2", "grpc", "openai", "other"]
Verb = Literal["predict", "explain"]
RawHeaders = list[tuple[bytes, bytes]]

JSON_HEADERS: RawHeaders = [(b"content-type", b"application/json")]


def combined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers of one name in one value, as RFC 9110 (5.3) combines them."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def header_text(value: str) -> str:
    """A header's value as text, of one that holds each of its bytes as a character (Latin-1)."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


class Route(NamedTuple):
    """One inference endpoint, shared by its calls; the path is quoted, as the predictor gets it.

    The two functions read a body as JSON where it is not JSON itself (gRPC); they return None for a
    message that cannot be read.
    """

    protocol: Protocol
    verb: Verb
    path: str
    model_name: str
    predict_url: str
    request_json: Callable[[bytes], bytes | None] | None = None
    response_json: Callable[[bytes], bytes | None] | None = None
    model_version: str = ""  # that the caller names; none, and the predictor chooses


def _never() -> bool:
    return False


class Refused(NamedTuple):
    """A call that goes no further: how long its body said that it is, and why."""

    size: int
    reason: BaseException


class Arrival(NamedTuple):
    """A call as the caller sent it: lower-case header names; over gRPC the message's wire form."""

    route: Route
    body: bytes
    headers: Mapping[str, str]
    query: str = ""  # of the URL, without its question mark
    room: Room | None = None  # what the call's bodies take; its maker releases it
    has_left: Callable[[], bool] = _never  # whether the caller waits no more
    refused: Refused | None = None  # where the body was not read


class Answer(NamedTuple):
    """What the caller gets, byte for byte; error is set when the call failed.

    `quotes` is false where the words are ours alone: then they hold nothing of anybody's data. A
    gRPC caller gets the body (the response message's wire form) when status is 200, otherwise
    the code that belongs to the status, with error as its details.
    """

    status: int
    body: bytes
    headers: RawHeaders
    error: str | None = None
    quotes: bool = True


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
