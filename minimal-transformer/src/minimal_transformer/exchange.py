"""What goes through the transformer: a call as it arrived and the answer that the caller gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Protocol = Literal["v1", "v2", "grpc"]
Verb = Literal["predict", "explain"]
RawHeaders = list[tuple[bytes, bytes]]

JSON_HEADERS: RawHeaders = [(b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Route:
    """One inference endpoint; made once at start, shared by all its calls."""

    protocol: Protocol
    verb: Verb
    path: str
    predict_url: str


class Arrival(NamedTuple):
    """A call as the caller sent it; over gRPC, body is the request message's wire form."""

    route: Route
    body: bytes
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What the caller gets, byte for byte; error is set when the call failed.

    A gRPC caller gets the body (the response message's wire form) when status is 200,
    otherwise the code that belongs to the status with error as its details.
    """

    status: int
    body: bytes
    headers: RawHeaders
    error: str | None = None
