"""The hop to the predictor: what both protocols share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from minimal_transformer.exchange import Answer, Arrival, RawHeaders, Stream, header_text
from minimal_transformer.logs import QUIET_SECONDS, Episode, Pace
from minimal_transformer.settings import OF_ONE_HOP, SHADOW_HEADER, HeaderRules, PredictorSettings

log = logging.getLogger(__name__)

READY_SECONDS = 2.0
FRESH_SECONDS = 1.0
REASON_CHARACTERS = 200

_LOOK = "check --predictor_host and that the predictor runs"
_NO_HOST = ("no such host", _LOOK)
_REFUSED = ("refused", _LOOK)
_TOO_LONG = ("it does not answer a connect", _LOOK)
_UNTRUSTED = (
    "its certificate is not trusted",
    "have REQUESTS_CA_BUNDLE name the certificate of its authority",
)
_NO_TLS = ("no TLS", "check --predictor_use_ssl and --predictor_host")
# From the messages of aiohttp, gRPC and the system to what they mean.
_MEANINGS = {
    "Connection refused": _REFUSED,
    "Connect call failed": _REFUSED,
    "Name or service not known": _NO_HOST,
    "No address associated": _NO_HOST,
    "name resolution": _NO_HOST,
    "lookup": _NO_HOST,
    "DNS": _NO_HOST,
    "timeout": _TOO_LONG,
    "timed out": _TOO_LONG,
    "CERTIFICATE_VERIFY_FAILED": _UNTRUSTED,
    "SSL": _NO_TLS,
    "Ssl": _NO_TLS,
}


class Predictor(Protocol):
    """The model behind this transformer, over whichever protocol it speaks."""

    async def open(self) -> None:
        """Open the connections of this process; call it on the loop that will serve."""

    async def close(self) -> None:
        """Close the connections of this process."""

    async def forward(self, arrival: Arrival) -> Answer | Stream:
        """The predictor's answer to a call, or the answer that says why there is none.

        Who gets a Stream must close it.
        """

    async def metadata(self, version: str) -> Answer:
        """What the predictor says about its model, or that version of it, in v2's form."""

    async def is_ready(self) -> bool:
        """Whether the predictor says that its model is ready; never raises."""


def to_predictor(headers: Mapping[str, str], settings: PredictorSettings) -> dict[str, str]:
    """The caller's headers (lower-case names) that the predictor may see, and the shadow's mark.

    Clients write UTF-8, so a value whose bytes are that becomes text, and the same bytes again.
    """
    rules = settings.headers
    exact, prefixes = rules.forwarded, rules.forwarded_prefixes
    passed = {
        name: value if value.isascii() else header_text(value)
        for name, value in headers.items()
        if name in exact or (name.startswith(prefixes) and name not in OF_ONE_HOP)
    }
    if settings.is_shadow:
        passed[SHADOW_HEADER] = "true"
    return passed


def to_caller(headers: Iterable[tuple[bytes, bytes]], rules: HeaderRules) -> RawHeaders:
    """The predictor's headers that the caller may see, with lower-case names."""
    passed: RawHeaders = []
    for name, value in headers:
        lower = name.lower()
        if lower in rules.returned or (
            lower.startswith(rules.returned_prefixes) and lower.decode("latin-1") not in OF_ONE_HOP
        ):
            passed.append((lower, value))
    return passed


class Unreachable(Episode):
    """One log line when the predictor is lost and one when it answers again, in each process."""

    def __init__(self, host: str | None) -> None:
        self._host = host
        named = str(host).replace("%", "%%")
        super().__init__(log, f"predictor {named} answers again; it was unreachable %d times.")

    def met(self, failure: str) -> None:
        """A call or a probe found no predictor; `failure` is the client library's message."""
        reason, remedy = next(
            (meaning for words, meaning in _MEANINGS.items() if words in failure), (failure, _LOOK)
        )
        self.hit(
            f"predictor {self._host} is unreachable ({reason}), calls are answered 503; {remedy}."
        )


