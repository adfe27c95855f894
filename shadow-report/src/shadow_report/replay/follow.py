"""`shadow-report follow`: each new call of the primary to a candidate, soon after it was recorded.

All that a follower knows is in the tables: a call is done once they hold the candidate's answer to
it. So it may be killed at any moment, and goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from shadow_report import OneLineError, SettingWrong
from shadow_report.replay.calls import TRIAL_SECONDS, StoredCall, by_size
from shadow_report.replay.candidate import Candidate, Connection, NoAnswer, NotSendable, Pace
from shadow_report.replay.delivered import PAGE, DeliveredCalls, Key, Place, Window
from shadow_report.replay.metrics import Metrics, served

log = logging.getLogger("shadow_report.follow")

POLL_SECONDS = 0.25
# A row is seen when its transaction ends, and `created_at` is when that began. Nearly all take no
# time, and a transformer's delivery gives one 45 s: so far back goes each look, and now and then
# one.
OVERLAP = timedelta(seconds=5)
LONG_OVERLAP = timedelta(seconds=60)
LONG_LOOK_SECONDS = 15.0
# Without --since, no further back than this.
LOOK_BACK = timedelta(days=1)

# The candidate's rows are in the tables so long after its answers.
SETTLE_SECONDS = 2.0
# An answer whose row is not there by then went with the candidate's pod.
LOST_SECONDS = 120.0
# So long after its last caller a service may have become a shadow.
LAST_CALLER = timedelta(minutes=5)
# So often a call is sent to a candidate that is ready and gives no answer.
ATTEMPTS = 5
FIRST_PROBE_SECONDS, PROBE_SECONDS = 0.5, 5.0
# A gateway may have said this, and then nobody has recorded the call.
UNSURE = (404, 429, 501, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is followed: whose calls, of which time, where to and how fast."""

    candidate: Candidate
    primary: str | None = None
    shadow: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    share: tuple[int, int] = (1, 1)
    """This follower's number, from 1 on, and how many there are."""
    rate: float | None = None
    in_order: bool = False
    port: int | None = None


def parse_part(text: str) -> tuple[int, int]:
    """`2/3` for the second of three followers; SettingWrong otherwise."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text.strip())
    if match and 1 <= int(match[1]) <= int(match[2]):
        return int(match[1]), int(match[2])
    raise SettingWrong(f"--share is '{text}'; write 1/3, 2/3 and 3/3 for three followers.")


@dataclass(slots=True)
class Unconfirmed:
    """A call that the candidate took and whose row, or its end, is not in the tables yet."""

    key: Key
    taken_at: float
    lost_at: float
    look_at: float
    was_lost: bool
    """Whether this is its second time, since the first one's row never came."""


