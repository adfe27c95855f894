"""One replay: when a call is due, what became of it, where to go on, and the comparison after."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from rich.console import Console

from shadow_report import INTERRUPTED, OneLineError, SettingWrong
from shadow_report.compare import compare, noise_floor
from shadow_report.judging.rates import MEASURED_REQUESTS
from shadow_report.judging.verdict import Verdict
from shadow_report.output import print_report, progress_bar
from shadow_report.output.files import replace_file
from shadow_report.replay.calls import (
    TRIAL_SECONDS,
    Selection,
    StoredCall,
    StoredCalls,
    Target,
    only_primary,
    open_stored_calls,
)
from shadow_report.replay.candidate import Candidate, Connection, NoAnswer, NotSendable, Pace
from shadow_report.settings import Comparison
from shadow_report.wording import counted, percent, percent_range

VERSION = 1


@dataclass(slots=True)
class SentCounts:
    """What became of the calls so far."""

    answered: int = 0
    failed: int = 0
    """Answered with a status from 400 on; these are records like any other."""
    unanswered: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.answered + self.unanswered + sum(self.skipped.values())


@dataclass(frozen=True, slots=True)
class State:
    """A replay: what is sent where, since when, and how far it got.

    `after_time` and `after_record` are the last call before which all are done; `done_beyond` are
    the few after it that are done too, since calls end out of order.
    """

    to: str
    primary: str
    since: datetime | None
    until: datetime | None
    started: datetime
    total: int = 0
    after_time: datetime | None = None
    after_record: UUID | None = None
    done_beyond: tuple[UUID, ...] = ()
    counts: SentCounts = field(default_factory=SentCounts)


def save(state: State, file: Path) -> None:
    """Write the state in one step."""
    try:
        replace_file(file, orjson.dumps({"version": VERSION, **asdict(state)}))
    except OSError as error:
        raise OneLineError(
            f"Cannot write the replay's state to {file} ({error.strerror}); "
            "name a writable file with --state."
        ) from error


def load(file: Path) -> State:
    """The state of an unfinished replay."""
    try:
        stored = orjson.loads(file.read_bytes())
        if stored.pop("version") != VERSION:
            raise ValueError("another version")
        return TypeAdapter(State).validate_python(stored)
    except FileNotFoundError as error:
        raise OneLineError(
            f"There is no unfinished replay in {file}; start one without --resume."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = str(error).partition("\n")[0]
        raise OneLineError(
            f"{file} is not the state of a replay ({what}); delete it and start anew."
        ) from error


# The last pairs that got an answer: when their records are in the tables, so are the earlier ones.
TAIL = 200


class Journal:
    """Counts calls as they end, in any order, and knows up to where all of them are done.

    A call without an answer counts as done only once another call is answered after it: until then
    the candidate may be down, and a resumed replay sends it again.
    """

    def __init__(self, state: State) -> None:
        self._start = state
        self._open: dict[UUID, datetime] = {}
        self._done: set[UUID] = set(state.done_beyond)
        self._doubtful: set[UUID] = set()
        self._mark: tuple[datetime | None, UUID | None] = (state.after_time, state.after_record)
        self.counts = replace(state.counts, skipped=dict(state.counts.skipped))
        self.answered_pairs: deque[str] = deque(maxlen=TAIL)

    def was_done(self, call: StoredCall) -> bool:
        """Whether an earlier run finished this call beyond the mark."""
        return call.record_id in self._done

    def begin(self, call: StoredCall) -> None:
        """Note a call in the original order, before it is sent or skipped."""
        self._open[call.record_id] = call.request_time

    def answered(self, call: StoredCall, status: int) -> None:
        self.counts.answered += 1
        self.counts.failed += status >= 400
        self.answered_pairs.append(call.pair_id)
        self.counts.unanswered += len(self._doubtful)
        self._done |= self._doubtful | {call.record_id}
        self._doubtful.clear()
        self._advance()

    def unanswered(self, call: StoredCall) -> int:
        """Note a call without an answer; how many there were in a row."""
        self._doubtful.add(call.record_id)
        return len(self._doubtful)

    def skipped(self, call: StoredCall, reason: str) -> None:
        self.counts.skipped[reason] = self.counts.skipped.get(reason, 0) + 1
        self._done.add(call.record_id)
        self._advance()

    def passed(self, call: StoredCall) -> None:
        """Note a call that an earlier run did: it is counted already."""
        self._advance()

    def close(self) -> None:
        """Nothing more comes: calls still in doubt are calls without an answer."""
        self.counts.unanswered += len(self._doubtful)
        self._done |= self._doubtful
        self._doubtful.clear()
        self._advance()

    def state(self, total: int) -> State:
        """The replay as a state to go on from."""
        return replace(
            self._start,
            total=total,
            after_time=self._mark[0],
            after_record=self._mark[1],
            done_beyond=tuple(sorted(self._done)),
            counts=self.counts,
        )

    def _advance(self) -> None:
        """Move the mark over the calls that are done, in the original order."""
        while self._open:
            record_id = next(iter(self._open))
            if record_id not in self._done:
                return
            self._mark = (self._open.pop(record_id), record_id)
            self._done.discard(record_id)


SAVE_SECONDS = 1.0
LOOK_SECONDS = 0.5

# Called with calls done, calls of the whole replay, and how many failed.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which calls are sent, where they go and how fast."""

    candidate: Candidate
    rate: float | None
    original_timing: bool
    state_file: Path
    primary: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    resume: bool = False

    @property
    def target(self) -> Target:
        return self.candidate.target

    @property
    def unanswered_limit(self) -> int:
        """So many calls in a row without an answer mean that the candidate is down."""
        return max(10, 2 * self.candidate.concurrency)