class Failing:
    """Logs runs of calls that the predictor fails, in each process: a line at the first, at most
    one a minute with how many and the last one's reason, and one when it answers again.

    Calls that find no predictor are Unreachable's. `quotes`: the line may have its words.
    """

    def __init__(self, host: str | None, quotes: bool) -> None:
        self._host = host
        self._quotes = quotes
        self._pace = Pace()
        self._count = 0
        self._last = float("-inf")
        self._is_logged = False

    def saw(self, answer: Answer | Stream) -> None:
        """A call has this answer, of the predictor's own or for want of one."""
        if answer.status < 500:
            if self._count:
                self._passed()
            return
        self._last = time.monotonic()
        self._count += 1
        if not (unlogged := self._pace.hit()):
            return
        calls = "a call" if unlogged == 1 else f"{unlogged} calls, the last"
        reason = _reason(answer, self._quotes) if isinstance(answer, Answer) else ""
        log.warning(
            "predictor %s failed %s with %d%s; its own log may say why.",
            *(self._host, calls, answer.status, reason),
        )
        self._is_logged = True

    def _passed(self) -> None:
        """A call succeeded; a run is over once none has failed for a second."""
        if time.monotonic() - self._last <= QUIET_SECONDS:
            return
        # A run that began and ended within a minute of the last line is counted in the next one.
        if self._is_logged or self._pace.is_due:
            log.info("predictor %s answers again; calls that failed: %d.", self._host, self._count)
            self._pace.forget()
            self._count, self._is_logged = 0, False


def _reason(answer: Answer, quotes: bool) -> str:
    """What a failed answer says, as part of a line; nothing where it may quote redacted data."""
    if answer.error is None or (answer.quotes and not quotes):
        return ""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(answer.error.split()))
    return f": {text}" if len(text) <= REASON_CHARACTERS else f": {text[:REASON_CHARACTERS]}…"


class NotThere:
    """Logs calls of OpenAI's API that the predictor answers with 404, in each process: a line at
    the first, then at most one a minute with how many, the path that was asked and what sets it.
    """

    def __init__(self, host: str | None, prefix: str, quotes: bool) -> None:
        self._host = host
        self._prefix = prefix
        self._quotes = quotes
        self._pace = Pace()

    def saw(self, path: str, answer: Answer) -> None:
        """The predictor's answer to a call at this path of its own."""
        if answer.status != 404 or not (unlogged := self._pace.hit()):
            return
        calls = "a call" if unlogged == 1 else f"{unlogged} calls, the last one"
        log.warning(
            "predictor %s answered %s at %s with 404%s; if it has OpenAI's API elsewhere, set "
            "OPENAI_PREDICTOR_PREFIX, which is %r (a plain vLLM's is empty), else look at the "
            "call's model.",
            *(self._host, calls, path, _reason(answer, self._quotes), self._prefix),
        )


class UnknownModel(Episode):
    """One log line when the predictor serves no model of that name, one when it does."""

    def __init__(self, host: str | None, model_name: str) -> None:
        self._what = f"predictor {host} {{}} model {model_name!r}"
        known = self._what.format("knows").replace("%", "%%")
        super().__init__(log, f"{known} now; %d probes failed.")

    def met(self, other_protocol: str | None = None) -> None:
        """A probe's answer was that; over another protocol it knows the model, if one is named."""
        remedy = (
            "set --model_name to the name that the predictor serves, or, for one without KServe's"
            " paths, PREDICTOR_READY_PATH to a path that it answers with 200"
        )
        if other_protocol is not None:
            remedy = f"it does over {other_protocol}: set --predictor_protocol {other_protocol}"
        self.hit(f"{self._what.format('does not know')}, so this pod is not ready; {remedy}.")


class Readiness:
    """The predictor's readiness, at most a second old; probes that come at once share one check."""

    def __init__(self, check: Callable[[], Awaitable[bool]]) -> None:
        self._check = check
        self._known = False
        self._checked_at = float("-inf")
        self._running: asyncio.Task[bool] | None = None

    async def is_ready(self) -> bool:
        """Whether the predictor was ready within the last second."""
        if time.monotonic() - self._checked_at < FRESH_SECONDS:
            return self._known
        if self._running is None:
            self._running = asyncio.create_task(self._refresh())
        # A probe that gives up does not take the answer from the others.
        return await asyncio.shield(self._running)

    async def _refresh(self) -> bool:
        try:
            self._known = await self._check()
            self._checked_at = time.monotonic()
            return self._known
        finally:
            self._running = None