class Follower:
    """Follows until it is stopped, or until all calls before the plan's end are done."""

    def __init__(self, uri: str, plan: Plan, connection: Connection) -> None:
        self._plan = plan
        self._connection = connection
        self.metrics = Metrics(
            plan.candidate.target.base, self.lag_seconds, lambda: len(self._open)
        )
        # A connection for each of the loops, so that none waits for another's question.
        was_read = asyncio.Event()
        self._news, self._past, self._checks = (
            DeliveredCalls(uri, self.metrics.database, was_read) for _ in range(3)
        )
        self._stop = asyncio.Event()
        self._room = asyncio.Semaphore(1 if plan.in_order else plan.candidate.concurrency)
        self._pace = Pace(plan.rate, original_timing=False)
        self._loops: set[asyncio.Task[object]] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._outage: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None
        # By pair id: of calls with one pair id, one is sent.
        self._open: dict[str, Key] = {}
        self.unconfirmed: dict[str, Unconfirmed] = {}
        # Until it is seen, by one of the calls tried, that the candidate records as a shadow.
        self._on_trial, self._tried = True, set[str]()
        self._began: datetime
        self._seen: dict[UUID, datetime] = {}
        self._names: dict[str, str] = {}
        self._window: Window
        self._read_at: tuple[datetime, float] | None = None

    def stop(self) -> None:
        """Send nothing more; calls under way end."""
        self._stop.set()

    def lag_seconds(self) -> float:
        """Age in the tables of the oldest call without an answer; of the last look, if that is
        older: what came since is not known.
        """
        if self._read_at is None:
            return 0.0
        now, at = self._read_at
        since_look = time.monotonic() - at
        oldest = min((key.created_at for key in self._open.values()), default=None)
        if oldest is not None:
            return max(0.0, (now - oldest).total_seconds() + since_look)
        return since_look if since_look > 4 * POLL_SECONDS else 0.0

    async def run(self) -> None:
        """Follow; OneLineError when that can never succeed."""
        self._start(self._confirm())
        self._start(self._follow())
        await self._stop.wait()
        # Calls under way end by themselves. What else waits, for a database that is away perhaps,
        # would wait on.
        if self._sending:
            await asyncio.wait(self._sending, timeout=self._plan.candidate.timeout_seconds)
        left = {*self._loops, *self._sending}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for tables in (self._news, self._past, self._checks):
            await tables.close()
        if self._fault is not None:
            raise self._fault

    async def _follow(self) -> None:
        # Answers to a follower before this one are still on their way into the tables.
        await self._pause(SETTLE_SECONDS)
        await self._read(await self._begin())
        while not self._stop.is_set() and (self._open or self.unconfirmed):
            await self._pause(POLL_SECONDS)
        self.stop()

    def _start(self, loop: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.create_task(loop)
        self._loops.add(task)
        task.add_done_callback(self._ended)
        return task

    async def _begin(self) -> datetime:
        """The server's time; and from where on calls are followed."""
        plan, now = self._plan, await self._look_at_clock()
        self._began = now
        if plan.shadow and await self._past.answering(now - LAST_CALLER) == plan.shadow:
            raise OneLineError(
                f"{plan.shadow} answers callers: the newest call of a primary in the tables is its "
                "own, and it would record as primary what it is sent, so nothing is. Follow it "
                f"once it is the shadow, from another's newer call on, or after "
                f"{LAST_CALLER // timedelta(minutes=1)} minutes without any."
            )
        since = plan.since
        if since is None:
            since = await self._past.began(plan.shadow, now - LOOK_BACK) or now
        self._window = Window(plan.primary, since, plan.until)
        log.info("Following calls from %s on.", since.isoformat(timespec="seconds"))
        return now

    async def _look_at_clock(self) -> datetime:
        now = await self._news.now()
        self._read_at = (now, time.monotonic())
        return now

    async def _read(self, now: datetime) -> None:
        """Read the past and the news at once, so that a restart delays no new call; in order, one
        after the other.
        """
        # Rows are delivered after their calls came, but for clocks that differ.
        oldest = self._window.since - LONG_OVERLAP
        if self._window.until is not None and self._window.until <= now:
            await self._look(self._past, oldest, now)
            return
        border = now - LONG_OVERLAP
        if self._plan.in_order:
            await self._look(self._past, oldest, border)
            await self._read_news(border)
            return
        past = self._start(self._look(self._past, oldest, border))
        await self._read_news(border)
        await past

    async def _read_news(self, start: datetime) -> None:
        """Look again and again, from a little before the last look on."""
        until, long_look = self._window.until, time.monotonic()
        while not self._stop.is_set():
            now = await self._look_at_clock()
            start = await self._look(self._news, start, None)
            if until is not None and now > until + LONG_OVERLAP:
                return
            if time.monotonic() - long_look > LONG_LOOK_SECONDS:
                long_look = time.monotonic()
                start = min(start, now - LONG_OVERLAP)
                self._seen = {record: at for record, at in self._seen.items() if at >= start}
            await self._pause(POLL_SECONDS)

    async def _look(
        self, tables: DeliveredCalls, start: datetime, before: datetime | None
    ) -> datetime:
        """Take what was delivered from `start` on; from where the next look has to start."""
        place, next_start = Place(start), None
        while not self._stop.is_set():
            # Asked first: what is committed later than this is later than `now`, or within OVERLAP.
            now = await tables.now()
            keys = await tables.page(place, before, self._window)
            at_end = len(keys) < PAGE
            if next_start is None and (at_end or keys[-1].created_at > now - OVERLAP):
                next_start = now - OVERLAP
            await self._take(tables, keys if before else self._unseen(keys, now - LONG_OVERLAP))
            if at_end:
                break
            place = Place(keys[-1].created_at, keys[-1].record_id)
        return max(start, next_start or start)

    def _unseen(self, keys: Sequence[Key], again_from: datetime) -> list[Key]:
        """Those that no earlier look at the news has seen.

        What was delivered before `again_from` is not looked at again, and need not be remembered:
        after an outage of the candidate that may be a day's calls.
        """
        unseen = [key for key in keys if key.record_id not in self._seen]
        self._seen |= {k.record_id: k.created_at for k in unseen if k.created_at >= again_from}
        return unseen

    async def _take(self, tables: DeliveredCalls, keys: Sequence[Key]) -> None:
        """Send those of these calls that are ours, new, and without the candidate's answer."""
        fresh: dict[str, Key] = {}
        for key in keys:
            self._only("primary", key.inference_service, self._plan.primary)
            known = key.pair_id in self._open or key.pair_id in self.unconfirmed
            if not known and self._is_ours(key.pair_id):
                fresh.setdefault(key.pair_id, key)
        if not fresh:
            return
        self._open |= fresh
        recorded = await self._recorded(tables, list(fresh.values()))
        for pair_id, ended in recorded.items():
            key = self._open.pop(pair_id)
            if not ended:
                # A call of an earlier follower, under way, or ended with the candidate.
                self._await_record(key, self._plan.candidate.timeout_seconds)
        wanted = [key for pair_id, key in fresh.items() if pair_id not in recorded]
        for portion in by_size(wanted, lambda key: key.request_size):
            await self._send_all(tables, portion)

    async def _recorded(self, tables: DeliveredCalls, keys: Sequence[Key]) -> dict[str, bool]:
        """Which of these pairs the candidate has recorded, and whether the call has ended."""
        found: dict[str, bool] = {}
        for row in await tables.shadowed(keys, self._plan.shadow, self._began):
            self._only("shadow", row.inference_service, self._plan.shadow)
            found[row.pair_id] = row.ended or found.get(row.pair_id, False)
        return found

    def _is_ours(self, pair_id: str) -> bool:
        number, followers = self._plan.share
        digest = sha256(pair_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") % followers == number - 1

    def _only(self, role: str, service: str, wanted: str | None) -> None:
        """Refuse a second service of a role where none was chosen."""
        if wanted is None and self._names.setdefault(role, service) != service:
            raise OneLineError(
                f"Several services have calls as {role}; choose one with --{role}: "
                f"{self._names[role]} or {service}."
            )

    async def _send_all(
        self, tables: DeliveredCalls, keys: Sequence[Key], *, was_lost: bool = False
    ) -> None:
        """Read the bodies of these calls, and start a task for each as soon as it may go."""
        calls = {call.record_id: call for call in await tables.calls(keys)}
        for key in keys:
            call = calls.get(key.record_id)
            reason = "dropped by retention" if call is None else call.withheld
            if call is None or reason is not None:
                self._skip(key, reason or "")
                continue
            await self._room.acquire()
            due = time.monotonic()
            due += self._pace.wait(key.request_time, due)
            await self._pause(due - time.monotonic())
            if self._stop.is_set():
                self._room.release()
                return
            task = asyncio.create_task(self._send(call, key, was_lost))
            self._sending.add(task)
            task.add_done_callback(self._ended)
            # One that was lost is sent by the loop which looks for records.
            if self._on_trial and not was_lost:
                await self._try(task, key)

    async def _try(self, task: asyncio.Task[None], key: Key) -> None:
        """Hold the next calls back until this one's record is seen: one that was promoted would
        have a night's calls before the first is looked for.

        A call that is skipped or given up says nothing, and the next one is tried.
        """
        self._tried.add(key.pair_id)
        waited = 0.0
        while not self._stop.is_set() and (not task.done() or key.pair_id in self.unconfirmed):
            await self._pause(POLL_SECONDS)
            waited += POLL_SECONDS if self._outage is None else 0.0
            if waited >= TRIAL_SECONDS:
                self._on_trial = False  # each record is looked at anyway
                return

    async def _send(self, call: StoredCall, key: Key, was_lost: bool) -> None:
        """Send one call until it is answered, or until a candidate that is ready will not."""
        try:
            for _ in range(ATTEMPTS):
                if self._outage is not None:
                    await asyncio.shield(self._outage)
                if self._stop.is_set():
                    return
                try:
                    status = await self._connection.send(call)
                    why = f"status {status}"
                except NoAnswer as error:
                    status, why = 0, str(error)
                if status and status not in UNSURE:
                    self._done(key, status, was_lost)
                    return
                await self._until_ready(call.model_name, why)
                if self._stop.is_set():
                    return
                # It may have been answered all the same, and the answer was lost on its way.
                if (await self._recorded(self._checks, [key])).get(key.pair_id):
                    self._done(key, status or 200, was_lost)
                    return
            del self._open[key.pair_id]
            why = f"no answer {ATTEMPTS} times, {why}"
            self.metrics.given_up("unanswered", key.pair_id, key.request_time, why)
        except NotSendable as reason:
            self._skip(key, str(reason))
        finally:
            self._room.release()

    def _done(self, key: Key, status: int, was_lost: bool) -> None:
        del self._open[key.pair_id]
        if not was_lost:
            self.metrics.sent(status)
        self._await_record(key, LOST_SECONDS, was_lost)

    def _skip(self, key: Key, reason: str) -> None:
        del self._open[key.pair_id]
        self.metrics.skipped(key.pair_id, key.request_time, reason)

    async def _until_ready(self, model: str, why: str) -> None:
        """Wait until the candidate says that it takes calls, and has delivered what it recorded.

        While it does not, all calls wait.
        """
        if self._outage is None and not await self._connection.is_ready(model):
            # Another call may have asked meanwhile.
            self._outage = self._outage or asyncio.create_task(self._wait_out(model, why))
        if self._outage is not None:
            await asyncio.shield(self._outage)
        await self._pause(SETTLE_SECONDS)

    async def _wait_out(self, model: str, why: str) -> None:
        self.metrics.candidate_down(why)
        delay = FIRST_PROBE_SECONDS
        while not self._stop.is_set() and not await self._connection.is_ready(model):
            await self._pause(delay)
            delay = min(PROBE_SECONDS, 2 * delay)
        self.metrics.candidate_up()
        self._outage = None

    def _await_record(self, key: Key, seconds: float, was_lost: bool = False) -> None:
        """Look for the candidate's row from now on, and call it lost after so many seconds."""
        now = time.monotonic()
        self.unconfirmed[key.pair_id] = Unconfirmed(
            key, now, now + seconds, now + SETTLE_SECONDS, was_lost
        )

    async def _confirm(self) -> None:
        """See each answer arrive in the tables; one that is lost is asked for once more."""
        while not self._stop.is_set():
            await self._pause(SETTLE_SECONDS / 2)
            now = time.monotonic()
            due = [item for item in self.unconfirmed.values() if item.look_at <= now]
            for start in range(0, len(due), PAGE):
                await self._look_for(due[start : start + PAGE])

    async def _look_for(self, due: list[Unconfirmed]) -> None:
        recorded = await self._recorded(self._checks, [item.key for item in due])
        now = time.monotonic()
        for item in due:
            pair_id = item.key.pair_id
            if recorded.get(pair_id):
                del self.unconfirmed[pair_id]
                self._on_trial = self._on_trial and pair_id not in self._tried
            elif now < item.lost_at:
                # Less and less often: a delivery that is stuck costs few questions.
                item.look_at = now + max(SETTLE_SECONDS, (now - item.taken_at) / 2)
            else:
                del self.unconfirmed[pair_id]
                await self._recover(item)

    async def _recover(self, item: Unconfirmed) -> None:
        """Send a call again whose record was lost; but once, lest it go on forever."""
        key = item.key
        if item.was_lost:
            why = (
                "the candidate answers, and no record comes; its transformer has to record in this "
                "database, with SHADOW_ROLE=shadow and the primary's RECORD_SAMPLE. Once it does, "
                "a follower that is started anew sends the call again"
            )
            self.metrics.given_up("unrecorded", key.pair_id, key.request_time, why)
            return
        self._open[key.pair_id] = key
        await self._send_all(self._checks, [key], was_lost=True)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless it is time to stop.

        Before Python 3.12 a wait that ends in the moment of its cancellation swallows that, so
        every loop asks for the stop as well.
        """
        if seconds > 0 and not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)

    def _ended(self, task: asyncio.Task[object]) -> None:
        """The end of one of our tasks: a fault of any ends the follower."""
        self._sending.discard(task)
        self._loops.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = self._fault or fault
            self._stop.set()


async def follow(uri: str, plan: Plan) -> str:
    """Follow until SIGINT or SIGTERM, or to the plan's end; what became of the calls."""
    async with Connection(plan.candidate) as connection:
        follower = Follower(uri, plan, connection)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, follower.stop)
        async with served(follower.metrics, plan.port):
            await follower.run()
    return follower.metrics.summary()