class Run:
    """One replay. `stop` ends it after the calls that are under way; `go` may then be resumed."""

    def __init__(self, plan: Plan, state: State, show: Progress, *, resumed: bool = False) -> None:
        self._plan = plan
        self._resumed = resumed
        self._state = state
        self._show = show
        self._total = state.total
        self._stop = asyncio.Event()
        self._room = asyncio.Semaphore(plan.candidate.concurrency)
        self._broken: BaseException | None = None
        self._no_answer: OneLineError | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._saved = time.monotonic()
        # Of this run alone: until one is seen to be recorded as a shadow's, calls go one by one.
        self._answered: deque[str] = deque(maxlen=TAIL)
        self._on_trial = not plan.candidate.is_primary
        self._all_sent = asyncio.Event()
        self.journal = Journal(state)

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
            async with Connection(self._plan.candidate) as connection:
                watching = asyncio.create_task(self._watch(calls))
                watching.add_done_callback(self._ended)
                try:
                    await self._send_all(connection, calls)
                    # Not cancelled in a question, which would break the connection for the next.
                    self._all_sent.set()
                    await asyncio.wait({watching})
                finally:
                    watching.cancel()
            if self._no_answer and not self.journal.answered_pairs:
                raise self._no_answer
            if not self._stop.is_set():
                self.journal.close()
        finally:
            self._save()
        if self._broken is not None:
            raise self._broken
        return not self._stop.is_set()

    async def _send_all(self, connection: Connection, calls: StoredCalls) -> None:
        """Start a task per call, and return when the last has ended."""
        pace = Pace(self._plan.rate, self._plan.original_timing)
        try:
            async with aclosing(self._calls(calls)) as ordered:
                async for call in ordered:
                    if not await self._admit(call, pace):
                        break
                    task = asyncio.create_task(self._send(connection, call))
                    self._sending.add(task)
                    task.add_done_callback(self._ended)
                    if self._on_trial:
                        await self._try(task, call)
        except asyncio.CancelledError:
            for task in self._sending:
                task.cancel()
            raise
        finally:
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def _try(self, task: asyncio.Task[None], call: StoredCall) -> None:
        """Hold the next calls back until this one's record is seen, or does not come."""
        await asyncio.wait({task}, timeout=TRIAL_SECONDS)
        if task.done() and call.pair_id not in self._answered:
            return  # it was skipped or got no answer, and the next one is tried
        waited = 0.0
        while self._on_trial and not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_SECONDS)
            waited += LOOK_SECONDS
            self._on_trial = self._on_trial and waited < TRIAL_SECONDS

    async def _watch(self, calls: StoredCalls) -> None:
        """End the run once a call is recorded as a primary's: the candidate has been promoted."""
        while not (self._plan.candidate.is_primary or self._all_sent.is_set()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_sent.wait(), LOOK_SECONDS)
            sent = list(self._answered)
            if sent and await calls.shadowed(sent, self._state.primary, self._state.started):
                self._on_trial = False

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
                known: dict[str, int] = {}
                if self._resumed:
                    prefix = self._plan.candidate.prefix
                    known = await calls.answered(portion, state.started, prefix)
                for call in portion:
                    self.journal.begin(call)
                    if self.journal.was_done(call):
                        self.journal.passed(call)
                    elif call.pair_id in known:
                        self.journal.answered(call, known[call.pair_id])
                    elif call.withheld:
                        self.journal.skipped(call, call.withheld)
                    else:
                        yield call
                    self._note()

    async def _admit(self, call: StoredCall, pace: Pace) -> bool:
        """Wait until the call is due and there is room for it; False when stopped before."""
        await self._room.acquire()
        due = time.monotonic()
        due += pace.wait(call.request_time, due)
        while (delay := due - time.monotonic()) > 0 and not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(delay, SAVE_SECONDS))
            self._note()
        return not self._stop.is_set()

    async def _send(self, connection: Connection, call: StoredCall) -> None:
        """Send one call and count what came of it."""
        try:
            self.journal.answered(call, await connection.send(call))
            self._answered.append(call.pair_id)
        except NoAnswer as error:
            self._no_answer = OneLineError(
                f"The candidate at {self._plan.target.base} does not answer: {error}; "
                f"start it and go on with --resume. Where --to is wrong, delete "
                f"{self._plan.state_file} first."
            )
            if self.journal.unanswered(call) >= self._plan.unanswered_limit:
                raise self._no_answer from error
        except NotSendable as reason:
            self.journal.skipped(call, str(reason))
        finally:
            self._room.release()
            self._report()

    def _note(self) -> None:
        """Show how far it is, and save it once a second."""
        self._report()
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _report(self) -> None:
        counts = self.journal.counts
        failed = counts.failed + counts.unanswered
        self._show(counts.done, self._total, f"{failed:,} failed" if failed else "")

    def _save(self) -> None:
        save(self.journal.state(self._total), self._plan.state_file)
        self._saved = time.monotonic()


