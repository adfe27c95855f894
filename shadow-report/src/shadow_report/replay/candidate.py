"""The candidate: how a stored call is sent to it, how fast, and whether it takes calls."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import aiohttp

from shadow_report import SettingWrong
from shadow_report.replay.calls import ITSELF, StoredCall, Target, headers_of

if TYPE_CHECKING:
    from grpc import aio

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# HTTP statuses of gRPC's codes, as the transformer records them: docs of grpc-gateway.
STATUS_BY_CODE = {0: 200, 3: 400, 5: 404, 7: 403, 8: 429, 12: 501, 14: 503, 4: 504, 16: 401}
# gRPC makes these itself, or describes its own message with them.
NOT_METADATA = {"accept", "accept-encoding", "content-type", "user-agent"}
READY_SECONDS = 5.0
LARGE_BYTES = 2**20

RATE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?")
SECONDS = {"s": 1, "m": 60, "h": 3600, None: 1}


class NoAnswer(Exception):
    """A call got no answer; the text says why, in a few words."""


class NotSendable(Exception):
    """A call cannot be put on the wire again; the text says why, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Where a candidate is: `grpc` as host:port; `source` is what its rows say of our calls."""

    target: Target
    grpc: str | None
    source: str
    concurrency: int
    timeout_seconds: float
    is_primary: bool = False
    """Its rows are kept apart then."""

    @property
    def prefix(self) -> str:
        """What stands before the pair ids of its rows."""
        return ITSELF if self.is_primary else ""

    def headers(self, call: StoredCall) -> dict[str, str]:
        """What a call is sent with."""
        return headers_of(call, self.source, self.prefix)


class Connection:
    """Connections to a candidate, open within the `async with`; a call each, in any number."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self._session: aiohttp.ClientSession
        self._channel: aio.Channel | None = None

    async def __aenter__(self) -> Self:
        candidate = self._candidate
        self._session = aiohttp.ClientSession(
            # One more for the question whether it is ready.
            connector=aiohttp.TCPConnector(limit=candidate.concurrency + 1),
            timeout=aiohttp.ClientTimeout(total=candidate.timeout_seconds),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding",),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        await self._session.close()
        if self._channel is not None:
            await self._channel.close()

    async def send(self, call: StoredCall) -> int:
        """Send a call and read its answer to the end; the status, of gRPC the one that is recorded.

        NoAnswer when none came in time, NotSendable when it cannot be sent at all.
        """
        if call.withheld is not None:
            raise NotSendable(call.withheld)
        if call.protocol == "grpc":
            return await self._infer(call)
        try:
            async with self._session.post(
                self._candidate.target.url(call),
                data=_payload(call.body or b""),
                headers=self._candidate.headers(call),
                allow_redirects=False,
            ) as response:
                async for _ in response.content.iter_any():
                    pass  # an answer that is read to its end leaves the connection usable
            return response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(str(error) or self._no_answer_in_time()) from error
        except ValueError as error:
            raise NotSendable("header that cannot be sent") from error

    async def is_ready(self, model: str) -> bool:
        """Whether the candidate says that its model takes calls."""
        target = self._candidate.target
        url = f"{target.base}/v1/models/{quote(target.model or model, safe='')}"
        timeout = aiohttp.ClientTimeout(total=READY_SECONDS)
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(url, timeout=timeout) as response:
                return response.status == 200
        return False

    async def _infer(self, call: StoredCall) -> int:
        if self._candidate.grpc is None:
            raise NotSendable("gRPC, without --to-grpc")
        # Most candidates get no gRPC, and the import takes a while.
        from grpc import aio  # noqa: PLC0415

        if self._channel is None:
            sizes = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
            # Reconnecting is ours to time: by default gRPC waits up to two minutes.
            options: list[tuple[str, Any]] = [
                *sizes,
                ("grpc.enable_retries", 0),
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ]
            self._channel = aio.insecure_channel(self._candidate.grpc, options=options)
        headers = self._candidate.headers(call)
        metadata = tuple((k, v) for k, v in headers.items() if k not in NOT_METADATA)
        try:
            await self._channel.unary_unary(MODEL_INFER)(
                self._candidate.target.message(call),
                timeout=self._candidate.timeout_seconds,
                metadata=metadata,
            )
        except aio.AioRpcError as error:
            return STATUS_BY_CODE.get(error.code().value[0], 500)
        except (ValueError, TypeError, aio.UsageError) as error:
            raise NotSendable("header that cannot be sent") from error
        return 200

    def _no_answer_in_time(self) -> str:
        return f"no answer within {self._candidate.timeout_seconds:g} s"


def _payload(body: bytes) -> bytes | BytesIO:
    """A large body as a file, which aiohttp sends in parts: nothing else waits for all of it."""
    return body if len(body) < LARGE_BYTES else BytesIO(body)


def parse_rate(text: str) -> float:
    """Calls per second from `50`, `50/s`, `600/m` or `10000/h`; SettingWrong otherwise."""
    match = RATE.fullmatch(text.strip().lower())
    if match and (rate := float(match[1]) / SECONDS[match[2]]) > 0:
        return rate
    raise SettingWrong(f"--rate is '{text}'; write calls per second, like 50/s.")


class Pace:
    """Says how long to wait before a call, in seconds on the caller's clock."""

    def __init__(self, rate: float | None, original_timing: bool) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._original_timing = original_timing
        self._next = 0.0
        self._start: tuple[float, datetime] | None = None

    def wait(self, request_time: datetime, now: float) -> float:
        """Seconds until this call is due; calling it counts the call as sent then.

        Time lost to a slow candidate is not made up by a burst: the rate is a ceiling.
        """
        due = max(self._next, now)
        if self._original_timing:
            started, first = self._start = self._start or (now, request_time)
            due = max(due, started + (request_time - first).total_seconds())
        self._next = due + self._gap
        return due - now
