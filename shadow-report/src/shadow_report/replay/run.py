"""The run itself: reads calls in order, sends each when it is due, and can stop at any moment.

aiohttp sends, not httpx: at equal concurrency it takes a quarter of the processor time, and the
candidate shares this machine in a demo or a test.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from shadow_report.errors import OneLineError
from shadow_report.replay.ledger import Ledger
from shadow_report.replay.pace import Pace
from shadow_report.replay.state import Counts, State, save
from shadow_report.replay.stored_calls import Selection, StoredCall, StoredCalls
from shadow_report.replay.target import Target, headers_of, why_not_sent

SAVE_SECONDS = 1.0

Progress = Callable[[Counts, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the calls go and how fast."""

    target: Target
    concurrency: int
    rate: float | None
    original_timing: bool
    timeout_seconds: float
    state_file: Path

    @property
    def unanswered_limit(self) -> int:
        """So many calls in a row without an answer mean that the candidate is down."""
        return max(10, 2 * self.concurrency)


class Run:
    """One replay. `stop` ends it after the calls that are under way; `go` may then be resumed."""

    def __init__(self, plan: Plan, state: State, show: Progress, *, resumed: bool = False) -> None:
        self._plan = plan
        self._resumed = resumed
        self._state = state
        self._show = show
        self._total = state.total
        self._stop = asyncio.Event()
        self._slots = asyncio.Semaphore(plan.concurrency)
        self._broken: BaseException | None = None
        self._no_answer: OneLineError | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._saved = time.monotonic()
        self.ledger = Ledger(state)

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()

    async def go(self, calls: StoredCalls) -> bool:
        """Send the calls; True when all were, False when it was stopped.

        The state file is there while this runs and after it was stopped. OneLineError when the
        candidate does not answer.
        """
        self._save()
        try:
            async with self._session() as session:
                await self._send_all(session, calls)
            if self._no_answer and not self.ledger.answered_pairs:
                raise self._no_answer
            if not self._stop.is_set():
                self.ledger.close()
        finally:
            self._save()
        if self._broken is not None:
            raise self._broken
        return not self._stop.is_set()

    async def _send_all(self, session: aiohttp.ClientSession, calls: StoredCalls) -> None:
        """Start a task per call, and return when the last has ended."""
        pace = Pace(self._plan.rate, self._plan.original_timing)
        try:
            async with aclosing(self._calls(calls)) as ordered:
                async for call in ordered:
                    if not await self._admit(call, pace):
                        break
                    task = asyncio.create_task(self._send(session, call))
                    self._sending.add(task)
                    task.add_done_callback(self._ended)
        except asyncio.CancelledError:
            for task in self._sending:
                task.cancel()
            raise
        finally:
            await asyncio.gather(*self._sending, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._broken = error
            self.stop()

    async def _calls(self, calls: StoredCalls) -> AsyncGenerator[StoredCall]:
        """The calls that can be sent and were not, in order; the others are counted."""
        state = self._state
        selection = Selection(
            state.primary, state.since, state.until, state.after_time, state.after_record
        )
        before = state.counts.done - len(state.done_beyond)
        async with aclosing(calls.portions(selection)) as portions:
            async for remaining, portion in portions:
                self._total = before + remaining
                # A run that was killed noted its last calls in the tables only.
                known = await calls.answered(portion, state.started) if self._resumed else {}
                for call in portion:
                    self.ledger.begin(call)
                    if self.ledger.was_done(call):
                        self.ledger.passed(call)
                    elif call.pair_id in known:
                        self.ledger.answered(call, known[call.pair_id])
                    elif reason := why_not_sent(call):
                        self.ledger.skipped(call, reason)
                    else:
                        yield call
                    self._note()

    async def _admit(self, call: StoredCall, pace: Pace) -> bool:
        """Wait until the call is due and there is room for it; False when stopped before."""
        await self._slots.acquire()
        due = time.monotonic()
        due += pace.wait(call.request_time, due)
        while (delay := due - time.monotonic()) > 0 and not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(delay, SAVE_SECONDS))
            self._note()
        return not self._stop.is_set()

    async def _send(self, session: aiohttp.ClientSession, call: StoredCall) -> None:
        """Post one call and count what came of it."""
        try:
            async with session.post(
                self._plan.target.url(call),
                data=call.body,
                headers=headers_of(call),
                allow_redirects=False,
            ) as response:
                async for _ in response.content.iter_any():
                    pass  # an answer that is read to its end leaves the connection usable
            self.ledger.answered(call, response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or f"no answer within {self._plan.timeout_seconds:g} s"
            self._no_answer = OneLineError(
                f"The candidate at {self._plan.target.base} does not answer: {what}; "
                "start it and go on with --resume."
            )
            if self.ledger.unanswered(call) >= self._plan.unanswered_limit:
                raise self._no_answer from error
        except ValueError:
            self.ledger.skipped(call, "header that cannot be sent")
        finally:
            self._slots.release()
            self._show(self.ledger.counts, self._total)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._plan.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._plan.timeout_seconds),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept-Encoding",),
        )

    def _note(self) -> None:
        """Show how far it is, and save it once a second."""
        self._show(self.ledger.counts, self._total)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        save(self.ledger.state(self._total), self._plan.state_file)
        self._saved = time.monotonic()