# Transformers write a second or so behind; after a database's pause it takes longer.
RECORDS_SECONDS = 30.0


async def wait_for_records(
    calls: StoredCalls, journal: Journal, started: datetime, console: Console, prefix: str = ""
) -> str | None:
    """The candidate's InferenceService, as its records name it; None when it recorded nothing.

    Waits until the last pairs that were answered are recorded, as long as more of them arrive.
    """
    expected = list(dict.fromkeys(journal.answered_pairs))
    most, shadow = 0, None
    waited = 0.0
    while expected and waited < RECORDS_SECONDS:
        recorded = await calls.recorded(expected, started, prefix)
        if recorded:
            shadow = next(iter(recorded))
            if recorded[shadow] >= len(expected):
                return shadow
            waited = 0.0 if recorded[shadow] > most else waited
            most = recorded[shadow]
        await asyncio.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
    if expected:
        console.print(
            f"Of the last {len(expected):,} pairs {most:,} are in the tables after "
            f"{RECORDS_SECONDS:g} s. Does the candidate's transformer record to this database, "
            f"with SHADOW_ROLE={'primary' if prefix else 'shadow'}?",
            style="yellow",
            highlight=False,
        )
    return shadow


def compare_run(uri: str, state: State, shadow: str | None) -> int:
    """Print the comparison of this run, and return its exit code."""
    settings = Comparison(
        primary=state.primary,
        shadow=shadow,
        since=state.since,
        until=state.until,
        shadow_since=state.started,
        settle=timedelta(0),
    )
    report = compare(uri, settings)
    print_report(report, Console())
    return Verdict(report.verdict).exit_code


def print_noise(uri: str, state: State) -> int:
    """Print how often the primary differs from itself, and what to do with that."""
    settings = Comparison(primary=state.primary, since=state.since, until=state.until)
    found = noise_floor(uri, settings)
    if found is None:
        raise OneLineError(
            f"None of the answers of {state.primary} to its own calls can be compared; is --to its "
            "transformer, with the same MODEL_VERSION and SHADOW_ROLE=primary?"
        )
    use = "--noise-floor auto"
    use = f'shadow-report compare {use}, or make report ARGS="{use}", judges what exceeds that'
    if found.repeated_requests < MEASURED_REQUESTS:
        use = f"{use}, from {MEASURED_REQUESTS} different requests on"
    print(
        f"{state.primary} differs from itself in {percent(found.share)} of "
        f"{counted(found.comparisons, 'answer')} ({percent_range(found.interval)}). {use}."
    )
    return 0


async def replay(uri: str, plan: Plan) -> int:
    """Run the replay and the comparison; the exit code."""
    console = Console(stderr=True)
    async with open_stored_calls(uri) as calls:
        state = await state_of(calls, plan)
        with progress_bar("replaying", console) as show:
            run = Run(plan, state, show, resumed=plan.resume)
            finished = await until_stopped(run, calls)
        console.print(summary(run.journal.counts), highlight=False, soft_wrap=True)
        if not finished:
            console.print(
                f"Stopped. Go on with: shadow-report replay --to {plan.target.base} --resume "
                f"{'--itself ' * plan.candidate.is_primary}--state {plan.state_file}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            return INTERRUPTED
        plan.state_file.unlink(missing_ok=True)
        prefix = plan.candidate.prefix
        shadow = await wait_for_records(calls, run.journal, state.started, console, prefix)
    if plan.candidate.is_primary:
        return print_noise(uri, state)
    return compare_run(uri, state, shadow)


async def until_stopped(run: Run, calls: StoredCalls) -> bool:
    """Run; the first SIGINT or SIGTERM lets the calls under way end, the second gives them up."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    going = asyncio.ensure_future(run.go(calls))
    signals = 0

    def interrupt() -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            run.stop()
        else:
            going.cancel()

    for number in before:
        loop.add_signal_handler(number, interrupt)
    try:
        return await going
    except asyncio.CancelledError:
        return False
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def state_of(calls: StoredCalls, plan: Plan) -> State:
    """A new replay, or the stopped one when it is of the same candidate."""
    if plan.resume:
        state = load(plan.state_file)
        if state.to != plan.target.base:
            raise SettingWrong(
                f"--to is {plan.target.base}, but the replay in {plan.state_file} goes to "
                f"{state.to}; resume with that address, or delete the file."
            )
        return state
    if plan.state_file.exists():
        raise SettingWrong(
            f"An unfinished replay is in {plan.state_file}; "
            "go on with --resume, or delete the file."
        )
    started = await calls.now()
    until = min(plan.until or started, started)
    primary = only_primary(await calls.primaries(plan.since, until), plan.primary)
    return State(plan.target.base, primary, plan.since, until, started)


def summary(counts: SentCounts) -> str:
    """What became of the calls, in one line."""
    parts = [f"{counts.answered:,} calls answered"]
    if counts.failed:
        parts[0] += f" ({counts.failed:,} with an error status)"
    if counts.unanswered:
        parts.append(f"{counts.unanswered:,} without an answer")
    parts += [f"{calls:,} skipped: {reason}" for reason, calls in sorted(counts.skipped.items())]
    return "; ".join(parts) + "."
